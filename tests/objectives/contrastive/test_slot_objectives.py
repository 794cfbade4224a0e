"""Several texts an image: each slot by itself, and each text with the patches that it speaks of (DreamLIP)."""

import math

import pytest
import torch
import torch.distributed as dist
from pair_cases import assert_same

from capkit.errors import UsageError
from capkit.models.dual_encoders.patch_grouping import PatchGrouping
from capkit.objectives.contrastive.grouped_patches import GroupedPatches
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.contrastive.multi_positive import MultiPositive
from capkit.objectives.contrastive.pair_sum import PairSum
from capkit.objectives.contrastive.slots import by_image
from capkit.testing.distributed import run_distributed
from capkit.types import PairEmbeddings

NUM_IMAGES, NUM_SLOTS, WIDTH, NUM_PATCHES = 5, 3, 4, 6
MISSING = [(3, 2), (4, 1), (4, 2)]  # of image 4 there is one text alone
OWNERS, SLOTS = zip(
    *[(i, k) for i in range(NUM_IMAGES) for k in range(NUM_SLOTS) if (i, k) not in MISSING], strict=True
)
TEXT_IDS = torch.arange(len(OWNERS)).index_put((torch.tensor([1]),), torch.tensor(0))  # image 0 has one text twice


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    images, texts, patches = (
        unit(torch.randn(*shape, WIDTH, generator=generator)) for shape in ((5,), (len(OWNERS),), (5, NUM_PATCHES))
    )
    return {"images": images, "texts": texts, "patches": patches, "logit_scale": torch.tensor(3.0)}


def pairs_of(leaves, images=range(NUM_IMAGES), sigma=0.0):
    """The pairs of some images, in that order, grouped as a model does."""
    rows = torch.tensor([m for i in images for m, owner in enumerate(OWNERS) if owner == i], dtype=torch.long)
    images = torch.tensor(list(images), dtype=torch.long)
    owners, slots = torch.tensor(OWNERS)[rows], torch.tensor(SLOTS)[rows]
    places = (owners[:, None] == images[None]).long().argmax(1) if len(images) else owners
    texts = leaves["texts"][rows]
    grouped = PatchGrouping(sigma)(texts, leaves["patches"][images], places, slots, NUM_SLOTS)
    extras = {"grouped": grouped, "slots": slots}
    return PairEmbeddings(
        leaves["images"][images], texts, leaves["logit_scale"], images, owners, TEXT_IDS[rows], None, extras
    )


def outcome(objective, pairs, leaves):
    output = objective(pairs, 0)
    output.loss.backward()
    gradients = {n: torch.zeros_like(x) if x.grad is None else x.grad for n, x in leaves.items()}
    return {"loss": output.loss.detach(), "gradients": gradients, "logs": output.logs}


def leaves(seed=0):
    return {name: value.requires_grad_() for name, value in tensors(seed).items()}


def of_batch(objective, images=range(NUM_IMAGES)):
    own = leaves()
    return outcome(objective, pairs_of(own, images), own)


def naive_multi_positive(own):
    """One text of each image at a time, row by row and column by column."""
    means = []
    for slot in range(NUM_SLOTS):
        there = [m for m in range(len(OWNERS)) if SLOTS[m] == slot]
        losses = {"i2t": [], "t2i": []}
        for m in there:
            cosines = torch.stack([own["images"][OWNERS[m]] @ own["texts"][n] for n in there])
            losses["i2t"].append(-(own["logit_scale"] * cosines).log_softmax(0)[there.index(m)])
            cosines = torch.stack([image @ own["texts"][m] for image in own["images"]])
            losses["t2i"].append(-(own["logit_scale"] * cosines).log_softmax(0)[OWNERS[m]])
        means.append(sum(torch.stack(way).mean() for way in losses.values()) / 2)
    return torch.stack(means).mean()


def naive_group(own, m, sigma):
    weights = []
    cosines = [patch @ own["texts"][m] for patch in own["patches"][OWNERS[m]]]
    low, high = min(cosines), max(cosines)
    for cosine in cosines:
        weight = (cosine - low) / (high - low)
        weights.append(weight if weight >= sigma else torch.zeros(()))
    patches = own["patches"][OWNERS[m]]
    return unit(sum(weight * patch for weight, patch in zip(weights, patches, strict=True)) / sum(weights))


def naive_grouped(own, negatives, sigma):
    losses, everything = [], range(len(OWNERS))
    groups = [naive_group(own, m, sigma) for m in everything]
    for m in everything:
        others = [n for n in everything if negatives == "batch" or OWNERS[n] == OWNERS[m]]
        wanted = [TEXT_IDS[n] == TEXT_IDS[m] for n in others]
        for one, many in ((groups[m], own["texts"]), (own["texts"][m], groups)):
            logprobs = (own["logit_scale"] * torch.stack([one @ many[n] for n in others])).log_softmax(0)
            losses.append(-sum(p for p, is_wanted in zip(logprobs, wanted, strict=True) if is_wanted) / sum(wanted))
    return torch.stack(losses).mean()


