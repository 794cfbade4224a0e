"""Rules about combinations of values that cannot work. Each is a function that returns a message or None.

To add one, write a function of `Settings` and add it to RULES. It must not import torch.
"""

import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from capkit.config.compared_runs import problem_with_runs
from capkit.config.extras import needs
from capkit.config.machine import has_no_gpu
from capkit.config.settings import Settings, default_of, num_ranks
from capkit.config.trainer_rules import trainer_holds_no_length, trainer_holds_nothing_of_the_tasks
from capkit.decoding.config import Decoding
from capkit.decoding.guide import Guide, LanguageModelGuide
from capkit.errors import UsageError

# Vision models of transformers with position embeddings for one image size.
_ONE_SIZE = frozenset({"blip_vision_model", "clip_vision_model", "deit", "siglip_vision_model", "vit"})
_ONE_SIZE_CLASSES = frozenset({"capkit.models.captioners.chat_vlm.ChatVLM", "capkit.models.encoders.image.SmallCNN"})


def length_is_given_once(settings: Settings) -> str | None:
    steps, epochs = settings.get("max_steps"), settings.get("max_epochs")
    if not settings.trains or (steps is None) != (epochs is None):
        return None
    if steps is None:
        return "expected max_steps or max_epochs, got null for both; give one, e.g. max_epochs=10"
    return (
        f"expected one of max_steps and max_epochs, got max_steps={steps} and max_epochs={epochs}; "
        f"add max_steps=null or max_epochs=null"
    )


def monitors_are_numbers_of_validations(settings: Settings) -> str | None:
    """A wrong name behind val/ is told at the first validation, which knows all names."""
    for name in ("checkpoints", "early_stopping"):
        monitor = settings.get(f"callback.{name}.monitor")
        if settings.trains and isinstance(monitor, str) and "/" not in monitor:
            return (
                f"callback.{name}.monitor={monitor}: expected a number of validations, val/NAME, got one without val/; "
                f"give callback.{name}.monitor=val/{monitor}"
            )
    return None


def devices_are_counted(settings: Settings) -> str | None:
    devices = settings.get("trainer.devices")
    if isinstance(devices, list):
        is_sound = bool(devices) and len(set(devices)) == len(devices)
    else:
        is_sound = (
            devices is None or isinstance(devices, int) or bool(re.fullmatch(r"auto|-1|\d+(,\d+)*", str(devices)))
        )
    if is_sound:
        return None
    return (
        f"trainer.devices={devices}: expected a number of processes (2), GPUs by number, none twice ([0, 1]), -1 for "
        "all, or auto"
    )


def width_divides_over_heads(settings: Settings) -> str | None:
    width, heads = settings.get("model.width"), settings.get("model.num_heads")
    if not isinstance(width, int) or not isinstance(heads, int) or width % heads == 0:
        return None
    return (
        f"model.width must be a multiple of model.num_heads={heads}, got {width}; "
        f"give model.width={-(-width // heads) * heads}"
    )


def step_is_cut_and_clipped_by_capkit(settings: Settings) -> str | None:
    """Lightning would clip and accumulate a second time: with two limits, and by averaging averages."""
    trainer = settings.config.get("trainer") or {}
    if (norm := trainer.get("gradient_clip_val")) is not None:
        return (
            f"trainer.gradient_clip_val={norm}: gradients are clipped by the optimizer only; "
            f"write optimizer.clip_norm={norm}"
        )
    if (count := trainer.get("accumulate_grad_batches") or 1) != 1:
        return (
            f"trainer.accumulate_grad_batches={count} would average averages; data.batch_size is the batch of a whole "
            "step: give the number of images per forward pass as micro_batch_size"
        )
    return None


def batch_divides_over_ranks(settings: Settings) -> str | None:
    batch, ranks = settings.get("data.batch_size"), num_ranks(settings)
    if not settings.trains or not batch or not ranks or batch % ranks == 0:
        return None
    return (
        f"data.batch_size counts the images of all ranks together; {batch} is not divisible by {ranks} ranks; "
        f"give data.batch_size={max(1, round(batch / ranks)) * ranks}"
    )


def micro_batch_fits_in_batch(settings: Settings) -> str | None:
    batch, micro = settings.get("data.batch_size"), settings.get("micro_batch_size")
    share = batch // (num_ranks(settings) or 1) if batch else None
    if not settings.trains or not micro or not share or micro <= share:
        return None
    return (
        f"micro_batch_size={micro}: expected at most a rank's share of the batch, {share} images; "
        f"give micro_batch_size={share} or less, or a larger data.batch_size"
    )


