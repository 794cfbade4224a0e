"""Steps that do not fit into memory: errors are injected where a part of more than so many images is computed."""

import json

import pytest
import rl_steps
import torch
from rl_steps import OBJECTIVES, Keep, Recording, differences, loader, trainer_of

from capkit.callbacks import memory as memory_module
from capkit.callbacks.memory import FILE, Memory
from capkit.callbacks.recorder import Recorder
from capkit.decoding.decoding import Decoding
from capkit.errors import MEMORY_STATUS, OutOfMemory, RunFailure
from capkit.module import CaptionModule
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.optim import AdamW
from capkit.run_folder import RunFolder
from capkit.schedules import Linear

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

    class Module(CaptionModule):
        def backward_batch(self, batch, step):
            self.micro_batch_size = sizes[step] or self.micro_batch_size
            return super().backward_batch(batch, step)

    objective = Roomy(0.1)
    objective.room = room
    model = rl_steps.captioner(dropout)
    module = Module(model, objective, AdamW(lr=0.01), Linear(), Decoding())
    memory, recorder = Memory(), Recorder(every_steps=1)
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
    state = torch.load(tmp_path / "saved.ckpt", weights_only=True)["callbacks"]["Memory"]
    resumed, again = Memory(), CaptionModule(module.model, Roomy(), AdamW(lr=0.01), Linear(), Decoding())
    resumed.load_state_dict(state)
    resumed.on_train_start(trainer, again)
    assert again.micro_batch_size == 2


def test_the_random_numbers_of_a_step_that_is_done_again_are_those_of_its_start(folder):
    draws = []

    def work():
        draws.append(torch.rand(2))
        full(3 - len(draws), 1)
        return "done"

    module = CaptionModule(rl_steps.captioner(), Roomy(), AdamW(lr=0.01), Linear(), Decoding())
    module.on_shrink = lambda name, size, why: None
    module._statistics = []
    assert module.in_memory(work, "micro_batch_size", 8) == "done"
    assert len(draws) == 2 and torch.equal(draws[0], draws[1])


def test_a_single_image_that_does_not_fit_ends_the_run_with_what_to_change(folder):
    with pytest.warns(UserWarning), pytest.raises(RunFailure, match=r"a single image does not fit.*data\.max_length"):
        fit(folder, room=0)


class Small(Recording):
    """Memory ends in a rollout of more than 4 images, and in a part of more than 2 in the second update of a step."""

    def _sample(self, batch, decoding):
        full(self.rollout_batch_size or len(batch), 4)
        return super()._sample(batch, decoding)

    def _share(self, part, targets, step):
        full(len(part.batch) if part.old is not None else 0, 2)
        return super()._share(part, targets, step)


def test_a_rollout_and_an_update_within_a_step_that_do_not_fit_leave_rewards_and_updates_as_they_are(folder):
    outcomes = []
    for kind in (Recording, Small):
        keep, memory = Keep(), Memory()
        module = rl_steps.module_of(OBJECTIVES["ppo_k2"]())
        module.__class__ = kind
        trainer_of("auto", 2, [memory, keep]).fit(module, loader(2))
        outcomes.append(keep.outcome)
    assert differences(*outcomes) == []
    assert outcomes[0].rollouts == outcomes[1].rollouts
    assert (module.rollout_batch_size, module.micro_batch_size) == (4, 2)


def test_ranks_leave_the_smaller_size_to_their_next_attempt(folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(memory_module, "world_size", lambda: 2)
        with pytest.raises(OutOfMemory, match=r"step 2 .* the same command goes on with micro_batch_size=4"):
            fit(folder, room=4)
    assert OutOfMemory.status == MEMORY_STATUS == 82
    assert json.loads((folder.path / FILE).read_text()) == {"micro_batch_size": 4}
    _, module = fit(folder, room=4)
    assert module.micro_batch_size == 4
    assert [row["train/micro_batch_size"] for row in folder.rows() if "train/micro_batch_size" in row] == [4]
