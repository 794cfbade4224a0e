"""The fenced blocks of the documentation's pages, and the commands in them as a shell would read them."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```", flags=re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`([\w/.]+\.(?:yaml|py))`:\n\n```(?:yaml|python)\n(.*?)```", flags=re.DOTALL)
# Bash reads each block; what it would start, it writes down instead: no command is found, for there is no PATH.
_BASH = r"""
record() { printf '%s\0' "$BLOCK" "$@" $'\1' >&3; }
command_not_found_handle() { record "$@"; }
source() { :; }
function launch/torchrun.sh { record launch/torchrun.sh "$@"; }
PATH=/nowhere
"""


@dataclass(frozen=True)
class Block:
    """One fenced block: its page's path from the root, the line of its fence, its language and what it holds."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(
            name,
            text.count("\n", 0, match.start()) + 1,
            match[2].strip(),
            re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE),
        )
        for match in _FENCE.finditer(text)
    ]


def typed(block: Block) -> str:
    """What a reader types: all of a `bash` block; of a `console` block what follows `$`, to its end."""
    if block.language == "bash":
        return block.text
    return "\n".join(command for command, _ in shown(block))


def shown(block: Block) -> list[tuple[str, str]]:
    """Commands of a `console` block, each with what it prints."""
    found: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        length = next(n for n, line in enumerate(lines, 1) if not line.endswith("\\"))
        found.append(("\n".join(lines[:length]), "\n".join(lines[length:])))
    return found


def commands(shell_blocks: Iterable[Block], empty: Path) -> Iterator[tuple[Block, list[str]]]:
    """Each command of the blocks with its words, quotes and variables followed, in an empty folder; nothing is started.

    A variable lasts to the end of its page.
    """
    found = {str(number): block for number, block in enumerate(shell_blocks)}
    script, page = _BASH, ""
    for number, block in found.items():
        script += "" if block.page == page else f"{')' if page else ''}\n(\n"
        script += f"BLOCK={number}; eval {shlex.quote(typed(block))} || echo 'in {block.place}' >&2\n"
        page = block.page
    bash = shutil.which("bash")
    assert bash
    with (empty / "commands").open("w+b") as heard:
        done = subprocess.run(
            [bash, "--norc", "-c", f"exec 3>&{heard.fileno()}\n{script}\n)"],
            cwd=empty, pass_fds=[heard.fileno()], capture_output=True, text=True, env={"HOME": str(empty)},
        )  # fmt: skip
        assert not done.stderr and not done.returncode, done.stderr
        heard.seek(0)
        lines = heard.read().decode().split("\1\0")
    for line in lines[:-1]:
        number, *words = line.rstrip("\0").split("\0")
        yield found[number], words


def is_same_but_for_dots(expected: str, found: str) -> bool:
    """Whether a text is the one that a page shows, where `...` stands for any words."""
    pattern = ".*".join(re.escape(part) for part in expected.split("..."))
    return re.fullmatch(pattern, found, flags=re.DOTALL) is not None


def files(page: Path) -> dict[str, str]:
    """Files that a page names above a block, and what they hold."""
    return dict(_FILE.findall(page.read_text(encoding="utf-8")))


def write_files(folder: Path) -> None:
    """Writes the files that the pages of docs name above a block."""
    for page in PAGES:
        for name, text in files(page).items() if page.parent.name == "docs" else ():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")


def words_for_capkit(words: list[str]) -> list[str] | None:
    """What of a command capkit gets; None if it does not start it."""
    words = words[1:] if words[0] == "srun" else words
    if words[0] in ("capkit", "launch/torchrun.sh"):
        return words[1:]
    if words[:2] == ["python", "train.py"]:
        return words[2:]
    starts = {"sbatch": "launch/slurm.sbatch", "docker": "gpu"}.get(words[0])
    return words[words.index(starts) + 1 :] if starts in words else None


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language in ("bash", "console")]
