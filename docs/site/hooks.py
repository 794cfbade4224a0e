"""Makes pages for the documentation's site that stand elsewhere already: nothing is written twice.

The start page is the README, the order of pages that of docs/README.md; methods are the heads of their experiments with
what was measured, configs and Python objects come from the code.
"""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from capkit.config.help import list_page
from capkit.config.locations import config_dir, groups

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
PYTHON = {
    "api": ["capkit.api", "capkit.loaded"],
    "types": ["capkit.types", "capkit.decoding.config"],
    "protocols": [
        "capkit.models.captioners.base", "capkit.models.dual_encoders.base", "capkit.objectives.base",
        "capkit.scorers.base", "capkit.data.curricula.base", "capkit.data.sources.base", "capkit.metrics.base",
    ],
}  # fmt: skip
# The heads of experiments are wider than a page; commands keep their lines.
_WRAPPED = ".md-typeset .wrapped pre > code { white-space: pre-wrap; }\n"
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)")
_NAMED = re.compile(r"(?<!\]\()(?<![\[\w/.`])`?docs/([a-z_]+\.md)`?(?![\w\]])")


def _index_sections() -> dict[str, list[str]]:
    """Pages by section of docs/README.md."""
    sections: dict[str, list[str]] = {}
    for line in (ROOT / "docs/README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            sections[line[3:]] = []
        elif found := re.match(r"- \[(\w+\.md)\]", line):
            sections[list(sections)[-1]].append(found[1])
    return sections


def _experiments() -> list[str]:
    return groups([config_dir()])["experiment"]


def on_config(config: Any) -> Any:
    config["extra_css"] = ["wrapped.css"]
    nav: list[Any] = [{"capkit": "index.md"}]
    nav += [{title: pages} for title, pages in _index_sections().items()]
    nav.append({"Methods": ["methods/index.md", *(f"methods/{name}.md" for name in _experiments())]})
    generated = ["reference/configs.md", *(f"reference/{name}.md" for name in PYTHON)]
    nav.append({"Generated reference": [*generated, "contributing.md", "changelog.md"]})
    config["nav"] = nav
    return config


def on_files(files: Files, config: Any) -> Files:
    for source, target in ELSEWHERE.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    for name, content in {**_pages(), "wrapped.css": _WRAPPED}.items():
        files.append(File.generated(config, name, content=content))
    return files


def _pages() -> dict[str, str]:
    pages = {f"methods/{name}.md": _method(name) for name in _experiments()}
    rows = "\n".join(f"- [{name}]({name}.md): {_head(name)[0]}" for name in _experiments())
    pages["methods/index.md"] = (
        f"# Methods\n\nEach experiment, with its paper, command and what was seen here.\n\n{rows}\n"
    )
    pages["reference/configs.md"] = "# Config groups\n\nKeys of one: `capkit --help GROUP=NAME`.\n\n" + "\n\n".join(
        f"## {group}\n\n```text\n{list_page([group], [])}\n```" for group in groups([config_dir()])
    )
    for name, modules in PYTHON.items():
        pages[f"reference/{name}.md"] = f"# {name}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"
    return pages


def _head(name: str) -> list[str]:
    """The comment at the top of an experiment's yaml."""
    lines = (config_dir() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comments = [line[1:].strip() for line in lines if line.startswith("#") and not line.startswith("# @package")]
    return comments or [name]


def _method(name: str) -> str:
    text = "\n".join(_head(name))
    yaml = (config_dir() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    body = "\n".join(line for line in yaml.splitlines() if not line.startswith("#")).strip()
    row = next((line for line in _papers() if f"`{name}`" in line), "")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    status = f"\n## Status\n\n{cells[-1]}\n" if len(cells) == 6 else ""
    seen = _seen([test for test in re.findall(r"tests/effects/\w+\.py", row)])
    return (
        f"# {name}\n\n``` {{ .text .wrapped }}\n{text}\n```\n{status}{seen}\n## Config\n\n"
        f"`capkit show experiment={name}` prints all of it.\n\n```yaml\n{body}\n```\n"
    )


def _papers() -> list[str]:
    return [line for line in (ROOT / "docs/papers.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]


def _seen(tests: list[str]) -> str:
    """What the effect tests of a paper measured, a row a number with its seeds."""
    studies = json.loads((ROOT / "docs/studies.json").read_text(encoding="utf-8"))
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for study in studies:
        file, _, test = study["item"].partition("::")
        if file in tests:
            for number in study["numbers"]:
                wanted = f"{number['comparison']} {number['threshold']:g}" if number["threshold"] is not None else ""
                key = (
                    test.split("[")[0].removeprefix("test_").replace("_", " "),
                    number["what"],
                    number["control"],
                    wanted,
                )
                found[key].append(number["value"])
    if not found:
        return ""
    rows = [f"| {' | '.join(key)} | {', '.join(f'{value:.3f}' for value in values)} |" for key, values in found.items()]
    head = (
        "| test | number | control, which must fail | threshold | one value a seed |\n| --- | --- | --- | --- | --- |\n"
    )
    return (
        "\n## What was seen here\n\nOn generated pictures (docs/sceneworld.md), by the effect tests of the paper.\n\n"
        + (head + "\n".join(rows) + "\n")
    )


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that lead out of docs lead to pages of the site, or become plain; `docs/x.md` in a text becomes a link."""
    at = page.file.src_uri
    up = "../" * at.count("/")

    def link(match: re.Match[str]) -> str:
        target, hash_, anchor = match[1].partition("#")
        if not target:
            return match[0]
        inside = target.removeprefix("docs/") if at == "index.md" else target.removeprefix("../docs/")
        name = target.removeprefix("../").removeprefix("docs/")
        if target.removeprefix("../") in ELSEWHERE:
            return f"]({up}{ELSEWHERE[target.removeprefix('../')]}{hash_}{anchor})"
        if (ROOT / "docs" / name).is_file() and not name.endswith(".json"):
            return f"]({up}{name if name != 'README.md' else 'index.md'}{hash_}{anchor})"
        return match[0] if inside != target or target.startswith("methods/") or at.startswith("methods/") else "]()"

    parts = re.split(r"(```.*?```)", markdown, flags=re.DOTALL)
    for place in range(0, len(parts), 2):
        parts[place] = _LINK.sub(link, parts[place]).replace("]()", "]")
        parts[place] = _NAMED.sub(
            lambda match: f"[{match[1]}]({up}{match[1]})" if (ROOT / "docs" / match[1]).is_file() else match[0],
            parts[place],
        )
    return "".join(parts)
