"""The Python API: load what was trained, score captions, train. `capkit.load` and its like are these functions.

The same objects as on the command line, built from the same configs with the same checks.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import lightning.pytorch  # noqa: F401  here, so that what its import does to loggers is not undone by `as_guest`
import numpy as np
import torch

from capkit.config.arguments import parse
from capkit.config.check import compose_checked, problems
from capkit.config.compose import compose_config
from capkit.config.instantiate import build_all
from capkit.config.running import run_composed
from capkit.data.given_pictures import Picture, given_pictures, is_one
from capkit.data.images import BadImage
from capkit.data.picture_folder import picture_reader, unreadable
from capkit.data.prediction_files import CaptionFile, images_to_score, match, one_each, read_captions
from capkit.errors import INTERRUPTED_STATUS, STOPPED_STATUS, RunFailure, UsageError, known_error
from capkit.fault_tolerance.stop_signal import NOTHING_BEGUN
from capkit.loaded import LoadedCaptioner, LoadedEncoder
from capkit.metrics.coco.named import NAMED, USUAL, check_named, score_named
from capkit.metrics.scoring import score_rows
from capkit.model_loading import load_model
from capkit.run.folder import default_run_dir
from capkit.run.lock import release_run_lock
from capkit.scorers.as_metric import ScorerMetric
from capkit.scorers.custom import Custom, ScoreFunction, forget_rewritten
from capkit.utils.console import note_command
from capkit.utils.guest import as_guest
from capkit.utils.tensors import default_device

Captions = Mapping[str, str] | Sequence[str] | str | os.PathLike[str]
References = Mapping[str, Sequence[str]] | Sequence[Sequence[str]] | str | os.PathLike[str]
Pictures = Mapping[str, Picture] | Iterable[Picture] | str | os.PathLike[str]


@overload
def load(
    source: str | os.PathLike[str], kind: Literal["captioner"], *, device: str | torch.device | None = None
) -> LoadedCaptioner: ...
@overload
def load(
    source: str | os.PathLike[str], kind: Literal["encoder"], *, device: str | torch.device | None = None
) -> LoadedEncoder: ...
@overload
def load(source: str | os.PathLike[str], kind: None = None, *, device: str | torch.device | None = None) -> Any: ...
def load(
    source: str | os.PathLike[str],
    kind: Literal["captioner", "encoder"] | None = None,
    *,
    device: str | torch.device | None = None,
) -> Any:
    """A captioner or a dual encoder, ready to use.

    Args:
        source: a run folder (its newest whole checkpoint), a checkpoint, a folder of `capkit export`, or the folder or
            hub name of a captioner or dual encoder of transformers: BLIP, BLIP-2, GIT, VisionEncoderDecoder, the chat
            models of docs/chat_vlm.md; CLIP, SigLIP and their like.
        kind: what is expected, "captioner" or "encoder", also for type checkers; None: either.
        device: None: a GPU where there is one.

    Nothing that a checkpoint names is run. Raises UsageError where there is none, where it is damaged, for another kind
    than the expected one, for a rater, and for a captioner that was trained without pictures.
    """
    if kind not in (None, "captioner", "encoder"):
        raise UsageError(f"kind: expected captioner, encoder or None, got {kind!r}")
    with as_guest():
        loaded = load_model(source, default_device() if device is None else torch.device(device))
    found = "captioner" if isinstance(loaded, LoadedCaptioner) else "encoder"
    if kind not in (None, found):
        raise UsageError(f"kind={kind!r}: expected a model of this kind in {os.fspath(source)}, got: {found}")
    return loaded


def score(
    predictions: Captions,
    references: References | None = None,
    metrics: str | ScoreFunction | Sequence[str | ScoreFunction] = USUAL,
    *,
    images: Pictures | None = None,
    language: str = "en",
    overrides: Sequence[str] = (),
) -> dict[str, float]:
    """The numbers of captions, as `capkit score` gives them.

    Args:
        predictions: one caption of each image: a list, a mapping from the image's name, or a file that `capkit score`
            reads.
        references: of each image a list of captions: in the same order, by the same names, or a file. Not needed by
            metrics that only look at pictures.
        metrics: bleu, rouge, cider, meteor, spice; names of the config group `metric` (`capkit list metric`); and
            functions f(images, texts) that give a number for each text, whose mean is named after the function.
        images: pictures in the predictions' order or by their names, or a folder that holds files of these names.
        language: of the captions.
        overrides: settings of metrics as on the command line: "metric.clip_score.encoder.name=DIR".

    Returns:
        The numbers by name, such as bleu_1 to bleu_4, rouge_l, cider: NaN where none can be computed.

    Raises UsageError where images of both sides differ, and for what a metric needs and does not get.
    """
    chosen = [metrics] if isinstance(metrics, str) or callable(metrics) else list(metrics)
    named = [metric for metric in chosen if isinstance(metric, str) and metric in NAMED]
    parts = [metric for metric in chosen if isinstance(metric, str) and metric not in NAMED]
    own = _functions(chosen, reads=images is not None)
    check_named(named, language, has_others=len(named) < len(chosen))
    predicted = _captions(predictions, "predictions")
    if references is None and named:
        raise UsageError(f"metrics: {', '.join(named)} compare with references, got none; give references")
    told = None if references is None else _captions(references, "references")
    several = predicted.captions if told is None else match(predicted, told)
    order = list(several) if told is None else images_to_score(several, told, "error")
    captions = one_each({image: several[image] for image in order}, "predictions")
    targets = [[] if told is None else told.captions[image] for image in order]
    read = None if images is None else _reader(images, order, predicted, told)
    rows = [
        {"key": key, "caption": captions[key], "references": texts, "metadata": {}}
        for key, texts in zip(order, targets, strict=True)
    ]
    with as_guest():
        built = _metrics(parts, overrides) | own
        numbers, _ = score_named(named, list(captions.values()), targets, language)
        return numbers | score_rows(rows, built, read)


def _captions(given: Any, what: str) -> CaptionFile:
    """Captions by image: of a file, a mapping, or a list, whose images are named 0, 1, 2 ..."""
    if isinstance(given, str | os.PathLike):
        return read_captions(os.fspath(given), what)
    file = CaptionFile(Path(what))
    pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
    is_predicted = what == "predictions"
    for image, texts in pairs:
        several = isinstance(texts, Iterable) and not isinstance(texts, str)
        of_image: list[Any] = list(texts) if several else [texts] if is_predicted else [None]
        if not all(isinstance(text, str) for text in of_image):
            raise UsageError(
                f"{what}: expected {'a text' if is_predicted else 'a list of texts'} for each image, got {texts!r:.80} "
                f"of image {image}; leave it out where there is none"
            )
        file.add(str(image), of_image)
    if not file.captions:
        raise UsageError(f"{what}: expected captions, got none")
    return file


def _functions(chosen: Sequence[Any], reads: bool) -> dict[str, ScorerMetric]:
    """The functions among the metrics, by their names. Raises UsageError where two metrics would share a name."""
    found: dict[str, ScorerMetric] = {}
    for function in chosen:
        if isinstance(function, str):
            continue
        if not callable(function):
            raise UsageError(f"metrics: expected names and functions, got {function!r:.80}")
        scorer = Custom(function, pictures=reads)
        if scorer.name in found or scorer.name in chosen:
            raise UsageError(
                f"metrics: expected different names, after which numbers are called, got two metrics named "
                f"{scorer.name}; define the functions under names of their own"
            )
        found[scorer.name] = ScorerMetric(scorer, scorer.name)
    return found


def _reader(
    images: Pictures, order: Sequence[str], predicted: CaptionFile, told: CaptionFile | None
) -> Callable[[str], np.ndarray]:
    """Reads the picture of an image of `order`, which are the references' names where there are references."""
    if isinstance(images, str | os.PathLike):
        return picture_reader(os.fspath(images), order)
    names = list(predicted.captions)
    if isinstance(images, Mapping):
        pictures: dict[str, Any] = {str(name): picture for name, picture in images.items()}
    elif is_one(images) or len(listed := list(images)) != len(names):
        raise UsageError(f"images: expected one of each of {len(names)} predictions, in their order")
    else:
        pictures = dict(zip(names, listed, strict=True))
    given = dict(zip(pictures, given_pictures(list(pictures.values())), strict=True))
    own = CaptionFile(predicted.path, {name: [name] for name in names}, predicted.names)
    called = own.captions if told is None else match(own, told)  # the prediction's name of each image
    if missing := [called[image][0] for image in order if called[image][0] not in given]:
        raise UsageError(f"images: expected one of each prediction, got none of {', '.join(missing[:5])}")

    def read(image: str) -> np.ndarray:
        name = called[image][0]
        try:
            return given[name].read()
        except BadImage as error:
            raise unreadable(name, error) from error

    return read


