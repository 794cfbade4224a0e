"""`metric.language=pt`: one setting for every chosen metric that reads a language."""

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict

from capkit.config.composed import Composed
from capkit.config.signatures import signature
from capkit.errors import UsageError

SHARED = "metric.language"
_GROUP, _, _ARGUMENT = SHARED.partition(".")


def spread(composed: Composed, parsed: list[Override]) -> None:
    """Set the language of each metric that takes one, in place of the group's own key.

    What the command line gives to one metric (`metric.cider.language=en`) stays. So a config, and the run that it
    makes, holds the language where it is read. Raises UsageError if the command line gives a language and no chosen
    metric takes one; an experiment's has no use then.
    """
    group = composed.config.get(_GROUP)
    if not isinstance(group, DictConfig) or isinstance(group.get(_ARGUMENT), DictConfig) or _ARGUMENT not in group:
        return
    typed = {override.key_or_group for override in parsed}
    with open_dict(group):
        value = group.pop(_ARGUMENT)
        readers = [str(name) for name, part in group.items() if _reads(part)]
        if not readers and SHARED in typed:
            raise UsageError(
                f"{SHARED}={value}: expected a metric that reads a language, such as bleu, rouge, cider or meteor, got "
                f"{', '.join(map(str, group)) or 'none'}; choose one, or omit {SHARED}"
            )
        for name in readers:
            if f"{_GROUP}.{name}.{_ARGUMENT}" not in typed:
                group[name][_ARGUMENT] = value


def _reads(part: object) -> bool:
    if not isinstance(part, DictConfig) or "_target_" not in part:
        return False
    taken = signature(str(part["_target_"]))
    return taken is not None and _ARGUMENT in taken.arguments
