"""Throughput by a clock that is written down: where time goes, and that nothing waits for the device."""

import json
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from capkit.cli import main
from capkit.decoding.config import Decoding
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.encoders.image import SmallCNN
from capkit.models.tuning.frozen import freeze_if
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.run.folder import RunFolder
from capkit.scorers.reward import Reward, RewardTerm
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.train.callbacks.throughput import Throughput
from capkit.train.flop import StepFlop, flop_of
from capkit.train.mle_module import MLEModule
from capkit.train.phases import PhaseTimer
from capkit.train.rl.module import RLModule
from capkit.types import CaptionBatch


class Clock:
    """Gives the times written down, one at a call. What is later than `passed` has not happened on the device yet."""

    def __init__(self, times):
        self.times, self.passed, self.waited = iter(times), float("inf"), []

    def __call__(self):
        return Time(next(self.times), self)


class Time:
    def __init__(self, at, clock):
        self.at, self.clock = at, clock

    def is_there(self):
        return self.at <= self.clock.passed

    def wait(self):
        assert self.is_there() or self.clock.passed == float("inf"), "waited for the device"

    def seconds_since(self, earlier):
        return self.at - earlier.at


def test_time_belongs_to_the_phase_entered_last_and_validation_to_none():
    #                      data  update rollout reward update end | data-> None   data  update end
    timer = PhaseTimer(Clock([0.0, 2.0, 2.5, 6.5, 7.5, 10.0, 11.0, 50.0, 51.0, 54.0]))
    for phase in ("data", "update", "rollout", "reward", "update"):
        timer.enter(phase)
    timer.end_step(4, 20.0, then="data")
    for phase in (None, "data", "update"):
        timer.enter(phase)
    timer.end_step(4, torch.tensor(12.0), then="data")
    first, second = timer.finished()
    assert first.seconds == {"data": 2.0, "rollout": 4.0, "reward": 1.0, "update": 3.0}
    assert second.seconds == {"data": 2.0, "rollout": 0.0, "reward": 0.0, "update": 3.0}
    assert (first.images, first.tokens, second.tokens) == (4, 20.0, 12.0)


def test_steps_are_read_when_the_device_has_passed_them():
    clock = Clock([0.0, 1.0, 3.0, 4.0, 6.0])
    timer = PhaseTimer(clock)
    timer.enter("data")
    for _ in range(2):
        timer.enter("update")
        timer.end_step(1, 0.0, then="data")
    clock.passed = 2.9
    assert timer.finished() == []
    clock.passed = 3.0
    assert [step.seconds["update"] for step in timer.finished()] == [2.0]
    clock.passed = 6.0
    assert [step.seconds["data"] for step in timer.finished()] == [1.0]


def run(callback, num_steps, times, world_size=1):
    """Steps of 8 images: data 1 s, rollout 2 s, reward 1 s, update 4 s as `times` has them."""
    rows, written = [], {}
    trainer = Mock(spec=pl.Trainer, world_size=world_size, precision="32-true", callbacks=[], is_global_zero=True)
    trainer.strategy.root_device = torch.device("cpu")
    module = Mock(spec=MLEModule, num_tokens=lambda batch, logs: logs["tokens"])
    batch = CaptionBatch([str(number) for number in range(8)])
    callback.now, callback.folder = Clock(times), Mock(spec=RunFolder, write_metrics=written.update)
    callback.on_train_start(trainer, module)
    for step in range(num_steps):
        callback.on_train_batch_start(trainer, module, batch, step)
        for phase in ("rollout", "reward", "update"):
            module.enter_phase(phase)
        trainer.global_step = step + 1
        callback.on_train_batch_end(trainer, module, {"tokens": 100.0}, batch, step)
        if callback.numbers and callback.numbers not in rows:
            rows.append(dict(callback.numbers))
    callback.on_train_end(trainer, module)
    return rows, written


