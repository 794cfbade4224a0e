"""Chat vision-language models of transformers: their parts, and what each of them makes of a square picture.

B images, N image tokens, W width of the language model, E width of a picture's features (W, or several times that), S
side of a picture in pixels, P side of a patch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.models.pretrained import AFTER_HEAD

Numbers = tuple[float, float, float]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class ChatFamily:
    """How a kind of chat model reads a picture of S x S pixels. `inner` is the model without its head.

    Args:
        example: A published model of the family.
        features: Of pixels normalised for the model: what stands in the place of a picture's tokens.
        num_tokens: N, from the config and S.
        side: The one side that pictures have, from the config; None where any multiple of `multiple` does.
        multiple: Of which S is a multiple.
        vision: Name of the image tower within `inner`.
        projector: Beginnings of the names of what maps the tower's output to the language model, within `inner`.
        language: Name of the language model within `inner`.
        tokens: Special tokens that the processor writes; the first is what the chat template writes for a picture.
        around: What the processor writes around a picture's tokens.
        mean, std: That pixels are normalised by, where no processor says.
        on_a_grid: Whether an image token has a position for its row and one for its column (M-RoPE).
        reads_both_ways: Whether picture and prompt attend to all of each other (a prefix language model).
        adds_special_tokens: Whether the processor lets the tokenizer add its own (BOS) around what the template writes.
        first_position: Of a sequence's first token.
    """

    example: str
    features: Callable[[Any, Tensor], Tensor]
    num_tokens: Callable[[Any, int], int]
    side: Callable[[Any], int | None]
    multiple: Callable[[Any], int]
    vision: str = "vision_tower"
    projector: tuple[str, ...] = ("multi_modal_projector",)
    language: str = "language_model"
    tokens: tuple[str, ...] = ("<image>",)
    around: tuple[str, str] = ("", "")
    mean: Numbers = HALF
    std: Numbers = HALF
    on_a_grid: bool = False
    reads_both_ways: bool = False
    adds_special_tokens: bool = True
    first_position: int = 0

    def part_of(self, name: str) -> str:
        """The part, of PARTS, that a parameter of `inner` belongs to, by its name."""
        if name.startswith(self.projector):
            return "projector"
        return "vision" if name.startswith(f"{self.vision}.") else "language"


PARTS = ("vision", "projector", "language")


def _number(value: Any) -> int:
    """The first of a list; InternVL's configs have two sides, which are equal."""
    return int(value[0] if isinstance(value, list | tuple) else value)


def _patches(config: Any, side: int) -> int:
    return (side // _number(config.vision_config.patch_size)) ** 2


def _vision_side(config: Any) -> int:
    return _number(config.vision_config.image_size)


def _patch_side(config: Any) -> int:
    return _number(config.vision_config.patch_size)


def cut_patches(
    pixels: Float[Tensor, "B 3 S S"], patch: int, merge: int, frames: int
) -> Float[Tensor, "patches values"]:
    """The patches of Qwen-VL's image processor: those of a square of `merge` x `merge` follow each other.

    A picture is repeated to `frames` frames, of which a patch of a video has as many.
    """
    rows = pixels.shape[-1] // (patch * merge)
    cut = pixels.reshape(len(pixels), 3, rows, merge, patch, rows, merge, patch)
    cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6).expand(*[-1] * 6, frames, -1, -1)
    return cut.reshape(-1, 3 * frames * patch * patch)