def _metrics(names: Sequence[str], overrides: Sequence[str]) -> dict[str, Any]:
    if not names:
        return {}
    composed = compose_config(parse(["score", f"metric=[{','.join(names)}]", *overrides]))
    if found := problems(composed, with_inputs=False):
        raise UsageError("\n".join(found))
    forget_rewritten()
    return build_all(composed.config.metric)


@dataclass(frozen=True)
class TrainedRun:
    """A run that is done: its folder, and its numbers as in metrics.json (`test/cider`, `train/seconds`)."""

    folder: Path
    numbers: dict[str, float]

    def load(self, *, device: str | torch.device | None = None) -> Any:
        """What it trained, as `capkit.load` gives it."""
        return load(self.folder, device=device)


def train(*overrides: str, config_dirs: Sequence[str | os.PathLike[str]] = (), **values: Any) -> TrainedRun:
    """Run what `capkit OVERRIDES KEY=VALUE ...` runs, in this process: train("experiment=NAME", max_steps=20).

    Args:
        overrides: words of the command line, the first may be a task: train("fit_rl", "reward=[cider]", ...).
        config_dirs: folders of your own configs, as `--config-dir`.
        values: top-level keys: None is null; other values as they are written on the command line.

    Several processes are started, and lines printed, as on the command line. Afterwards the process is as before
    (`capkit/utils/guest.py`), and the run folder's lock is given back.

    Raises UsageError for what the command line refuses and for what trains nothing, KeyboardInterrupt after Ctrl-C,
    when the run has saved (the same call with its `run_dir` goes on from there; a second Ctrl-C does not wait for the
    saving), SystemExit with status 75 after SIGTERM, and RunFailure where training could not go on.
    """
    words = [*overrides, *(f"{key}={_word(value)}" for key, value in values.items())]
    words += [f"--config-dir={os.fspath(folder)}" for folder in config_dirs]
    forget_rewritten()
    command = parse(words)
    if others := command.flags - {"--config-dir"}:
        raise UsageError(f"train: expected one run, got {', '.join(sorted(others))}; call train once for each run")
    try:
        composed = compose_checked(command)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(NOTHING_BEGUN) from None
    config = composed.config
    target = str(config.task["_target_"])
    if config.get("dry_run") or (target.startswith("capkit.tasks.") and not target.startswith("capkit.tasks.fit")):
        got = "dry_run=true" if config.get("dry_run") else f"task={target.split('.')[-2]}"
        raise UsageError(
            f"train: expected a run that trains, got {got}; use the command line: capkit {' '.join(words)}"
        )
    if config.run_dir is None:
        config.run_dir = str(default_run_dir(config.name))
    folder = Path(config.run_dir)
    note_command(f"capkit.train({', '.join(map(repr, words))})")
    goes_on = f"the same call with run_dir={folder} goes on from there"
    try:
        with as_guest():
            return TrainedRun(folder, dict(run_composed(composed)))
    except SystemExit as ended:
        if ended.code == INTERRUPTED_STATUS:
            raise KeyboardInterrupt(goes_on) from None
        if ended.code == STOPPED_STATUS:
            raise
        raise RunFailure(f"training ended with status {ended.code}; its message stands above") from ended
    except KeyboardInterrupt:  # before the run listened to signals
        raise KeyboardInterrupt(goes_on) from None
    except Exception as error:
        known = known_error(error)
        if known is None or known is error:
            raise
        raise known from error
    finally:
        release_run_lock(folder)


def _word(value: Any) -> str:
    """A value as it is typed: null, true, [1,2], text as it is."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_word(item)}" for key, item in value.items()) + "}"
    return str(value)
