"""Processors of chat models: read beside published weights, made for random ones, set to one square picture."""

import copy
from typing import Any

from transformers import (
    AutoProcessor,
    CLIPImageProcessor,
    GotOcr2ImageProcessor,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    PaliGemmaProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    SiglipImageProcessor,
)

from capkit.errors import UsageError
from capkit.models.captioners.chat_families import FAMILIES, family_of
from capkit.text.tokenizers import hub_reachable
from capkit.upstream.transformers import name_special_tokens


def load_processor(name: str) -> Any:
    """The processor of a hub name or folder. Raises UsageError where there is none, or it needs another package."""
    try:
        processor = AutoProcessor.from_pretrained(name, local_files_only=not hub_reachable())
    except ImportError as error:
        raise UsageError(
            f"model.name={name}: its processor needs a package that is not installed: "
            f"{str(error).strip().splitlines()[0]}; pip install num2words is what SmolVLM2's needs"
        ) from error
    except (OSError, ValueError) as error:
        raise _without(name, str(error).splitlines()[0]) from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise _without(name, f"a {type(processor).__name__} alone")
    return processor


def _without(name: str, found: str) -> UsageError:
    return UsageError(
        f"model.name={name}: expected a processor beside the weights (preprocessor_config.json and tokenizer), got "
        f"{found}; save it there by AutoProcessor.from_pretrained(ORIGINAL).save_pretrained({name!r})"
    )


def new_processor(config: Any, tokenizer: Any, side: int) -> Any:
    """The processor of a model that was built from a config, for pictures of `side` x `side` pixels."""
    family, kind, vision = family_of(config), config.model_type, config.vision_config
    stated: dict[str, Any] = {"image_mean": list(family.mean), "image_std": list(family.std)}
    square = {"height": side, "width": side}
    template = {"chat_template": tokenizer.chat_template}
    num_tokens = family.num_tokens(config, side)
    if family.on_a_grid:
        sizes = {"patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size}
        images: Any = Qwen2VLImageProcessor(temporal_patch_size=vision.temporal_patch_size, **sizes, **stated)
        return squared(Qwen2VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(**sizes), **template), side)
    if kind in ("smolvlm", "idefics3"):
        return squared(
            Idefics3Processor(Idefics3ImageProcessor(**stated), tokenizer, image_seq_len=num_tokens, **template), side
        )
    if kind == "llava":
        strategy = config.vision_feature_select_strategy
        images = CLIPImageProcessor(size=square, do_center_crop=False, **stated)
        has_class = vision.model_type == "clip_vision_model"
        return LlavaProcessor(
            images, tokenizer, patch_size=vision.patch_size, vision_feature_select_strategy=strategy,
            num_additional_image_tokens=int(has_class), **template,
        )  # fmt: skip
    if kind == "llava_onevision":
        images = LlavaOnevisionImageProcessor(size=square, **stated)
        tiles = (side // vision.patch_size) ** 2
        strategy = config.vision_feature_select_strategy
        processor = LlavaOnevisionProcessor(
            images, tokenizer, LlavaOnevisionVideoProcessor(size=square), num_image_tokens=tiles,
            vision_feature_select_strategy=strategy, **template,
        )  # fmt: skip
        return squared(processor, side)
    if kind == "paligemma":
        images = SiglipImageProcessor(size=square, **stated)
        images.image_seq_length = num_tokens
        whole: Any = PaliGemmaProcessor(images, copy.deepcopy(tokenizer), **template)
        whole.tokenizer = tokenizer  # without the tokens of places, which the class adds to any that it is given
        return whole
    images = GotOcr2ImageProcessor(size=square, **stated)
    _name_tokens(tokenizer)
    videos = InternVLVideoProcessor(size=square)
    return squared(InternVLProcessor(images, tokenizer, videos, image_seq_length=num_tokens, **template), side)


def with_tokenizer(processor: Any, tokenizer: Any) -> Any:
    """The processor, made in place to use this tokenizer and its chat template."""
    if type(processor) is InternVLProcessor:
        _name_tokens(tokenizer)
    processor.tokenizer, processor.chat_template = tokenizer, tokenizer.chat_template
    return processor


def _name_tokens(tokenizer: Any) -> None:
    """Give the tokenizer the names by which InternVL's processor asks for its special tokens."""
    names = ("context_image_token", "start_image_token", "end_image_token", "video_token")
    name_special_tokens(tokenizer, dict(zip(names, FAMILIES["internvl"].tokens, strict=True)))


def squared(processor: Any, side: int) -> Any:
    """The processor, set in place to make of a square picture what the captioner reads: one square of `side` pixels."""
    images, name = processor.image_processor, type(processor.image_processor).__name__
    if name.startswith(("Qwen2VL", "Qwen3VL")):
        images.size = {"shortest_edge": side * side, "longest_edge": side * side}
    elif name.startswith(("Idefics3", "SmolVLM")):
        images.do_image_splitting = False
        images.size = images.max_image_size = {"longest_edge": side}
    elif name.startswith("LlavaOnevision"):
        images.image_grid_pinpoints = [[side, side]]
    elif name.startswith("GotOcr2"):
        images.max_patches = 1
    return processor
