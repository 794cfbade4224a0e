"""Steps and evaluations that do not fit into memory.

Errors are injected where a part of more than so many images is computed.
"""

import json

import pytest
import rl_steps
import torch
from rl_steps import OBJECTIVES, Keep, Recording, differences, loader, trainer_of

from capkit.decoding.config import Decoding
from capkit.distributed.collectives import rank
from capkit.distributed.strategies import SingleDevice
from capkit.errors import MEMORY_STATUS, OutOfMemory, RunFailure
from capkit.fault_tolerance.oom import map_in_chunks
from capkit.models.batching import embed_distinct
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.run.folder import RunFolder
from capkit.scorers.reward import Reward, RewardTerm
from capkit.tasks.caption import caption_batches
from capkit.testing.distributed import run_distributed
from capkit.testing.models import batch_for, two_tower
from capkit.train.callbacks.oom import FILE, OOMBackoff
from capkit.train.callbacks.recorder import Recorder
from capkit.train.dual_encoder_module import DualEncoderModule
from capkit.train.mle_module import MLEModule

STEPS = 3


def full(images: int, room: int) -> None:
    if images > room:
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {images} GiB.\nSee documentation")


class Roomy(CrossEntropy):
    """From step 1 on there is room for so many images. Activations are kept before memory ends."""

    room = 8

    def __call__(self, model, batch, step):
        output = super().__call__(model, batch, step)
        full(len(batch) if step and model.training else 0, self.room)
        return output


def fit(folder, room, sizes=(None,) * STEPS, dropout=0.0):
    """`sizes`: micro_batch_size as each step is to find it, None: as it is."""

    class Module(MLEModule):
        def backward_batch(self, batch, step):
            self.micro_batch_size = sizes[step] or self.micro_batch_size
            return super().backward_batch(batch, step)

    objective = Roomy(0.1)
    objective.room = room
    model = rl_steps.captioner(dropout)
    module = Module(model, objective, AdamW(lr=0.01), Linear(), Decoding())
    memory, recorder = OOMBackoff(), Recorder(every_steps=1)
    for callback in (memory, recorder):
        callback.attach(folder)
    trainer = trainer_of("auto", STEPS, [memory, recorder])
    trainer.fit(module, loader(STEPS))
    return trainer, module


def weights(module):
    return torch.cat([value.flatten() for value in module.state_dict().values()])


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open({})
    return folder


def test_a_step_that_does_not_fit_is_done_again_in_halves_and_gives_what_they_give(folder, tmp_path):
    with pytest.warns(UserWarning, match=r"step 2 does not fit into memory \(CUDA out of memory.*micro_batch_size=2"):
        trainer, module = fit(folder, room=2)
    other = RunFolder(tmp_path / "other")
    other.open({})
    _, halves = fit(other, room=8, sizes=(None, 2, 2))
    assert torch.equal(weights(module), weights(halves))
    assert module.micro_batch_size == 2
    found = [(row["step"], row["train/micro_batch_size"]) for row in folder.rows() if "train/micro_batch_size" in row]
    assert found == [(1, 4), (1, 2)]

    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    state = torch.load(tmp_path / "saved.ckpt", weights_only=True)["callbacks"]["OOMBackoff"]
    resumed, again = OOMBackoff(), MLEModule(module.model, Roomy(), AdamW(lr=0.01), Linear(), Decoding())
    resumed.load_state_dict(state)
    resumed.on_train_start(trainer, again)
    assert again.micro_batch_size == 2


def test_the_random_numbers_of_a_step_that_is_done_again_are_those_of_its_start(folder):
    draws = []

    def work():
        draws.append(torch.rand(2))
        full(3 - len(draws), 1)
        return "done"

    module = MLEModule(rl_steps.captioner(), Roomy(), AdamW(lr=0.01), Linear(), Decoding())
    module.on_shrink = lambda name, size, why: None
    module._statistics = []
    assert module.in_memory(work, "micro_batch_size", 8) == "done"
    assert len(draws) == 2 and torch.equal(draws[0], draws[1])


