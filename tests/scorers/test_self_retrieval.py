"""Self-retrieval: the published values, loops over single captions, and one reward for every split over ranks."""

import io
import json
import math

import pytest
import torch
from table_judge import TableJudge, reader, texts_at, unit_rows

from capkit.distributed.collectives import rank
from capkit.errors import UsageError
from capkit.models.dual_encoders.hf_frozen import HFDualEncoder
from capkit.scorers.reward import Reward, RewardTerm
from capkit.scorers.self_retrieval import FORMS, SelfRetrieval, log_softmax_reward
from capkit.testing import models as tiny
from capkit.testing.distributed import run_distributed
from capkit.types import CaptionBatch, Samples
from capkit.utils.rng import stable_hash

COSINES = [[0.31, 0.24, 0.20], [0.22, 0.28, 0.27], [0.19, 0.26, 0.25]]
NUM_PICTURES, NUM_SAMPLES = 9, 3


def by_hand(form, scale, unreadable=()):
    """The published example: captions 0, 1, 2 of pictures 0, 1, 2, with the cosines of COSINES."""
    judge = TableJudge(torch.eye(4)[:3], {str(i): row for i, row in enumerate(texts_at(COSINES))})
    scorer = SelfRetrieval(judge, form, scale)
    scorer.attach_images(reader(unreadable))
    scores = scorer(CaptionBatch(["0", "1", "2"]), Samples.from_texts([["0"], ["1"], ["2"]]))
    return scores[:, 0], scorer


def text(picture, sample):
    return f"caption {picture} {sample}"


def random_judge(scale=5.0):
    names = [text(b, k) for b in range(NUM_PICTURES) for k in range(NUM_SAMPLES)]
    rows = unit_rows(len(names), 4, seed=1)
    judge = TableJudge(unit_rows(NUM_PICTURES, 4), dict(zip(names, rows, strict=True)))
    judge.logit_scale = scale
    return judge


def scorer_of(form, judge=None, unreadable=(), **arguments):
    scorer = SelfRetrieval(judge or random_judge(), form, **arguments)
    scorer.attach_images(reader(unreadable))
    return scorer


def score(scorer, pictures):
    texts = [[text(b, k) for k in range(NUM_SAMPLES)] for b in pictures]
    return scorer(CaptionBatch([str(b) for b in pictures]), Samples.from_texts(texts))


def loops(judge, form, pictures, pool=None):
    """Each caption by itself, in Python's floats. `pool`: the pictures to choose from."""
    pool = sorted(set(pictures if pool is None else pool))
    scale = judge.logit_scale

    def cosine(picture, caption):
        return float(judge.images_table[picture].double() @ judge.texts_table[caption].double())

    def one(picture, caption):
        mine = cosine(picture, caption)
        others = [cosine(other, caption) for other in pool if other != picture]
        if form == "similarity":
            return mine
        if form == "accuracy":
            return float(all(mine > other for other in others))
        if form == "log_softmax":
            return scale * mine - math.log(sum(math.exp(scale * c) for c in (mine, *others)))
        captions = [text(b, k) for b in set(pictures) if b != picture for k in range(NUM_SAMPLES)]
        rivals = [others, [cosine(picture, other) for other in captions]]
        margins = [scale * mine - math.log(sum(math.exp(scale * c) for c in group)) for group in rivals]
        return sum(min(margin, 16.0) for margin in margins) / (2 * scale)

    return torch.tensor([[one(b, text(b, k)) for k in range(NUM_SAMPLES)] for b in pictures])


def mined(path, neighbors):
    path.write_text("".join(json.dumps({"key": key, "neighbors": row}) + "\n" for key, row in neighbors.items()))
    return str(path)


@pytest.mark.parametrize(
    ("scale", "costs"), [(1, [1.03965, 1.075621, 1.08242]), (100.0, [0.000928, 0.315072, 1.313928])]
)
def test_the_published_costs_with_the_sign_of_a_reward(scale, costs):
    # the first at scale 1: log(e^.31 + e^.24 + e^.20) - .31 = log 3.856082 - .31 = 1.34965 - .31
    scores, scorer = by_hand("log_softmax", scale)
    torch.testing.assert_close(scores, -torch.tensor(costs), atol=2e-6, rtol=0)
    assert scorer.logs() == {"pool": 3.0, "r1": pytest.approx(2 / 3)}


