"""Section step: a whole step of reinforcement learning, from pictures to new weights, against a loop over transformers.

Self-critical: sampled captions and a greedy one of each picture, CLIPScore (ViT-B/32) and CIDEr-D, one update. Self-
retrieval: one sampled caption of each picture for a ClipCap, and the log-softmax over the batch's pictures. Everything
that turns tokens into texts, texts into tokens and words into scores is in it. Random weights write common words.

The other side is what a user would write: `generate` twice, `batch_decode`, CLIP's text tower over all captions,
CIDEr-D as pycocoevalcap has it, and a forward pass with each picture repeated. Both know the judge's
embeddings of pictures.
"""

import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionModel,
    GPT2LMHeadModel,
    VisionEncoderDecoderModel,
)

from benchmarks.speed import vocabulary
from benchmarks.speed.data import picture
from benchmarks.speed.measure import Side, in_turn
from benchmarks.speed.plain_cider import PlainCiderD
from benchmarks.speed.rollout import FULL, PREFIX, TINY, Size
from capkit.data.datamodule import CaptionDataModule
from capkit.data.jpeg import read_picture
from capkit.data.records import Caption, Record
from capkit.data.transforms import ImageTransform
from capkit.decoding.config import Decoding
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.dual_encoders.hf_frozen import HFDualEncoder
from capkit.models.encoders.image import HFImageEncoder
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.scorers.cider import CiderD
from capkit.scorers.clip_score import ClipScore
from capkit.scorers.reward import Reward, RewardTerm
from capkit.scorers.self_retrieval import SelfRetrieval
from capkit.train.callbacks.guard import SkipBadSteps
from capkit.train.callbacks.recorder import Recorder
from capkit.train.rl.module import RLModule
from capkit.types import CaptionBatch

NUM_NEW = 64  # batches of new pictures that a run may take
NUM_DOCUMENTS = 5_000  # images of which CIDEr's document frequencies are counted


@dataclass(frozen=True)
class Row:
    """`self_retrieval`: its reward and no greedy caption; else CLIPScore and CIDEr-D against the greedy caption."""

    model: str
    images: int
    samples: int
    self_retrieval: bool = False
    new_pictures: bool = False  # that the judge has not seen, 640 x 480 JPEG, beside those it has
    length: int = 20

    @property
    def name(self) -> str:
        kind = "self-retrieval" if self.self_retrieval else "self-critical"
        pictures = ", new pictures" if self.new_pictures else ""
        return f"{kind} {self.model} {self.images} x {self.samples} x {self.length}{pictures}"


ROWS = [
    Row("encoder_decoder", 64, 5),
    Row("encoder_decoder", 64, 5, new_pictures=True),
    Row("clip_prefix", 100, 1, self_retrieval=True),
]


@dataclass(frozen=True)
class Judge:
    """CLIP ViT-B/32 in size, with random weights. Both sides share the network."""

    encoder: HFDualEncoder

    @classmethod
    def of(cls, size: Size, device: str) -> "Judge":
        torch.manual_seed(1)
        tokenizer = vocabulary.judge_tokenizer_of(size.vocabulary)
        text = {
            "hidden_size": 2 * size.width // 3 // 16 * 16, "num_hidden_layers": size.layers, "num_attention_heads": 8,
            "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id, "max_position_embeddings": 77,
        }  # fmt: skip
        text["intermediate_size"] = 4 * text["hidden_size"]
        vision = {**size.vision, "patch_size": 2 * size.patch}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=text["hidden_size"])
        with torch.device(device):
            network = CLIPModel(config)
        side = {"height": size.image, "width": size.image}
        reader = CLIPImageProcessor(size={"shortest_edge": size.image}, crop_size=side)
        return cls(HFDualEncoder(network, tokenizer, reader).to(device))


def pictures_of(row: Row, size: Size) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {str(i): draw.integers(0, 256, (size.image, size.image, 3), np.uint8) for i in range(row.images)}


