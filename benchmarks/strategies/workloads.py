"""The work of `benchmarks.strategies`: one run of an objective under a strategy on SceneWorld, and what came out.

Every rank of a group runs `work_off`: cell after cell in one process, since starting takes longer than a run.
"""

import gc
import json
import os
import statistics
import time
import traceback
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from capkit.data.transforms import ImageTransform
from capkit.decoding.config import Decoding
from capkit.distributed.collectives import rank, world_size
from capkit.distributed.zero import Zero
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.models.encoders.image import SmallCNN
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.scorers.cider import CiderD
from capkit.scorers.reward import Reward, RewardTerm
from capkit.scorers.self_retrieval import SelfRetrieval
from capkit.testing.distributed import bare_trainer
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.train.dual_encoder_module import DualEncoderModule
from capkit.train.mle_module import MLEModule
from capkit.train.rl.module import RLModule
from capkit.train.train_module import TrainModule
from capkit.types import CaptionBatch, Samples

OBJECTIVES = ("mle", "info_nce", "self_critical", "self_retrieval")
WARM_UP = 3  # steps that are not timed
IMAGE = 32  # pixels a side


@dataclass(frozen=True)
class Size:
    """Of the models, and of the global batch."""

    width: int
    layers: int
    batch: int


SIZES = {"tiny": Size(32, 1, 8), "small": Size(64, 2, 16), "large": Size(768, 8, 64)}


@dataclass(frozen=True)
class Cell:
    """One run. `strategy`: one, ddp, zero1 .. zero3, zero2_offload, zero3_offload; `micro`: micro-batches a step."""

    objective: str
    strategy: str
    micro: int
    precision: str

    @property
    def name(self) -> str:
        return f"{self.objective}, {self.strategy}, {self.micro} x, {self.precision}"


@dataclass
class Result:
    """`rows`: loss and gradient norm of each step. Of rank 0; without a GPU `peak_gib` is NaN."""

    cell: Cell
    rows: list[tuple[float, float]] = field(default_factory=list)
    step_seconds: float = float("nan")
    peak_gib: float = float("nan")
    error: str = ""

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Result":
        values = json.loads(line)
        return cls(**{**values, "cell": Cell(**values["cell"]), "rows": [tuple(row) for row in values["rows"]]})


class Replaying(RLModule):
    """Learns from the captions on `tape`, by step and method; where there are none, samples, and keeps them there.

    So rounding cannot make two runs learn from different captions. Rewards are scored live. Images are named by their
    place in the global batch.
    """

    tape: dict[tuple[int, str], Samples]

    def sample(self, batch: CaptionBatch, decoding: Decoding, with_greedy: bool = False) -> Samples:
        place = (self.global_step, decoding.method)
        if place not in self.tape:
            self.tape[place] = super().sample(batch, decoding, with_greedy).to("cpu")
        return self.tape[place].images([int(key) for key in batch.keys]).to(self.device)