def test_a_single_image_that_does_not_fit_ends_the_run_with_what_to_change(folder):
    with pytest.warns(UserWarning), pytest.raises(RunFailure, match=r"a single image does not fit.*data\.max_length"):
        fit(folder, room=0)


class Small(Recording):
    """Memory ends in a rollout of more than 4 images, and in a part of more than 2 in the second update of a step."""

    def _sample(self, batch, decoding, with_greedy):
        full(self.rollout_batch_size or len(batch), 4)
        return super()._sample(batch, decoding, with_greedy)

    def _share(self, part, targets, step):
        full(len(part.batch) if part.old_logprobs is not None else 0, 2)
        return super()._share(part, targets, step)


def test_a_rollout_and_an_update_within_a_step_that_do_not_fit_leave_rewards_and_updates_as_they_are(folder):
    outcomes = []
    for kind in (Recording, Small):
        keep, memory = Keep(), OOMBackoff()
        module = rl_steps.module_of(OBJECTIVES["ppo_k2"]())
        module.__class__ = kind
        trainer_of("auto", 2, [memory, keep]).fit(module, loader(2))
        outcomes.append(keep.outcome)
    assert differences(*outcomes) == []
    assert outcomes[0].rollouts == outcomes[1].rollouts
    assert (module.rollout_batch_size, module.micro_batch_size) == (4, 2)