@pytest.mark.parametrize("world_size", [1, 2])
def test_shares_and_rates_of_a_clock_that_is_known(monkeypatch, world_size):
    monkeypatch.setattr("capkit.train.callbacks.throughput.flop_of", lambda *_: StepFlop(3e12, 1e10))
    rows, written = run(Throughput(every_steps=6, matmul_tflops=10), 12, _marks(12), world_size)
    for numbers in (rows[-1], written):
        shares = [numbers[f"throughput/{phase}_share"] for phase in ("data", "rollout", "reward", "update")]
        assert shares == pytest.approx([1 / 8, 2 / 8, 1 / 8, 4 / 8]) and sum(shares) == pytest.approx(1)
        assert numbers["throughput/images_per_second"] == pytest.approx(world_size * 8 / 8)
        assert numbers["throughput/tokens_per_second"] == pytest.approx(world_size * 100 / 8)
        # (8 x 3e12 + 100 x 1e10) operations in 8 s, of 10e12 a second
        assert numbers["throughput/matmul_share"] == pytest.approx((24e12 + 1e12) / 8 / 10e12)


def _marks(num_steps):
    """data | update rollout reward update end, ...; operations are counted in the first step, in no time."""
    found = [0.0, 1.0]
    for step in range(num_steps):
        start = 8.0 * step
        found += [start + 1.0, start + 1.0, start + 3.0, start + 4.0, start + 8.0]
    return found


TOKENIZER = word_tokenizer(["a red circle left of one blue square"])


def captioner(frozen=False, features=False):
    torch.manual_seed(0)
    encoder = SmallCNN(image_size=16, channels=(4, 8), blocks=(0, 0), width=16)
    freeze_if(frozen, encoder)
    return EncoderDecoder(
        TOKENIZER, None if features else encoder, 16 if features else None, width=16, num_layers=1, num_heads=2
    )


def batch(features=False):
    tokens, mask, start = encode_captions(TOKENIZER, [["a red circle"], ["one square left"]], "", 20)
    pixels = None if features else torch.randn(2, 3, 16, 16)
    states = torch.randn(2, 16, 16) if features else None
    return CaptionBatch(["a", "b"], pixels, states, tokens, mask, start)


def mle(model):
    return MLEModule(model, CrossEntropy(), AdamW(lr=1e-3), Constant(), Decoding())


def test_operations_of_the_image_encoder_are_counted_with_its_backward_pass_if_it_trains():
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        captioner().image_encoder(torch.randn(1, 3, 16, 16))
    forward = counter.get_total_flops()
    alone = flop_of(mle(captioner(features=True)), batch(features=True)).per_image
    frozen = flop_of(mle(captioner(frozen=True)), batch()).per_image
    trained = flop_of(mle(captioner()), batch()).per_image
    assert frozen - alone == forward > 0
    assert 1.2 * forward < trained - frozen < 2.3 * forward  # its first layer needs no gradient of the pixels


def test_a_step_of_reinforcement_learning_rolls_out_and_updates():
    def flop(baseline):
        objective = SelfCritical(Decoding("sample", max_length=6), num_samples=2, baseline=baseline)
        reward = Reward({"none": RewardTerm(lambda batch, samples: torch.zeros(2, 2))})
        return flop_of(RLModule(captioner(), objective, reward, AdamW(lr=1e-3), Constant(), Decoding()), batch())

    alone, with_greedy = flop("none"), flop("greedy")
    assert with_greedy.per_image == alone.per_image
    # Reading twice, once with its gradient of about twice the work: a greedy caption is half of one reading more.
    assert with_greedy.per_token / alone.per_token == pytest.approx(1 + 0.5 / 4, rel=0.03)


def test_nothing_of_the_model_changes_while_operations_are_counted():
    module = mle(captioner())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    flop_of(module, batch())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.integration
def test_a_run_shows_its_throughput_in_metrics_and_report(tmp_path):
    words = ["fit", "debug=tiny", "trainer=cpu", "max_steps=12", f"run_dir={tmp_path}", "data.train.count=16"]
    counts = ["data.val.count=4", "data.test.count=4", "model.image_encoder.channels=[4,4,4]"]
    assert main([*words, *counts, "callback=[progress,recorder,throughput]", "callback.throughput.every_steps=4"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    shares = [metrics[f"throughput/{phase}_share"] for phase in ("data", "rollout", "reward", "update")]
    assert sum(shares) == pytest.approx(1) and shares[1:3] == [0, 0] and shares[3] > 0
    assert metrics["throughput/tokens_per_second"] > metrics["throughput/images_per_second"] > 0
    assert 0 < metrics["throughput/matmul_share"] < 1
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "throughput/update_share" in row] == [4, 8, 12]
    report = (tmp_path / "report.html").read_text()
    assert "<h2>Throughput</h2>" in report and "matmul share" in report