def captioner_of(row: Row, size: Size) -> Any:
    torch.manual_seed(0)
    tokenizer = vocabulary.tokenizer_of(size.vocabulary)
    if row.model == "encoder_decoder":
        vision = HFImageEncoder(config={"model_type": "vit", **size.vision})
        model: Any = EncoderDecoder(tokenizer, vision, width=size.width, num_layers=size.layers, num_heads=size.heads)
        norm, embedding = model.decoder.norm, model.decoder.embedding.weight
    else:
        clip = {"model_type": "clip_vision_model", **size.vision, "patch_size": 2 * size.patch}
        encoder = HFImageEncoder(config=clip, output="pooled", frozen=True)
        model = ClipPrefix(size.gpt2, tokenizer, encoder, prefix_length=PREFIX)
        norm, embedding = model.lm.base_model.ln_f, model.lm.get_input_embeddings().weight
    vocabulary.favour_common_words(tokenizer, size.vocabulary, norm, embedding)
    return model


def module_of(row: Row, size: Size, judge: Judge, device: str, captioner: Any = None) -> tuple[RLModule, CaptionBatch]:
    """capkit's module, of `captioner` or the row's own, with its reward prepared; and a batch."""
    pictures = pictures_of(row, size)
    references = vocabulary.references_of(size.vocabulary, row.images)
    if row.self_retrieval:
        reward = Reward({"self_retrieval": RewardTerm(SelfRetrieval(judge.encoder))})
    else:
        cider = CiderD()
        reward = Reward({"clip_score": RewardTerm(ClipScore(judge.encoder)), "cider": RewardTerm(cider)})
    corpus = vocabulary.references_of(size.vocabulary, min(NUM_DOCUMENTS, 100 * row.images))
    reward.prepare(pictures.get, lambda: corpus, device)
    decoding = Decoding("sample", max_length=row.length)
    objective = SelfCritical(decoding, row.samples, baseline="none" if row.self_retrieval else "greedy")
    with torch.device(device):
        model = captioner or captioner_of(row, size)
    module = RLModule(model, objective, reward, AdamW(lr=1e-9), Constant(), Decoding())
    pixels = torch.randn(row.images, 3, size.image, size.image)
    batch = CaptionBatch(list(pictures), pixels=pixels, references=references, metadata=[{} for _ in pictures])
    return module, batch.to(device)


class Within(Callback):
    """Calls `measure` with one step as a function, once training has begun; then training ends."""

    def __init__(self, batch: CaptionBatch, measure: Callable[[Callable[[], Any]], None]) -> None:
        self.batch, self.measure = batch, measure

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]

        def step(batch: CaptionBatch = self.batch) -> Any:
            outputs: Any = trainer.strategy.training_step(batch, 0)
            for callback in others:
                callback.on_train_batch_end(trainer, pl_module, outputs, batch, 0)

        self.measure(step)
        trainer.should_stop = True


def in_training(
    module: pl.LightningModule, batch: CaptionBatch, device: str, measure: Callable[[Callable[[], Any]], None]
) -> None:
    """Calls `measure` with one of capkit's steps, as Lightning runs it in mixed precision."""
    trainer = pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu", devices=1, precision="bf16-mixed", max_steps=10**6,
        callbacks=[SkipBadSteps(), Recorder(), Within(batch, measure)], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, [batch])