def _qwen_features(inner: Any, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N E"]:
    """Qwen3-VL's features for its first layers (DeepStack) stand behind those that all of them have, along E."""
    vision = inner.config.vision_config
    side = pixels.shape[-1] // vision.patch_size
    grid = torch.tensor([[1, side, side]] * len(pixels), device=pixels.device)
    patches = cut_patches(pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
    found = inner.visual(patches, grid_thw=grid)
    features = torch.cat([found.pooler_output, *(getattr(found, "deepstack_features", None) or ())], -1)
    return features.unflatten(0, (len(pixels), -1))


def _qwen_multiple(config: Any) -> int:
    return int(config.vision_config.patch_size * config.vision_config.spatial_merge_size)


def _pooled_features(inner: Any, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N E"]:
    found = inner.get_image_features(pixel_values=pixels).pooler_output
    return torch.stack(list(found))


def _llava_tokens(config: Any, side: int) -> int:
    """CLIP's class token is one more, and "default" takes the first away."""
    has_class = config.vision_config.model_type == "clip_vision_model"
    return _patches(config, side) + has_class - (config.vision_feature_select_strategy == "default")


def _llava_side(config: Any) -> int:
    known = ("clip_vision_model", "siglip_vision_model")
    if config.vision_config.model_type not in known:
        raise UsageError(
            f"model=chat_vlm: expected LLaVA with a vision tower of {' or '.join(known)}, got "
            f"{config.vision_config.model_type}; take a model such as llava-hf/llava-1.5-7b-hf"
        )
    return _vision_side(config)


def _whole_and_tile(inner: Any, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N E"]:
    """LLaVA-OneVision reads a square picture of its tower's size twice: whole, and as a tile with ends of rows."""
    sizes = torch.tensor([list(pixels.shape[-2:])] * len(pixels))
    found = inner.get_image_features(pixel_values=pixels[:, None].expand(-1, 2, -1, -1, -1), image_sizes=sizes)
    return torch.stack(list(found.pooler_output))


def _idefics_features(inner: Any, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N E"]:
    """Not by `get_image_features`, which takes a picture whose pixels are all 0, an even grey, for none."""
    side = pixels.shape[-1] // inner.config.vision_config.patch_size
    everywhere = torch.ones((len(pixels), side, side), dtype=torch.bool, device=pixels.device)
    found = inner.vision_model(pixel_values=pixels, patch_attention_mask=everywhere)
    return inner.connector(found.last_hidden_state)


def _tile_tokens(config: Any, side: int) -> int:
    length = side // config.vision_config.patch_size
    return length * length + length * (length + 1)


def _qwen(example: str, mean: Numbers = CLIP_MEAN, std: Numbers = CLIP_STD) -> ChatFamily:
    return ChatFamily(
        example=example,
        features=_qwen_features,
        num_tokens=lambda config, side: (side // _qwen_multiple(config)) ** 2,
        side=lambda config: None,
        multiple=_qwen_multiple,
        vision="visual",
        projector=("visual.merger.", "visual.deepstack_merger_list."),
        tokens=("<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"),
        mean=mean,
        std=std,
        on_a_grid=True,
    )


def _idefics(example: str) -> ChatFamily:
    return ChatFamily(
        example=example,
        features=_idefics_features,
        num_tokens=lambda config, side: _patches(config, side) // config.scale_factor**2,
        side=_vision_side,
        multiple=_patch_side,
        vision="vision_model",
        projector=("connector.",),
        language="text_model",
        tokens=("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
        around=("<fake_token_around_image><global-img>", "<fake_token_around_image>"),
    )


FAMILIES = {
    "qwen2_vl": _qwen("Qwen/Qwen2-VL-2B-Instruct"),
    "qwen2_5_vl": _qwen("Qwen/Qwen2.5-VL-3B-Instruct"),
    "qwen3_vl": _qwen("Qwen/Qwen3-VL-2B-Instruct", HALF, HALF),
    "smolvlm": _idefics("HuggingFaceTB/SmolVLM2-500M-Video-Instruct"),
    "idefics3": _idefics("HuggingFaceTB/SmolVLM-256M-Instruct"),
    "llava": ChatFamily(
        example="llava-hf/llava-1.5-7b-hf",
        features=_pooled_features,
        num_tokens=_llava_tokens,
        side=_llava_side,
        multiple=_patch_side,
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    "llava_onevision": ChatFamily(
        example="llava-hf/llava-onevision-qwen2-7b-ov-hf",
        features=_whole_and_tile,
        num_tokens=_tile_tokens,
        side=_vision_side,
        multiple=_patch_side,
        projector=("multi_modal_projector.", "image_newline"),
        tokens=("<image>", "<video>"),
    ),
    "paligemma": ChatFamily(
        example="google/paligemma-3b-mix-224",
        features=_pooled_features,
        num_tokens=_patches,
        side=_vision_side,
        multiple=_patch_side,
        reads_both_ways=True,
        adds_special_tokens=False,
        first_position=1,
    ),
    "internvl": ChatFamily(
        example="OpenGVLab/InternVL3-1B-hf",
        features=_pooled_features,
        num_tokens=lambda config, side: int(_patches(config, side) * config.downsample_ratio**2),
        side=_vision_side,
        multiple=_patch_side,
        tokens=("<IMG_CONTEXT>", "<img>", "</img>", "<video>"),
        around=("<img>", "</img>"),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    ),
}


def family_of(config: Any) -> ChatFamily:
    """How a chat model of this config reads pictures. Raises UsageError for a type that is none of the table."""
    if config.model_type not in FAMILIES:
        raise UsageError(
            f"model=chat_vlm: expected a model_type of {', '.join(FAMILIES)}; got {config.model_type}; BLIP, BLIP-2, "
            "GIT and VisionEncoderDecoder are model=blip, blip2, git and vision_encoder_decoder"
        )
    return FAMILIES[config.model_type]


def picture_side(config: Any, wanted: int | None) -> int:
    """S: the side that the family's pictures have, or the wanted one. Raises UsageError where it is none of these."""
    family = family_of(config)
    side, multiple = family.side(config), family.multiple(config)
    if side is not None and wanted not in (None, side):
        raise UsageError(
            f"model.image_size={wanted}: expected {side}, the side that this {config.model_type} is built for; give "
            f"model.image_size={side}"
        )
    found = side or wanted or multiple * math.ceil(448 / multiple)
    if found % multiple:
        raise UsageError(
            f"model.image_size={found}: expected a multiple of {multiple}, the pixels of an image token's side in "
            f"{config.model_type}; give model.image_size={max(1, round(found / multiple)) * multiple}"
        )
    return found


def check_logits(config: Any) -> None:
    """Raises UsageError for a language model that changes its logits behind the head, which captioners do not."""
    text = config.get_text_config()
    changed = [name for name in AFTER_HEAD if getattr(text, name, None) not in (None, 1.0)]
    if changed:
        raise UsageError(
            f"model=chat_vlm: expected logits that are those of the head, got {config.model_type} whose text config "
            f"sets {changed[0]} (PaliGemma 2 does); take google/paligemma-3b-mix-224, or another family"
        )