class Scenes:
    """The first scenes of SceneWorld as batches of the same images in each step, and readers of them."""

    def __init__(self, batch: int, folder: Path) -> None:
        source = SceneWorld("train", batch, size=IMAGE, cache_dir=str(folder))
        self.pictures = [source.image(index) for index in range(batch)]
        self.captions = [[str(c.text) for c in source.record(index).captions] for index in range(batch)]
        self.tokenizer = word_tokenizer([text for texts in self.captions for text in texts])
        self.transform = ImageTransform(IMAGE)

    def batch(self) -> CaptionBatch:
        """This rank's share of a step: one caption an image, all as references."""
        first = [texts[:1] for texts in self.captions]
        tokens, mask, prompt_length = encode_captions(self.tokenizer, first, prompt="", max_length=40)
        pixels = torch.stack([torch.from_numpy(p).permute(2, 0, 1).float() / 127.5 - 1 for p in self.pictures])
        keys = [str(index) for index in range(len(self.pictures))]
        whole = CaptionBatch(keys, pixels, None, tokens, mask, prompt_length, references=self.captions)
        return whole.select(list(range(rank(), len(keys), world_size())))

    def module(self, cell: Cell, size: Size, tape: dict[tuple[int, str], Samples]) -> TrainModule:
        torch.manual_seed(0)
        per_rank = size.batch // world_size()
        micro = None if cell.micro == 1 else max(1, per_rank // cell.micro)
        optimization = (AdamW(lr=1e-3, clip_norm=0.5), Linear())
        if cell.objective == "info_nce":
            return DualEncoderModule(self.dual_encoder(size), InfoNCE(), *optimization, micro_batch_size=micro)
        model = self.captioner(size)
        if cell.objective == "mle":
            return MLEModule(model, CrossEntropy(), *optimization, Decoding(), micro_batch_size=micro)
        objective = SelfCritical(Decoding("sample", max_length=20), num_samples=3)
        scorer: Any = CiderD() if cell.objective == "self_critical" else SelfRetrieval(self.judge())
        reward = Reward({"reward": RewardTerm(scorer)})
        device = "cuda" if torch.cuda.is_available() else "cpu"
        reward.prepare(lambda key: self.pictures[int(key)], lambda: self.captions, device)
        module = Replaying(model, objective, reward, *optimization, Decoding(), micro_batch_size=micro)
        module.tape = tape
        return module

    def captioner(self, size: Size) -> EncoderDecoder:
        encoder = SmallCNN(image_size=IMAGE, width=size.width)
        return EncoderDecoder(
            self.tokenizer, encoder, width=size.width, num_layers=size.layers, feedforward=4 * size.width, dropout=0.0
        )

    def dual_encoder(self, size: Size) -> TwoTower:
        config = {
            "model_type": "clip_text_model",
            "hidden_size": size.width,
            "intermediate_size": 4 * size.width,
            "num_hidden_layers": size.layers,
            "num_attention_heads": 4,
            "max_position_embeddings": 48,
        }
        text = HFTextTower(config=config, tokenizer=self.tokenizer, max_length=48)
        image = SmallCNN(image_size=IMAGE, width=size.width)
        return TwoTower(text, image, embed_dim=size.width, transform=self.transform)

    def judge(self) -> TwoTower:
        """Untrained, the same in every run: what it likes does not matter here."""
        torch.manual_seed(1)
        return self.dual_encoder(SIZES["tiny"]).eval().requires_grad_(False)


class Watch(pl.Callback):
    """Seconds and numbers of each step."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float]] = []
        self.seconds: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self._begun = _now()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any) -> None:
        self.seconds.append(_now() - self._begun)
        self.rows.append((float(outputs["loss"]), float(outputs["grad_norm"])))


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def run_cell(cell: Cell, scenes: Scenes, size: Size, steps: int, tape: dict[tuple[int, str], Samples]) -> Result:
    on_gpu = torch.cuda.is_available()
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    watch = Watch()
    trainer = bare_trainer(
        accelerator="gpu" if on_gpu else "cpu",
        strategy=_strategy(cell.strategy),
        precision=cell.precision,
        max_steps=steps,
        limit_val_batches=0,
        callbacks=[watch],
    )
    loader = DataLoader([scenes.batch()] * steps, batch_size=None)  # type: ignore[arg-type]
    trainer.fit(scenes.module(cell, size, tape), loader)
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else float("nan")
    return Result(cell, watch.rows, statistics.median(watch.seconds[WARM_UP:]), peak)


def _strategy(name: str) -> Any:
    if name in ("one", "ddp"):
        return "auto" if name == "one" else name
    return Zero(int(name[4]), offload=name.endswith("offload"), persistence_threshold=0)


def work_off(cells: list[Cell], size: Size, steps: int, folder: Path) -> None:
    """A rank's life: runs cells one after the other, each result a line of `results.jsonl`.

    An error ends the rank, since the others may wait for it: whoever started the group starts it again without the
    cell. The captions that one process sampled are kept in `folder` for all groups.
    """
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=60))
    scenes = Scenes(size.batch, folder)
    for cell in cells:
        path = folder / f"{cell.objective}-{cell.precision}.tape"
        tape = torch.load(path, weights_only=False) if path.exists() else {}
        try:
            result = run_cell(cell, scenes, size, steps, tape)
        except Exception as error:
            result = Result(cell, error=f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        if cell.strategy == "one" and tape and not path.exists():
            torch.save(tape, path)
        if rank() == 0 or result.error:
            with (folder / "results.jsonl").open("a") as file:
                file.write(result.as_json() + "\n")
        if result.error:
            os._exit(1)
