"""Section rollout: sampled captions of new pictures, image encoder included, against transformers' `generate`.

Random weights, bf16 autocast over float32 weights on both sides. Sampling never meets EOS but by chance, so that every
caption has all its tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, GPT2LMHeadModel, VisionEncoderDecoderModel

from benchmarks.speed.measure import Side, in_turn
from capkit.decoding.config import Decoding
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.captioners.hf_captioner import HFCaptioner
from capkit.models.encoders.image import HFImageEncoder
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch


@dataclass(frozen=True)
class Size:
    """ViT-B/16 or CLIP ViT-B/32 with a GPT-2 of 124 M parameters; or a few layers, to try the program on a CPU."""

    vocabulary: int
    layers: int
    width: int
    heads: int
    image: int
    patch: int

    @property
    def vision(self) -> dict[str, Any]:
        return {
            "hidden_size": self.width, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width, "image_size": self.image, "patch_size": self.patch,
        }  # fmt: skip

    @property
    def gpt2(self) -> dict[str, Any]:
        return {
            "model_type": "gpt2", "vocab_size": self.vocabulary, "n_embd": self.width, "n_layer": self.layers,
            "n_head": self.heads, "bos_token_id": 0, "eos_token_id": 1,
        }  # fmt: skip


FULL, TINY = Size(50_257, 12, 768, 12, 224, 16), Size(300, 2, 32, 2, 32, 16)
PREFIX = 10


@dataclass(frozen=True)
class Row:
    model: str
    images: int
    samples: int
    greedy: bool = False  # the greedy caption too: a second `generate` for transformers, a row more for capkit
    length: int = 20

    @property
    def name(self) -> str:
        return f"{self.model} {self.images} x {self.samples}{' + greedy' if self.greedy else ''} x {self.length}"


ROWS = [
    Row("encoder_decoder", 64, 5),
    Row("encoder_decoder", 64, 5, greedy=True),
    Row("encoder_decoder", 256, 5),
    Row("vision_encoder_decoder", 64, 5),
    Row("clip_prefix", 64, 5),
    Row("clip_prefix", 100, 1),
]


def tokenizer_of(size: Size) -> Any:
    """A vocabulary of the size: words and special tokens."""
    special = len(word_tokenizer(["w0"])) - 1
    return word_tokenizer([" ".join(f"w{number}" for number in range(size.vocabulary - special))])


def capkit_side(row: Row, size: Size, device: str, decoding: Decoding | None = None) -> tuple[Callable[[], Any], Any]:
    """Samples of the row's length, or `decoding`."""
    torch.manual_seed(0)
    tokenizer = tokenizer_of(size)
    model: Any
    if row.model == "encoder_decoder":
        vision = HFImageEncoder(config={"model_type": "vit", **size.vision})
        model = EncoderDecoder(tokenizer, vision, width=size.width, num_layers=size.layers, num_heads=size.heads)
    elif row.model == "vision_encoder_decoder":
        config = {"encoder": {"model_type": "vit", **size.vision}, "decoder": size.gpt2}
        model = HFCaptioner(config={"model_type": "vision-encoder-decoder", **config}, tokenizer=tokenizer)
    else:
        clip = {"model_type": "clip_vision_model", **size.vision, "patch_size": 2 * size.patch}
        model = ClipPrefix(
            size.gpt2, tokenizer, HFImageEncoder(config=clip, output="pooled", frozen=True), prefix_length=PREFIX
        )
    model = model.to(device).eval()
    pixels = torch.randn(row.images, 3, size.image, size.image, device=device)
    batch = CaptionBatch([str(number) for number in range(row.images)], pixels=pixels)
    settings = decoding or Decoding("sample", max_length=row.length)

    @torch.no_grad()
    def work() -> Any:
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            return model.generate(model.encode(batch), settings, row.samples, with_greedy=row.greedy).tokens

    return work, model


def transformers_side(row: Row, size: Size, device: str, static: bool) -> Callable[[], Any]:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"max_new_tokens": row.length, "pad_token_id": 1, "eos_token_id": 1, "bos_token_id": 0}
    if static:
        settings["cache_implementation"] = "static"
    pixels = torch.randn(row.images, 3, size.image, size.image, device=device)
    if row.model != "clip_prefix":
        decoder = AutoConfig.for_model(**size.gpt2, is_decoder=True, add_cross_attention=True)
        vision = AutoConfig.for_model("vit", **size.vision)
        config = AutoConfig.for_model("vision-encoder-decoder", encoder=vision.to_dict(), decoder=decoder.to_dict())
        model: Any = VisionEncoderDecoderModel(config)
        settings["decoder_start_token_id"] = 0

        def inputs() -> dict[str, Any]:
            return {"pixel_values": pixels}

    else:
        model = GPT2LMHeadModel(AutoConfig.for_model(**size.gpt2))
        clip = {"model_type": "clip_vision_model", **size.vision, "patch_size": 2 * size.patch}
        vision_model = HFImageEncoder(config=clip, output="pooled", frozen=True).to(device).eval()
        mapper = torch.nn.Sequential(
            torch.nn.Linear(size.width, PREFIX * size.width // 2), torch.nn.Tanh(),
            torch.nn.Linear(PREFIX * size.width // 2, PREFIX * size.width),
        ).to(device)  # fmt: skip

        def inputs() -> dict[str, Any]:
            prefix = mapper(vision_model(pixels)[:, 0]).unflatten(-1, (PREFIX, -1))
            start = model.get_input_embeddings()(torch.zeros(row.images, 1, dtype=torch.long, device=device))
            return {"inputs_embeds": torch.cat([prefix.to(start.dtype), start], 1)}

    model = model.to(device).eval()

    @torch.no_grad()
    def work() -> Any:
        with torch.autocast(device, torch.bfloat16):
            given = inputs()
            found = model.generate(**given, do_sample=True, num_return_sequences=row.samples, top_k=0, **settings)
            if row.greedy:
                model.generate(**given, do_sample=False, **settings)
            return found

    return work


def rows(tiny: bool) -> list[Row]:
    return [Row(row.model, 2, 2, row.greedy, 4) for row in ROWS[:5]] if tiny else ROWS


def measure(row: Row, tiny: bool, device: str, rounds: int, with_static: bool) -> list[Side]:
    size = TINY if tiny else FULL
    ours, _ = capkit_side(row, size, device)
    sides = {"capkit": ours, "transformers": transformers_side(row, size, device, static=False)}
    if with_static:
        sides["transformers, static cache"] = transformers_side(row, size, device, static=True)
    return in_turn(sides, rounds, device)