def test_each_slot_by_itself_is_the_naive_loop():
    own = leaves()
    loss = naive_multi_positive(own)
    loss.backward()
    gradients = {n: torch.zeros_like(x) if x.grad is None else x.grad for n, x in own.items()}
    assert_same(of_batch(MultiPositive(duplicates="negative")), {"loss": loss.detach(), "gradients": gradients})


@pytest.mark.parametrize("sigma", [0.0, 0.4, "1/N"])
@pytest.mark.parametrize("negatives", ["image", "batch"])
def test_texts_and_their_patches_are_the_naive_loop(negatives, sigma):
    own = leaves()
    loss = naive_grouped(own, negatives, 1 / NUM_PATCHES if sigma == "1/N" else sigma)
    loss.backward()
    gradients = {n: torch.zeros_like(x) if x.grad is None else x.grad for n, x in own.items()}
    seen = leaves()
    found = outcome(GroupedPatches(sigma, negatives), pairs_of(seen, sigma=sigma), seen)
    assert_same(found, {"loss": loss.detach(), "gradients": gradients})


def test_hand_worked_value_of_two_texts_of_one_image():
    # Logits log 3 on the diagonal and 0 beside it: each row and column gives -log 3/4.
    ids = torch.tensor([7])
    extras = {"grouped": torch.eye(2), "slots": torch.arange(2)}
    pairs = PairEmbeddings(
        torch.eye(2)[:1], torch.eye(2), torch.tensor(math.log(3)), ids, ids.repeat(2), torch.arange(2), None, extras
    )
    output = GroupedPatches()(pairs, 0)
    assert float(output.loss) == pytest.approx(-math.log(3 / 4)) and output.logs["accuracy"] == 1
    extras["grouped"] = torch.eye(2).flip(0)
    assert float(GroupedPatches()(pairs, 0).loss) == pytest.approx(math.log(4))
    # One image in each slot, with nothing to be compared with: InfoNCE of it is 0.
    assert float(MultiPositive()(pairs, 0).loss) == pytest.approx(0)


