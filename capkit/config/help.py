"""The page that `capkit --help` prints: tasks, flags, groups and examples, read from the config files."""

import textwrap
from pathlib import Path

from capkit.config.arguments import FLAGS
from capkit.config.locations import PICK_ANY, config_dir, groups

_EXAMPLES = """\
examples:
  capkit                                              train on SceneWorld, nothing to download
  capkit dry_run=true                                 what that run would be
  capkit fit experiment=NAME optimizer.lr=1e-3        train a named experiment with one value changed
  capkit caption ckpt=runs/NAME images=my_photos      write captions for a folder of images
  capkit evaluate ckpt=runs/NAME metric=[bleu,cider]  score a checkpoint by chosen metrics
  capkit -m seed=0,1,2                                three runs, one after the other
"""


def help_page(config_dirs: list[Path]) -> str:
    """Tasks with their one-line descriptions, flags, config groups with their choices, and examples."""
    folders = [config_dir(), *config_dirs]
    found = groups(folders)
    tasks = [(task, _description("task", task, folders)) for task in found.get("task", [])]
    choices = [(group, ", ".join(names)) for group, names in found.items() if group != "task"]
    several = ", ".join(group for group in PICK_ANY if group in found)
    return "\n".join(
        [
            "usage: capkit [TASK] [KEY=VALUE ...] [FLAGS]   (python train.py is the same)",
            "",
            _section("tasks (without one: fit):", tasks),
            _section(f"groups, chosen by GROUP=NAME, or GROUP=[NAME,NAME] for {several}:", choices),
            "values are set by KEY=VALUE with dotted keys; every constructor argument of a chosen part is a key.",
            "`--cfg` prints the config that a command line makes. Paths are taken as typed.",
            "",
            _section("flags:", list(FLAGS.items())),
            _EXAMPLES.rstrip(),
        ]
    )


def _section(title: str, rows: list[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    indent = " " * (width + 4)
    lines = [textwrap.fill(f"  {name:<{width}}  {text}", 112, subsequent_indent=indent) for name, text in rows]
    return "\n".join([title, *lines, ""])


def _description(group: str, name: str, folders: list[Path]) -> str:
    """The first comment of a yaml file that is not Hydra's own."""
    for folder in folders:
        path = folder / group / f"{name}.yaml"
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.startswith("#") and not line.startswith("# @"):
                    return line.lstrip("# ")
    return ""
