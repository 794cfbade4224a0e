"""task=ask: asks a model one question, to try a server or a prompt."""

import time
from pathlib import Path

from omegaconf import DictConfig

from capkit.config.instantiate import build
from capkit.data.images import BadImage, load_rgb
from capkit.errors import RunFailure, UsageError
from capkit.llm.asker import check_model
from capkit.llm.base import ChatModel, Picture, Question
from capkit.utils.console import phase, say
from capkit.utils.quiet import quiet_libraries


def run(cfg: DictConfig) -> dict[str, float]:
    """Print the reply to `cfg.prompt`, its tokens and seconds; returns these. The answer is not kept.

    Raises RunFailure with what the model said if there is no whole reply.
    """
    quiet_libraries()
    model = _model(cfg)
    check_model(model, pictures=cfg.image is not None)
    question = Question(cfg.prompt, _pictures(cfg.image), cfg.system)
    start = time.monotonic()
    with phase("asking"):
        (answer,) = model.ask([question])
    seconds = time.monotonic() - start
    if answer.text is None:
        said = "" if answer.said is None else f"; it said {answer.said!r}"
        raise RunFailure(f"no answer after {seconds:.2f} s: {answer.failure}{said}")
    say(answer.text)
    numbers: dict[str, float] = {"seconds": seconds}
    numbers |= {
        name: float(count)
        for name, count in (("tokens_in", answer.tokens_in), ("tokens_out", answer.tokens_out))
        if count is not None
    }
    told = [f"{numbers[name]:,.0f} {name.replace('_', ' ')}" for name in ("tokens_in", "tokens_out") if name in numbers]
    say(", ".join([f"-- {model.about()['model']}", *(told or ["tokens not counted"]), f"{seconds:.2f} s"]))
    return numbers


def _model(cfg: DictConfig) -> ChatModel:
    given = [group for group in ("text_lm", "vision_chat") if cfg.get(group) is not None]
    if len(given) != 1:
        raise UsageError(
            f"ask needs one model, got {' and '.join(given) or 'none'}; give text_lm=server text_lm.url=... "
            "text_lm.model=..., or hf, or vision_chat=... for one that must see a picture"
        )
    return build(cfg[given[0]])


def _pictures(image: str | None) -> tuple[Picture, ...]:
    if image is None:
        return ()
    try:
        return (Picture(load_rgb(Path(image))),)
    except BadImage as problem:
        raise UsageError(f"image={image}: {problem}; give the path of an image file") from problem
