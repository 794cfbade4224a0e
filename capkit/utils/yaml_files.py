"""YAML by libyaml, which reads a config ten times faster than PyYAML's own parser."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

# PyYAML may have been built without libyaml.
_FASTEST: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(text: str | bytes) -> Any:
    """What `yaml.safe_load` gives. Raises its errors, which say more of the mistake than libyaml's."""
    try:
        return yaml.load(text, _FASTEST)
    except yaml.YAMLError:
        return yaml.safe_load(text)


@contextmanager
def by_libyaml() -> Iterator[None]:
    """Within it OmegaConf, whose loader is a subclass of `yaml.SafeLoader` made at each call, reads by libyaml too."""
    own = yaml.SafeLoader
    yaml.SafeLoader = _FASTEST  # type: ignore[misc]
    try:
        yield
    finally:
        yaml.SafeLoader = own  # type: ignore[misc]
