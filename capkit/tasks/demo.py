"""task=demo: a page on which pictures are dropped and captions read."""

import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from capkit.config.instantiate import build, build_all, plain
from capkit.demo.access import Door, token_for
from capkit.demo.answers import Demo, Shown
from capkit.demo.app import demo_app
from capkit.demo.serving import address_of, listening, serve
from capkit.errors import UsageError
from capkit.loaded import LoadedCaptioner
from capkit.model_loading import load_model
from capkit.models.conditions.parts import parse_values
from capkit.train.conditions import Requested
from capkit.utils.console import phase, say
from capkit.utils.process import set_up_process
from capkit.utils.tensors import default_device


def run(cfg: DictConfig) -> dict[str, float]:
    """Load the captioners of `cfg.ckpt` and answer the page's pictures until Ctrl-C; nothing is written.

    Raises UsageError for an address that is taken, for what is no captioner, and for scorers that a picture and its
    caption alone are not enough for.
    """
    set_up_process(cfg.torch_threads)
    paths = [cfg.ckpt] if isinstance(cfg.ckpt, str) else list(cfg.ckpt)
    if not 1 <= len(paths) <= 2 or len({os.path.realpath(path) for path in paths}) < len(paths):
        raise UsageError(f"ckpt: expected one captioner, or two different ones, got {', '.join(paths) or 'none'}")
    token = token_for(cfg.host)
    with listening(cfg.host, cfg.port) as listens:
        terms = build_all(cfg.reward)
        conditions = {str(name): value for name, value in plain(cfg.conditions).items() if value is not None}
        shown = []
        for path, name in zip(paths, _names(paths), strict=True):
            with phase(f"loading {path}"):
                captioner = load_model(path, default_device())
            if not isinstance(captioner, LoadedCaptioner):
                raise UsageError(
                    f"ckpt={path}: expected a captioner, got a dual encoder; as a judge it goes into reward=[...]"
                )
            if "decoding" in cfg:  # the group is null unless it is given
                captioner.decoding = build(cfg.decoding)
            shown.append(Shown(name, captioner, Requested(parse_values(captioner.kinds, conditions))))
        with phase("loading scorers"):
            demo = Demo(shown, terms)
        with phase("a first caption"):
            demo.rehearse()
        door = Door(cfg.host, listens.getsockname()[1], token)
        app = demo_app(demo, door, cfg.max_megabytes, cfg.max_waiting)
        say(f"open {address_of(listens, cfg.host, token)} (Ctrl-C stops)")
        serve(app, listens)
    return {}


def _names(paths: Sequence[str]) -> list[str]:
    """What the page calls the captioners: the ends of their paths, as long as tells them apart."""
    parts = [Path(path).resolve().parts if Path(path).exists() else (path,) for path in paths]
    length = next((n for n in range(1, 99) if len({own[-n:] for own in parts}) == len(paths)), 1)
    return ["/".join(own[-length:]) for own in parts]