def test_hand_worked_weights():
    # Cosines 1, .5, 0 of patches with a text: scaled they stay so; sigma .6 leaves the first alone.
    cosines = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.2, 0.2]])
    torch.testing.assert_close(PatchGrouping().weights(cosines), torch.tensor([[2 / 3, 1 / 3, 0], [1 / 3] * 3]))
    torch.testing.assert_close(PatchGrouping(0.6).weights(cosines)[0], torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(PatchGrouping("1/N").weights(cosines)[0], torch.tensor([2 / 3, 1 / 3, 0]))
    assert PatchGrouping().weights(torch.tensor([[0.3]])).tolist() == [[1.0]]


@pytest.mark.parametrize("values", [[0.3], [0.2, 0.2, 0.2], [0.2, 0.2 + 1e-8], [0.0, 0.0]])
def test_gradients_are_finite_where_patches_cannot_be_told_apart(values):
    cosines = torch.tensor([values], requires_grad=True)
    weights = PatchGrouping(1.0).weights(cosines)
    assert weights.sum().item() == pytest.approx(1)
    (weights * torch.randn(len(values))).sum().backward()
    assert cosines.grad is not None and cosines.grad.isfinite().all()


@pytest.mark.parametrize("objective", [MultiPositive(), GroupedPatches(), GroupedPatches(0.2, "batch")])
def test_the_order_of_images_and_of_patches_changes_nothing(objective):
    expected = of_batch(objective)
    assert_same(of_batch(objective, [3, 0, 4, 2, 1]), expected)
    own = leaves()
    order = torch.randperm(NUM_PATCHES)
    shuffled = outcome(objective, pairs_of({**own, "patches": own["patches"][:, order]}), own)
    assert_same(shuffled, expected)


def test_the_order_of_slots_changes_nothing():
    own = leaves()
    pairs = pairs_of(own)
    whole = [m for m, owner in enumerate(OWNERS) if owner < 3]  # images with all of their texts
    turned = [m for i in range(3) for m in (3 * i + 2, 3 * i, 3 * i + 1)]

    def part(rows):
        extras = {"grouped": pairs.extras["grouped"][rows], "slots": torch.arange(3).repeat(3)}
        of_texts = (x[rows] for x in (pairs.texts, pairs.owners, pairs.text_ids))
        texts, owners, ids = of_texts
        return PairEmbeddings(
            pairs.images[:3], texts, pairs.logit_scale, pairs.image_ids[:3], owners, ids, None, extras
        )

    for objective in (MultiPositive(), GroupedPatches(), GroupedPatches(negatives="batch")):
        torch.testing.assert_close(objective(part(whole), 0).loss, objective(part(turned), 0).loss)


def test_rows_in_the_released_order_of_slots_before_images_are_no_rows_by_image():
    """Texts stacked as (slot, image) and viewed as (image, slot) keep the right image in a third of the rows."""
    num_images, num_slots = 4, 3
    rows = torch.tensor([[10.0 * i + k] for i in range(num_images) for k in range(num_slots)])
    slots = torch.arange(num_slots).repeat(num_images)
    right, real = by_image(rows, slots, torch.arange(num_images).repeat_interleave(num_slots), num_images, num_slots)
    assert real.all() and right[..., 0].tolist() == [[10 * i + k for k in range(3)] for i in range(4)]
    released = rows.view(num_images, num_slots).T.reshape(num_images, num_slots)
    keeps = [released[i, k] // 10 == i for i in range(num_images) for k in range(num_slots)]
    assert sum(keeps) == len(keeps) / 3


def test_rows_of_images_with_few_texts_or_none_leave_gaps():
    rows, slots, owners = torch.arange(5.0)[:, None], torch.tensor([0, 1, 0, 0, 1]), torch.tensor([7, 7, 3, 3, 5])
    found, real = by_image(rows, slots, owners, 5, 2)
    assert real.tolist() == [[True, True], [True, False], [True, False], [False, True], [False, False]]
    assert found[..., 0].tolist() == [[0, 1], [2, 0], [3, 0], [0, 4], [0, 0]]


SPLITS = {2: [[0, 3], [1, 2, 4]], 3: [[4], [], [0, 1, 2, 3]]}
OBJECTIVES = {
    "multi_positive": MultiPositive(),
    "grouped": GroupedPatches(0.2),
    "grouped, batch": GroupedPatches(0.0, "batch"),
    "sum": PairSum({"captions": MultiPositive(), "grouping": GroupedPatches()}, {"grouping": 0.5}),
}


def outcomes_of_rank(images):
    return {name: of_batch(objective, images[dist.get_rank()]) for name, objective in OBJECTIVES.items()}


@pytest.mark.integration
@pytest.mark.parametrize("world_size", SPLITS)
def test_shares_and_gradients_of_uneven_ranks_are_those_of_one_process(world_size):
    parts = run_distributed(outcomes_of_rank, world_size, SPLITS[world_size])
    for name, objective in OBJECTIVES.items():
        of_ranks = [part[name] for part in parts]
        gradients = {n: sum(part["gradients"][n] for part in of_ranks) for n in of_ranks[0]["gradients"]}
        together = {"loss": sum(part["loss"] for part in of_ranks), "gradients": gradients}
        expected = of_batch(objective)
        assert_same(together, {key: expected[key] for key in together})
        assert all(part["logs"] == of_ranks[0]["logs"] for part in of_ranks)


def test_a_text_alone_has_nothing_to_be_told_from():
    own = leaves()
    pairs = pairs_of(own, [4])
    with pytest.warns(UserWarning, match=r"every image has one text.*give data\.sub_captions, or negatives=batch"):
        output = GroupedPatches()(pairs, 0)
    output.loss.backward()
    assert float(output.loss) == 0 and own["patches"].grad.abs().max() == 0


def test_what_an_objective_of_slots_needs():
    pairs = pairs_of(leaves())
    pairs.extras = {}
    with pytest.raises(UsageError, match="MultiPositive expected slots from the dual encoder, got no extras"):
        MultiPositive()(pairs, 0)
    pairs.extras = {"slots": torch.tensor(SLOTS)}
    with pytest.raises(UsageError, match=r"expected grouped patches from the dual encoder, got \['slots'\]"):
        GroupedPatches()(pairs, 0)
    for sigma in (1.5, -0.1, "1/P", True):
        with pytest.raises(UsageError, match="sigma: expected a number from 0 to 1, or 1/N, got"):
            PatchGrouping(sigma)
    with pytest.raises(UsageError, match="negatives to be one of image, batch"):
        GroupedPatches(negatives="all")


def test_with_one_text_an_image_the_slots_are_info_nce():
    own = leaves()
    pairs = pairs_of(own)
    first = pairs.extras["slots"] == 0
    one = PairEmbeddings(
        pairs.images, pairs.texts[first], pairs.logit_scale, pairs.image_ids, pairs.owners[first],
        pairs.text_ids[first], None, {"slots": pairs.extras["slots"][first]},
    )  # fmt: skip
    torch.testing.assert_close(MultiPositive()(one, 0).loss, InfoNCE()(one, 0).loss)