def test_ranks_leave_the_smaller_size_to_their_next_attempt(folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(SingleDevice, "retries_steps", False)  # as with several processes
        with pytest.raises(OutOfMemory, match=r"step 2 .* the same command continues with micro_batch_size=4"):
            fit(folder, room=4)
    assert OutOfMemory.status == MEMORY_STATUS == 82
    assert json.loads((folder.path / FILE).read_text()) == {"micro_batch_size": 4}
    _, module = fit(folder, room=4)
    assert module.micro_batch_size == 4
    assert [row["train/micro_batch_size"] for row in folder.rows() if "train/micro_batch_size" in row] == [4]


def evaluated(path, rooms):
    """Steps with a validation after them, then a prediction. `rooms`: images that fit into each rank's memory.

    What was written (val/loss, rows of the captions), the sizes of the ranks' batches and metrics.jsonl.
    """
    folder, room = RunFolder(path), rooms[rank()]
    if rank() == 0:
        folder.open({})
    model, memory, recorder, encoded = rl_steps.captioner(), OOMBackoff(), Recorder(every_steps=9), []
    encode = model.encode

    def encode_what_fits(batch):
        full(0 if model.training else len(batch), room)
        encoded.append(len(batch))
        return encode(batch)

    model.encode = encode_what_fits
    module = MLEModule(model, CrossEntropy(), AdamW(lr=0.01), Linear(), Decoding(max_length=6))
    for callback in (memory, recorder):
        callback.attach(folder)
    trainer = trainer_of("ddp" if len(rooms) > 1 else "auto", 1, [memory, recorder])
    trainer.limit_val_batches = 1.0
    trainer.fit(module, loader(1), loader(2))
    loss = float(trainer.callback_metrics["val/loss"])
    encoded.clear()
    rows = [row for batch in trainer.predict(module, loader(1)) for row in batch]
    captions = {row["key"]: row["caption"] for row in rows}
    told = [row["train/eval_batch_size"] for row in folder.rows() if "train/eval_batch_size" in row]
    return loss, captions, encoded, told, memory.state_dict()["sizes"]


@pytest.mark.filterwarnings("ignore:.*at once do not fit")
def test_an_evaluation_that_does_not_fit_goes_on_in_halves_and_writes_what_it_would_have_written(tmp_path):
    loss, captions, encoded, told, sizes = evaluated(tmp_path / "roomy", [8])
    assert (encoded, told, sizes) == ([8], [], {})
    for room, size in ((4, 4), (3, 2)):
        cut_loss, cut_captions, encoded, told, sizes = evaluated(tmp_path / str(room), [room])
        assert cut_loss == pytest.approx(loss, rel=1e-5)
        assert cut_captions == captions
        assert (encoded, told, sizes) == ([size] * (8 // size), [size], {"eval_batch_size": size})


@pytest.mark.integration
def test_ranks_cut_their_own_batches_and_agree_on_the_smallest_afterwards(tmp_path):
    (_, alone, *_) = evaluated(tmp_path / "alone", [8])
    ranks = run_distributed(evaluated, 2, tmp_path / "ranks", [8, 1])
    for _, captions, encoded, told, sizes in ranks:
        assert captions.items() <= alone.items()
        assert (encoded, told, sizes) == ([1] * 4, [1], {"eval_batch_size": 1})


def test_only_the_part_that_did_not_fit_is_done_again():
    done, kept = [], []

    def work(rows):
        full(len(rows), 2)
        done.append(rows)
        return sum(rows)

    with pytest.warns(UserWarning, match=r"4 at once do not fit into memory \(CUDA out of memory.*now 2 at a time"):
        assert map_in_chunks([1, 2, 3, 4, 5], work, 4, kept.append) == [3, 7, 5]
    assert done == [[1, 2], [3, 4], [5]]
    assert kept == [2]
    with pytest.raises(RunFailure, match=r"a single image does not fit .*decoding\.max_length"):
        map_in_chunks([1], lambda rows: full(1, 0))


@pytest.mark.filterwarnings("ignore:.*at once do not fit")
def test_captions_of_a_folder_and_embeddings_of_texts_are_written_in_parts_as_well():
    model, batches, decoding = rl_steps.captioner(), rl_steps.batches_of_all_ranks(1), Decoding(max_length=6)
    encode, room = model.encode, 8
    model.encode = lambda batch: full(len(batch), room) or encode(batch)
    whole = list(caption_batches(model, batches, decoding, {"3"}))
    room = 2
    parts = list(caption_batches(model, batches, decoding, {"3"}))
    assert [len(keys) for keys, _ in whole] == [7] and [len(keys) for keys, _ in parts] == [2, 2, 2, 1]
    assert [pair for part in parts for pair in zip(*part, strict=True)] == list(zip(*whole[0], strict=True))

    texts = ["a", "b c", "d"]
    embed = lambda part: full(len(part), 1) or torch.tensor([[float(len(text))] for text in part])  # noqa: E731
    assert embed_distinct(texts, embed, 64).tolist() == [[1.0], [3.0], [1.0]]


@pytest.mark.filterwarnings("ignore:.*at once do not fit")
def test_the_validation_of_a_dual_encoder_and_of_a_reward_are_done_in_parts(folder):
    pairs = DualEncoderModule(two_tower(0.0).eval(), InfoNCE(), AdamW(lr=1e-3), Linear())
    batch = batch_for(pairs.model, [["a"], ["a b", "c"], ["d"], ["e"]])
    whole = pairs.predict_step(batch, 0)
    pairs.eval_batch_size = 3
    cut = pairs.predict_step(batch, 0)
    assert torch.equal(cut.owners, whole.owners) and torch.allclose(cut.texts, whole.texts, atol=1e-6)

    class Narrow(rl_steps.Overlap):
        def __call__(self, batch, samples):
            full(len(batch), 2)
            return super().__call__(batch, samples)

    module = rl_steps.module_of(OBJECTIVES["greedy"](), Reward({"narrow": RewardTerm(Narrow())}))
    module.decoding = Decoding(max_length=6)
    module.validation_step(rl_steps.batches_of_all_ranks(1)[0], 0)
    assert [len(part["rows"]) for part in module._validation] == [2, 2, 2, 2]