def resume_or_init(settings: Settings) -> str | None:
    resume, init = settings.get("resume"), settings.get("init_from")
    if init is None or not isinstance(resume, str) or resume == "auto":
        return None
    return (
        f"resume={resume} continues a run with all its state, init_from={init} starts a new one from weights; "
        "give one: add resume=auto, or init_from=null"
    )


def a_reward_is_given(settings: Settings) -> str | None:
    if settings.task != "fit_rl" or any(settings.config.get("reward", {}).values()):
        return None
    return "task=fit_rl: expected a reward, got none; give one or several, e.g. reward=[cider] (docs/rewards.md)"


def a_reward_is_used(settings: Settings) -> str | None:
    given = [name for name, term in settings.config.get("reward", {}).items() if term]
    if not given or not settings.trains or settings.task == "fit_rl":
        return None
    return (
        f"expected no reward for task={settings.task}, which does not use any; got {', '.join(given)}; "
        "write `capkit fit_rl init_from=RUN ...`, or omit the reward"
    )


def rollouts_are_asked_by_fit_rl(settings: Settings) -> str | None:
    if settings.get("rollout") is None or settings.task == "fit_rl":
        return None
    return (
        f"rollout: expected none for task={settings.task}, which samples no captions to learn from; give task=fit_rl, "
        "or rollout=null"
    )


def candidates_are_reranked(settings: Settings) -> str | None:
    number = settings.get("decoding.num_candidates")
    if number is None:
        return None
    if settings.task not in ("evaluate", "caption", "cross"):
        return (
            f"decoding.num_candidates={number}: expected task=evaluate or task=caption, which rerank captions, got "
            f"task={settings.task}; set decoding=greedy"
        )
    if any(settings.config.get("reward", {}).values()):
        return None
    return (
        f"decoding.num_candidates={number} wants a scorer to pick captions by, got none; give for example "
        "reward=[clip_score]"
    )


def a_gpu_is_there(settings: Settings) -> str | None:
    accelerator = settings.get("trainer.accelerator")
    uses_trainer = settings.trains or settings.task in ("evaluate", "frontier", "cross")
    if accelerator not in ("gpu", "cuda") or not uses_trainer or not settings.is_here or not has_no_gpu():
        return None
    return (
        f"trainer.accelerator={accelerator}: expected a GPU, got a machine without one (or CUDA_VISIBLE_DEVICES hides "
        "it); give trainer=cpu, or run the command on a machine with a GPU"
    )


def extras_are_installed(settings: Settings) -> str | None:
    told = [
        f"{wanted_by} needs {' and '.join(need.missing())}, which is not installed; pip install '{need.install}'"
        for wanted_by, need in needs(settings.config, settings.task)
    ]
    return "\n".join(told) or None


def runs_can_be_compared(settings: Settings) -> str | None:
    return problem_with_runs(settings.config) if settings.task == "compare" else None


def decoding_is_sound(settings: Settings) -> str | None:
    node = settings.get("decoding")
    if not isinstance(node, dict) or node.get("_target_") != "capkit.decoding.config.Decoding":
        return None
    try:
        Decoding(**_arguments(node) | {"guide": _guide(node.get("guide"))})
    except UsageError as error:
        return str(error)
    return None


def _arguments(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if not key.startswith("_")}


def _guide(node: Any) -> Guide | LanguageModelGuide | None:
    if not isinstance(node, dict):
        return None
    classes = {f"{cls.__module__}.{cls.__name__}": cls for cls in (Guide, LanguageModelGuide)}
    cls = classes.get(str(node.get("_target_")))
    return None if cls is None else cls(**_arguments(node))


def a_guiding_language_model_is_loaded(settings: Settings) -> str | None:
    name = settings.get("decoding.guide.language_model")
    if name is None or settings.task in ("evaluate", "caption", "cross"):
        return None
    return (
        f"decoding.guide.language_model={name}: expected task=evaluate or task=caption, which load it, got "
        f"task={settings.task}; set decoding=greedy"
    )


def pictures_have_the_models_size(settings: Settings) -> str | None:
    size = settings.get("data.transform.size")
    if not settings.trains or size is None or settings.get("data.features") is not None:
        return None
    for key, built_for in _picture_sizes(settings.config.get("model"), "model"):
        if built_for != size:
            return (
                f"{key}={built_for}, but data.transform.size={size}: expected images of the size that the model is "
                f"built for; omit data.transform.size, or give {key}={size}"
            )
    return None


