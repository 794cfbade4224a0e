"""A resolved config as the rules ask it: dotted keys, defaults of constructors, the number of processes."""

import os
from dataclasses import dataclass
from typing import Any

from capkit.config.signatures import default


@dataclass(frozen=True)
class Settings:
    """A resolved config, its task's name, and whether this machine runs it, rather than jobs that it starts."""

    config: dict[str, Any]
    task: str
    is_here: bool = True

    @property
    def trains(self) -> bool:
        return self.task.startswith("fit")

    def get(self, key: str) -> Any:
        """The value of a dotted key, else its constructor's default, else None."""
        node: Any = self.config
        for word in key.split("."):
            if not isinstance(node, dict):
                return None
            if word not in node:
                return default_of(node, word)
            node = node[word]
        return node


def default_of(node: dict[str, Any], name: str) -> Any:
    """The default of an argument of the node's class; None if it has none."""
    return default(str(node["_target_"]), name) if "_target_" in node else None


def num_ranks(settings: Settings) -> int | None:
    """Processes of the run: the launcher's count, else devices x nodes; None if only the machine can tell."""
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    devices, nodes = settings.get("trainer.devices"), settings.get("trainer.num_nodes") or 1
    if isinstance(devices, list):
        devices = len(devices)
    if isinstance(devices, str) and devices.isdigit():
        devices = int(devices)
    return devices * nodes if isinstance(devices, int) and devices > 0 else None