def plain_loop(row: Row, size: Size, judge: Judge, device: str) -> Callable[[], Any]:
    """One step as a user writes it with transformers."""
    torch.manual_seed(0)
    tokenizer = vocabulary.tokenizer_of(size.vocabulary)
    parts, inputs_of = (_encoder_decoder if row.model == "encoder_decoder" else _clip_cap)(row, size, tokenizer, device)
    model: Any = parts[0]
    weights = [weight for part in parts for weight in part.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-9)
    references = vocabulary.references_of(size.vocabulary, row.images)
    cider = PlainCiderD(vocabulary.references_of(size.vocabulary, min(NUM_DOCUMENTS, 100 * row.images)))
    network, reader = judge.encoder.model, judge.encoder.tokenizer
    with torch.no_grad():
        shown = judge.encoder.preprocess(list(pictures_of(row, size).values()))
        pictures = judge.encoder.encode_image(shown)
    settings: dict[str, Any] = {
        "max_new_tokens": row.length, "pad_token_id": tokenizer.pad_token_id, "top_k": 0,
        "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
    }  # fmt: skip

    def rewards_of(texts: list[str], per_image: int) -> Tensor:
        encoded = reader(texts, padding=True, truncation=True, max_length=77, return_tensors="pt").to(device)
        features = network.get_text_features(**encoded)
        features = features if isinstance(features, Tensor) else features.pooler_output
        features = nn.functional.normalize(features.float(), dim=-1)
        if row.self_retrieval:
            logits = 100 * features @ pictures.T
            own = torch.arange(row.images, device=device).repeat_interleave(per_image)
            return logits.log_softmax(-1).gather(1, own[:, None])[:, 0]
        clip = 2.5 * (features * pictures.repeat_interleave(per_image, 0)).sum(-1).clamp(min=0)
        scores = [cider.score(text, references[number // per_image]) for number, text in enumerate(texts)]
        return clip + torch.tensor(scores, device=device)

    def step() -> Any:
        with torch.autocast(device, torch.bfloat16):
            with torch.no_grad():
                model.eval()
                given = inputs_of(1)
                written = model.generate(**given, do_sample=True, num_return_sequences=row.samples, **settings)
                rewards = rewards_of(tokenizer.batch_decode(written, skip_special_tokens=True), row.samples)
                baseline: Any = 0.0
                if not row.self_retrieval:
                    best = model.generate(**given, do_sample=False, **settings)
                    baseline = rewards_of(tokenizer.batch_decode(best, skip_special_tokens=True), 1)
                    baseline = baseline.repeat_interleave(row.samples)
            model.train()
            new = written[:, -row.length :]
            logits = model(**inputs_of(row.samples, new)).logits[:, -row.length - 1 : -1]
            logprobs = logits.float().log_softmax(-1).gather(-1, new[..., None])[..., 0]
            mask = new != tokenizer.pad_token_id
            loss = -((rewards - baseline)[:, None] * logprobs * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        return loss.item()

    return step


Inputs = Callable[..., dict[str, Any]]


def _encoder_decoder(row: Row, size: Size, tokenizer: Any, device: str) -> tuple[list[Any], Inputs]:
    decoder = AutoConfig.for_model(**size.gpt2, is_decoder=True, add_cross_attention=True)
    vision = AutoConfig.for_model("vit", **size.vision)
    config = AutoConfig.for_model("vision-encoder-decoder", encoder=vision.to_dict(), decoder=decoder.to_dict())
    config.decoder_start_token_id = tokenizer.bos_token_id
    with torch.device(device):
        model: Any = VisionEncoderDecoderModel(config)
    model.generation_config.decoder_start_token_id = tokenizer.bos_token_id
    language = model.decoder.transformer
    vocabulary.favour_common_words(tokenizer, size.vocabulary, language.ln_f, language.wte.weight)
    pixels = torch.randn(row.images, 3, size.image, size.image, device=device)

    def inputs_of(repeats: int, new: Tensor | None = None) -> dict[str, Any]:
        given = {"pixel_values": pixels.repeat_interleave(repeats, 0) if new is not None else pixels}
        if new is not None:
            start = torch.full((len(new), 1), tokenizer.bos_token_id, device=device)
            given["decoder_input_ids"] = torch.cat([start, new, start], 1)[:, : row.length + 1]
        return given

    return [model], inputs_of


def _clip_cap(row: Row, size: Size, tokenizer: Any, device: str) -> tuple[list[Any], Inputs]:
    clip = AutoConfig.for_model("clip_vision_model", **{**size.vision, "patch_size": 2 * size.patch})
    with torch.device(device):
        model: Any = GPT2LMHeadModel(AutoConfig.for_model(**size.gpt2))
        encoder = CLIPVisionModel(clip).eval().requires_grad_(False)
    language = model.transformer
    vocabulary.favour_common_words(tokenizer, size.vocabulary, language.ln_f, language.wte.weight)
    mapper = nn.Sequential(
        nn.Linear(size.width, PREFIX * size.width // 2), nn.Tanh(),
        nn.Linear(PREFIX * size.width // 2, PREFIX * size.width),
    ).to(device)  # fmt: skip
    pixels = torch.randn(row.images, 3, size.image, size.image, device=device)

    def inputs_of(repeats: int, new: Tensor | None = None) -> dict[str, Any]:
        prefix = mapper(encoder(pixel_values=pixels).pooler_output).unflatten(-1, (PREFIX, -1))
        embed = model.get_input_embeddings()
        start = torch.full((row.images, 1), tokenizer.bos_token_id, device=device)
        given = torch.cat([prefix.to(embed.weight.dtype), embed(start)], 1)
        if new is not None:
            given = torch.cat([given.repeat_interleave(repeats, 0), embed(new)], 1)
        return {"inputs_embeds": given}

    return [model, mapper], inputs_of


class Jpegs:
    """As many records as there are steps to take, of few files: each key is a picture that nobody has seen."""

    def __init__(self, folder: Path, references: list[list[str]], tiny: bool) -> None:
        self.references, self.paths, self.prefix = references, [], "new"
        for number in range(len(references)):
            self.paths.append(folder / f"{number}.jpg")
            self.paths[-1].write_bytes(picture(number, *((48, 64) if tiny else (480, 640))))

    def __len__(self) -> int:
        return NUM_NEW * len(self.paths)

    def record(self, index: int) -> Record:
        captions = self.references[index % len(self.paths)]
        return Record(f"{self.prefix}-{index}", None, [Caption(text) for text in captions])

    def image(self, index: int) -> np.ndarray:
        return read_picture(self.paths[index % len(self.paths)].read_bytes()).rgb


def new_batches(
    source: Jpegs, module: RLModule, size: Size, device: str, with_viewers: bool
) -> Generator[CaptionBatch, None, None]:
    """Batches of pictures that the reward has not seen, with `with_viewers` read for it by the loader's workers."""
    workers = min(16, len(os.sched_getaffinity(0))) if device == "cuda" else 0
    transform = ImageTransform(size.image)
    data = CaptionDataModule(source, transform=transform, batch_size=len(source.paths), num_workers=workers)
    if with_viewers:
        data.show_to(module.reward.viewers())
    for batch in data.train_dataloader():
        yield batch.to(device, non_blocking=True)


def measure_new(row: Row, size: Size, judge: Judge, tiny: bool, device: str, rounds: int) -> list[Side]:
    """Steps with pictures that were seen, with new ones that come with the batch, and with new ones that do not."""
    module, seen = module_of(row, size, judge, device)
    found: list[Side] = []
    with tempfile.TemporaryDirectory() as folder:
        references = vocabulary.references_of(size.vocabulary, row.images)
        sources = [Jpegs(Path(folder), references, tiny) for _ in range(2)]
        sources[1].prefix = "other"
        module.reward.prepare(partial(_read, sources, pictures_of(row, size)), lambda: references, device)
        with (
            closing(new_batches(sources[0], module, size, device, with_viewers=True)) as coming,
            closing(new_batches(sources[1], module, size, device, with_viewers=False)) as late,
        ):

            def compare(step: Callable[..., Any]) -> None:
                sides = {
                    "capkit": step,
                    "capkit, new pictures": lambda: step(next(coming)),
                    "capkit, new pictures read in the step": lambda: step(next(late)),
                }
                found.extend(in_turn(sides, rounds, device))

            in_training(module, seen, device, compare)
    return found


def _read(sources: list[Jpegs], seen: dict[str, np.ndarray], key: str) -> np.ndarray | None:
    if key in seen:
        return seen[key]
    prefix, _, index = key.partition("-")
    return next(source for source in sources if source.prefix == prefix).image(int(index))


def rows(tiny: bool) -> list[Row]:
    return [replace(row, images=3, length=4) for row in ROWS] if tiny else ROWS


def measure(row: Row, tiny: bool, device: str, rounds: int, with_static: bool) -> list[Side]:
    size = TINY if tiny else FULL
    judge = Judge.of(size, device)
    if row.new_pictures:
        return measure_new(row, size, judge, tiny, device, rounds)
    module, batch = module_of(row, size, judge, device)
    found: list[Side] = []

    def compare(step: Callable[[], Any]) -> None:
        loop = plain_loop(row, size, judge, device)
        found.extend(in_turn({"capkit": step, "transformers": loop}, rounds, device))

    in_training(module, batch, device, compare)
    return found