def _picture_sizes(node: Any, key: str) -> Iterator[tuple[str, int]]:
    """Parts of a model that accept a single image size: the key that sets it, and the size."""
    if not isinstance(node, dict):
        return
    target, model_type = node.get("_target_"), node.get("model_type")
    is_pooled = target == "capkit.models.encoders.modified_resnet.ModifiedResNet" and node.get("output") == "pooled"
    is_fixed = target in _ONE_SIZE_CLASSES or is_pooled or model_type in _ONE_SIZE
    if is_fixed and (size := node.get("image_size", default_of(node, "image_size"))) is not None:
        yield f"{key}.image_size", size
    for name, value in node.items():
        yield from _picture_sizes(value, f"{key}.{name}")


def cached_features_are_not_augmented(settings: Settings) -> str | None:
    if settings.get("data.features") is None or not settings.get("data.transform.augment"):
        return None
    return "cached features cannot be augmented; give data.transform.augment=null or data.features=null"


def attribute_features_are_read(settings: Settings) -> str | None:
    """Those that no model reads would change nothing. A model that comes from a run is asked when it reads them."""
    folder, width = settings.get("data.attribute_features"), settings.get("model.attribute_width")
    if (folder is None) == (width is None) or not settings.trains or settings.get("init_from") is not None:
        return None
    if folder is None:
        return (
            f"model.attribute_width={width}: expected data.attribute_features, a folder of features of this width, got "
            "null; give it, or leave model.attribute_width out"
        )
    return (
        "data.attribute_features: expected model=modular with model.attribute_width, the width of these features, got "
        "null; set it, or leave data.attribute_features out"
    )


def deepspeed_is_installed(settings: Settings) -> str | None:
    if settings.get("trainer.strategy._target_") != "capkit.distributed.zero.Zero" or find_spec("deepspeed"):
        return None
    return (
        "ZeRO needs DeepSpeed, which is not installed; pip install 'deepspeed>=0.19.8,<0.20' (Linux; needs no "
        "compiler), or choose trainer=ddp"
    )


def conditions_come_with_the_data(settings: Settings) -> str | None:
    """A part that never sees a value learns nothing, and a wish for one is not heard."""
    given, learned = (settings.get(f"{part}.conditions") or {} for part in ("data", "model"))
    if settings.task == "fit" and (missing := [name for name in learned if name not in given]):
        return (
            f"model.conditions has {', '.join(missing)}, which data.conditions does not give "
            f"({', '.join(given) or 'it has none'}); give data.conditions.{missing[0]}=KIND (docs/conditions.md)"
        )
    number = settings.get("data.captions_per_image")
    if settings.task == "fit_rl" and given and isinstance(number, int) and number > 1:
        return (
            f"data.captions_per_image={number}: expected 1 for task=fit_rl with data.conditions, since the samples of "
            "an image, which are compared with each other, are written under one value of each; give "
            "data.captions_per_image=1"
        )
    return None


def metrics_read_the_datas_language(settings: Settings) -> str | None:
    languages = settings.get("data.languages")
    if not isinstance(languages, list) or not languages:
        return None
    spoken = {str(language).lower().replace("_", "-").split("-")[0] for language in languages}
    for name in settings.config.get("metric") or {}:
        read = settings.get(f"metric.{name}.language")
        if read is not None and str(read).lower().replace("_", "-").split("-")[0] not in spoken:
            return (
                f"metric.{name}.language={read}, but data.languages=[{', '.join(map(str, languages))}]: expected a "
                f"metric of the captions' language; give metric.language={languages[0]}"
            )
    return None


RULES: tuple[Callable[[Settings], str | None], ...] = (
    length_is_given_once,
    trainer_holds_no_length,
    trainer_holds_nothing_of_the_tasks,
    monitors_are_numbers_of_validations,
    devices_are_counted,
    width_divides_over_heads,
    step_is_cut_and_clipped_by_capkit,
    batch_divides_over_ranks,
    micro_batch_fits_in_batch,
    resume_or_init,
    decoding_is_sound,
    a_guiding_language_model_is_loaded,
    pictures_have_the_models_size,
    cached_features_are_not_augmented,
    attribute_features_are_read,
    metrics_read_the_datas_language,
    deepspeed_is_installed,
    conditions_come_with_the_data,
    rollouts_are_asked_by_fit_rl,
)

# Rules about what a user must provide, besides missing values and files that must exist.
INPUT_RULES: tuple[Callable[[Settings], str | None], ...] = (
    a_reward_is_given,
    a_reward_is_used,
    candidates_are_reranked,
    a_gpu_is_there,
    extras_are_installed,
    runs_can_be_compared,
)