def test_accuracy_and_similarity_by_hand():
    assert by_hand("accuracy", None)[0].tolist() == [1.0, 1.0, 0.0]
    torch.testing.assert_close(by_hand("similarity", None)[0], torch.tensor([0.31, 0.28, 0.25]))


def test_two_sided_by_hand():
    # Caption 0, scale 1. Other pictures: log(e^.24 + e^.20) = log 2.492652 = .913347, margin .31 - .913347 = -.603347.
    # Other captions of picture 0: log(e^.22 + e^.19) = log 2.455326 = .898259, margin -.588259. Mean: -.595803.
    assert float(by_hand("two_sided", 1)[0][0]) == pytest.approx(-0.595803, abs=1e-6)


def test_a_margin_counts_no_more_than_16_nats():
    # Cosine 1 with the own picture, 0 with the other, scale 100: both margins are 100, and 16 / 100 = .16 is left.
    judge = TableJudge(torch.eye(2), {"0": [1.0, 0.0], "1": [0.0, 1.0]})
    scorer = scorer_of("two_sided", judge)
    batch = CaptionBatch(["0", "1"])
    torch.testing.assert_close(scorer(batch, Samples.from_texts([["0"], ["1"]])), torch.tensor([[0.16], [0.16]]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pictures", [[0, 1], [4, 2, 0, 1, 3], list(range(NUM_PICTURES))])
def test_rewards_equal_loops(form, pictures):
    judge = random_judge()
    torch.testing.assert_close(score(scorer_of(form, judge), pictures), loops(judge, form, pictures))


def test_a_pool_of_one_picture_is_no_choice():
    assert score(scorer_of("log_softmax"), [3]).tolist() == [[0.0] * 3]
    assert score(scorer_of("accuracy"), [3]).tolist() == [[1.0] * 3]
    torch.testing.assert_close(score(scorer_of("two_sided"), [3]), torch.full((1, 3), 16 / 5))


def test_a_common_shift_of_a_captions_logits_changes_nothing():
    cosines, own = torch.tensor(COSINES, dtype=torch.float64), torch.arange(3)
    shifted = cosines + torch.tensor([[0.3], [-0.2], [0.05]])
    torch.testing.assert_close(log_softmax_reward(shifted, own, 100.0), log_softmax_reward(cosines, own, 100.0))


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_the_images_changes_nothing(form):
    order = [3, 1, 0, 4, 2]
    wanted = score(scorer_of(form), list(range(5)))
    torch.testing.assert_close(score(scorer_of(form), order), wanted[order])


def test_a_constant_caption_is_right_by_chance():
    judge = TableJudge(torch.eye(5)[:4], {"something": [0.3, 0.3, 0.3, 0.3, 0.8]})
    scorer = scorer_of("accuracy", judge)
    scores = scorer(CaptionBatch([str(i) for i in range(4)]), Samples.from_texts([["something"]] * 4))
    assert scores.tolist() == [[0.25]] * 4 and scorer.logs() == {"pool": 4.0, "r1": 0.25}


def test_the_scale_is_the_judges_own_unless_given():
    assert SelfRetrieval(tiny.two_tower(logit_scale=20.0).eval()).scale == pytest.approx(20.0)
    assert SelfRetrieval(tiny.two_tower().eval(), scale=1).scale == 1.0
    without = random_judge()
    del TableJudge.logit_scale, without.logit_scale
    try:
        with pytest.raises(UsageError, match="no logit scale of its own; set scale"):
            SelfRetrieval(without)
    finally:
        TableJudge.logit_scale = 100.0


@pytest.mark.parametrize("model_type", ["clip", "align"])
def test_the_scale_of_a_transformers_model_is_what_it_multiplies_cosines_by(model_type):
    tower = tiny.hf_two_tower(model_type)
    judge = HFDualEncoder(tower._network, tiny.tokenizer(), object())
    assert SelfRetrieval(judge).scale == pytest.approx(float(tower.logit_scale))


@pytest.mark.parametrize("form", FORMS)
def test_an_image_that_stands_in_the_batch_twice_counts_once(form):
    judge = random_judge()
    scorer = scorer_of(form, judge)
    scores = score(scorer, [0, 1, 0, 2])
    assert scorer.logs()["pool"] == 3.0
    torch.testing.assert_close(scores[[0, 1, 3]], loops(judge, form, [0, 1, 2]))
    assert torch.equal(scores[0], scores[2])


# -- hard negatives


def test_the_first_neighbors_join_the_pool_once(tmp_path):
    neighbors = {str(b): [str((b + step) % NUM_PICTURES) for step in (1, 2, 3)] for b in range(NUM_PICTURES)}
    judge = random_judge()
    for number, pool in ((1, [0, 1, 2, 4, 5]), (2, [0, 1, 2, 3, 4, 5, 6])):
        arguments = dict(neighbors_file=mined(tmp_path / "neighbors.jsonl", neighbors), num_neighbors=number)
        scorer = scorer_of("log_softmax", judge, **arguments)
        torch.testing.assert_close(score(scorer, [0, 1, 4]), loops(judge, "log_softmax", [0, 1, 4], pool))
        assert scorer.logs()["pool"] == len(pool)


def test_an_unreadable_neighbor_is_left_out(tmp_path):
    file = mined(tmp_path / "neighbors.jsonl", {"0": ["7"], "1": ["8"]})
    judge = random_judge()
    scorer = scorer_of("log_softmax", judge, unreadable=["8"], neighbors_file=file, num_neighbors=1)
    torch.testing.assert_close(score(scorer, [0, 1]), loops(judge, "log_softmax", [0, 1], [0, 1, 7]))


def test_what_is_wrong_with_neighbors_is_named(tmp_path):
    good = mined(tmp_path / "good.jsonl", {"0": ["1", "2"], "1": ["2"]})
    (tmp_path / "bad.jsonl").write_text('{"key": "0"}\n')
    with pytest.raises(UsageError, match=r"has no row for image '2'"):
        score(scorer_of("log_softmax", neighbors_file=good, num_neighbors=1), [0, 2])
    for arguments, message in (
        (dict(neighbors_file=str(tmp_path / "absent"), num_neighbors=1), "no file .*absent"),
        (dict(neighbors_file=str(tmp_path / "bad.jsonl"), num_neighbors=1), "line 1: expected"),
        (dict(neighbors_file=good, num_neighbors=3), "expected num_neighbors of at most"),
        (dict(neighbors_file=good), "give both, or neither"),
        (dict(num_neighbors=1), "give both, or neither"),
        (dict(share_neighbors=False), "share_neighbors=false needs neighbors; got num_neighbors=0"),
        (dict(queue_size=-1), "queue_size: expected an integer of at least 0"),
        (dict(scale=0.0), "scale: expected a finite number greater than 0"),
    ):
        with pytest.raises(UsageError, match=message):
            scorer_of("log_softmax", **arguments)
    with pytest.raises(UsageError, match="expected form to be one of"):
        scorer_of("softmax")


# -- hard negatives row by row, (B, B + H)


def row_by_row(judge, form, pictures, neighbors):
    """Each image's captions choose among the batch and that image's own neighbours."""
    pools = [{*pictures, *neighbors[picture]} for picture in pictures]
    return torch.stack([loops(judge, form, pictures, pool)[place] for place, pool in enumerate(pools)])


def test_row_by_row_by_hand(tmp_path):
    # Captions 0 and 1 of pictures 0 and 1; picture 2 is the neighbour of 0, that of 1 is 0, which is in the batch.
    # With scale 1, caption 0: .31 - log(e^.31 + e^.24 + e^.20) = -1.03965, the published value of three
    # pictures. Caption 1: .28 - log(e^.22 + e^.28) = -.663597, of two. In a shared pool both have three.
    judge = TableJudge(torch.eye(4)[:3], {str(i): row for i, row in enumerate(texts_at(COSINES))})
    file = mined(tmp_path / "neighbors.jsonl", {"0": ["2"], "1": ["0"]})
    found = {}
    for share in (False, True):
        arguments = dict(scale=1, neighbors_file=file, num_neighbors=1, share_neighbors=share)
        scorer = scorer_of("log_softmax", judge, **arguments)
        scores = scorer(CaptionBatch(["0", "1"]), Samples.from_texts([["0"], ["1"]]))
        found[share] = scores[:, 0].tolist(), scorer.logs()["pool"]
    assert found[False] == (pytest.approx([-1.03965, -0.663597], abs=1e-5), 2.5)
    assert found[True] == (pytest.approx([-1.03965, -1.075621], abs=1e-5), 3.0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pictures", [[3, 6], [4, 2, 0, 1, 3], list(range(NUM_PICTURES))])
def test_rewards_row_by_row_equal_loops(form, pictures, tmp_path):
    neighbors = {b: [(b + step) % NUM_PICTURES for step in (1, 4)] for b in range(NUM_PICTURES)}
    as_text = {str(b): [str(other) for other in row] for b, row in neighbors.items()}
    judge = random_judge()
    arguments = dict(neighbors_file=mined(tmp_path / "neighbors.jsonl", as_text), num_neighbors=2)
    scores = score(scorer_of(form, judge, share_neighbors=False, **arguments), pictures)
    torch.testing.assert_close(scores, row_by_row(judge, form, pictures, neighbors))
    if form == "log_softmax" and len(pictures) == 5:
        assert not torch.allclose(scores, score(scorer_of(form, judge, **arguments), pictures))


def test_neighbors_that_are_the_own_picture_or_in_the_batch_or_unreadable_add_no_candidate(tmp_path):
    file = mined(tmp_path / "neighbors.jsonl", {"0": ["0", "1", "8"], "1": ["1", "0", "8"]})
    judge = random_judge()
    arguments = dict(neighbors_file=file, num_neighbors=3, share_neighbors=False)
    scorer = scorer_of("log_softmax", judge, unreadable=["8"], **arguments)
    torch.testing.assert_close(score(scorer, [0, 1]), loops(judge, "log_softmax", [0, 1]))
    assert scorer.logs()["pool"] == 2.0


def test_own_neighbors_stay_with_their_picture_where_an_earlier_one_cannot_be_read(tmp_path):
    neighbors = {b: [(b + 4) % NUM_PICTURES, (b + 6) % NUM_PICTURES] for b in range(NUM_PICTURES)}
    file = mined(tmp_path / "neighbors.jsonl", {str(b): [str(other) for other in row] for b, row in neighbors.items()})
    judge = random_judge()
    arguments = dict(neighbors_file=file, num_neighbors=2, share_neighbors=False)
    scores = score(scorer_of("log_softmax", judge, unreadable=["0"], **arguments), [0, 1, 2])
    assert scores[0].isnan().all()
    torch.testing.assert_close(scores[1:], row_by_row(judge, "log_softmax", [1, 2], neighbors))


# -- queue


def test_the_queue_holds_the_last_images_each_once():
    judge = random_judge()
    scorer = scorer_of("log_softmax", judge, queue_size=3)
    score(scorer, [0, 1])
    torch.testing.assert_close(score(scorer, [1, 2]), loops(judge, "log_softmax", [1, 2], [0, 1, 2]))
    score(scorer, [3])  # 0 is the oldest and goes: 1 came again with 2
    torch.testing.assert_close(score(scorer, [4]), loops(judge, "log_softmax", [4], [1, 2, 3, 4]))


def test_a_queue_that_is_smaller_than_a_batch_holds_the_same_images_in_every_order():
    judge = random_judge()
    kept = max(range(4), key=lambda b: stable_hash(str(b)))
    for order in ([0, 1, 2, 3], [3, 0, 2, 1]):
        scorer = scorer_of("log_softmax", judge, queue_size=1)
        score(scorer, order)
        torch.testing.assert_close(score(scorer, [8]), loops(judge, "log_softmax", [8], [8, kept]))


def test_a_resumed_queue_goes_on_as_the_uninterrupted_one():
    scorer = scorer_of("log_softmax", queue_size=4)
    for pictures in ([0, 1], [2, 3], [4]):
        score(scorer, pictures)
    file = io.BytesIO()
    torch.save(scorer.state_dict(), file)
    file.seek(0)
    resumed = scorer_of("log_softmax", queue_size=4)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for pictures in ([5, 6], [7]):
        assert torch.equal(score(resumed, pictures), score(scorer, pictures))
        assert resumed.logs() == scorer.logs()


# -- what cannot be scored


@pytest.mark.parametrize("form", FORMS)
def test_an_unreadable_picture_gives_nan_and_is_in_no_ones_pool(form):
    judge = random_judge()
    scorer = scorer_of(form, judge, unreadable=["1"], queue_size=9)
    for _ in range(2):
        scores = score(scorer, [0, 1, 2])
        assert scores[1].isnan().all()
        torch.testing.assert_close(scores[[0, 2]], loops(judge, form, [0, 2]))
        assert scorer.logs()["pool"] == 2.0


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_without_a_readable_picture_has_no_reward(form):
    scorer = scorer_of(form, unreadable=["0", "1"])
    assert score(scorer, [0, 1]).isnan().all()
    assert scorer.logs()["pool"] == 0.0 and math.isnan(scorer.logs()["r1"])


def test_tables_of_single_captions_leave_it_out():
    reward = Reward({"self_retrieval": RewardTerm(scorer_of("log_softmax"))})
    assert reward.score_alone(CaptionBatch(["0"]), Samples.from_texts([[text(0, 0)]])) == {}


def test_scores_say_what_they_must_be_quoted_with():
    about = scorer_of("log_softmax", queue_size=2).provenance()
    assert len(about.pop("scorer_hash")) == 32
    assert about == {
        "scorer": "table",
        "prompt": "",
        "max_length": 8,
        "form": "log_softmax",
        "scale": 5.0,
        "num_neighbors": 0,
        "share_neighbors": True,
        "queue_size": 2,
    }


# -- ranks


STEPS = ([0, 1, 2, 3, 4, 5], [6, 0, 7, 1, 8, 6])  # two batches; the second has an image twice
SHARES = {1: [6], 2: [4, 2], 4: [1, 3, 1, 1]}
CASES = [(form, share) for form in FORMS for share in (True, False)]


def steps_of_rank(shares, folder, unreadable):
    """Of each form: this rank's rewards of both batches, the last logs, and the queue."""
    start = sum(shares[: rank()])
    results = {}
    for form, share in CASES:
        arguments = dict(neighbors_file=f"{folder}/neighbors.jsonl", num_neighbors=2, share_neighbors=share)
        scorer = scorer_of(form, unreadable=unreadable, queue_size=4, **arguments)
        scores = [score(scorer, pictures[start : start + shares[rank()]]) for pictures in STEPS]
        results[form, share] = scores, scorer.logs(), scorer.state_dict()["queue"]
    return results


@pytest.mark.integration
@pytest.mark.parametrize("world_size", [2, 4])
def test_the_reward_is_the_same_for_uneven_shares_on_two_and_four_ranks(world_size, tmp_path):
    mined(tmp_path / "neighbors.jsonl", {str(b): [str((b + 1) % 9), str((b + 4) % 9)] for b in range(NUM_PICTURES)})
    whole = steps_of_rank(SHARES[1], str(tmp_path), ["3"])
    ranks = run_distributed(steps_of_rank, world_size, SHARES[world_size], str(tmp_path), ["3"])
    for case in CASES:
        scores, logs, queue = whole[case]
        assert logs["pool"] > 6 and scores[0][3].isnan().all()
        for step in range(len(STEPS)):
            together = torch.cat([results[case][0][step] for results in ranks])
            torch.testing.assert_close(together, scores[step], equal_nan=True)
        for _, rank_logs, rank_queue in (results[case] for results in ranks):
            assert rank_logs == pytest.approx(logs)
            assert torch.equal(rank_queue["ids"], queue["ids"]) and torch.equal(rank_queue["rows"], queue["rows"])


@pytest.mark.integration
def test_a_rank_that_can_read_no_picture_goes_along(tmp_path):
    mined(tmp_path / "neighbors.jsonl", {str(b): [str((b + 1) % 9), "8"] for b in range(NUM_PICTURES)})
    first, second = run_distributed(steps_of_rank, 2, SHARES[2], str(tmp_path), ["4", "5"])
    for case in CASES:
        assert second[case][0][0].isnan().all() and not first[case][0][0].isnan().any()
