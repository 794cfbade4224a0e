"""The index lists every page of `docs`, and every relative link of the documentation leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
PAGES += sorted((ROOT / "capkit").glob("*/README.md"))


def links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """Anchors as GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_lists_every_page_once_with_a_line():
    listed = re.findall(r"^- \[(\w+\.md)\]\((\w+\.md)\): \S.*\.$", (DOCS / "README.md").read_text(), flags=re.MULTILINE)
    assert all(shown == target for shown, target in listed)
    assert sorted(target for _, target in listed) == sorted(p.name for p in DOCS.glob("*.md") if p.name != "README.md")


def test_pictures_are_small_and_shown():
    """`make screenshots` makes those of pages."""
    shown = {link.rpartition("/")[2] for page in PAGES for link in links(page)}
    pictures = [path for path in DOCS.iterdir() if path.suffix in (".png", ".webp", ".jpg", ".svg")]
    assert {"report.png", "compare.png", "demo.png", "site.png"} <= {path.name for path in pictures}
    assert [path.name for path in pictures if path.stat().st_size > 150_000 or path.name not in shown] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


NAMED_PATH = re.compile(
    r"(?<![\w/.])(?:benchmarks|capkit|configs|docs|launch|tests)/[\w/]*?\w+\.(?:json|md|py|sh|svg|yaml)\b"
)
NAMED_PART = re.compile(r"(?<![\w./-])capkit(?:\.\w+)+")
PLACEHOLDER = re.compile(r"(?:.*/)?(?:x|\w*[A-Z]{4}\w*)\.\w+")  # capkit/objectives/x.py, configs/task/NAME.yaml
# CONTRIBUTING shows parts that a reader writes; the changelog names what is gone.
PRESENT = [page for page in PAGES if page.name not in ("CONTRIBUTING.md", "CHANGELOG.md")]


@pytest.mark.parametrize("folder", ["docs", "capkit", "configs", "benchmarks", "launch"])
def test_every_file_that_is_named_exists(folder):
    pages = PRESENT if folder == "docs" else [p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".yaml")]
    named = {name for page in pages for name in NAMED_PATH.findall(page.read_text(encoding="utf-8"))}
    assert [name for name in sorted(named) if not PLACEHOLDER.fullmatch(name) and not (ROOT / name).exists()] == []
    assert named


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_part_that_is_named_by_its_module_is_there(page):
    """The module is a file, and what follows it a word of this file."""
    named = sorted(set(NAMED_PART.findall(page.read_text(encoding="utf-8"))) - {"capkit.sif"})  # a container's file
    assert [name for name in named if not _is_there(name.split("."))] == []


def _is_there(words: list[str]) -> bool:
    for length in range(len(words), 0, -1):
        path = ROOT.joinpath(*words[:length])
        if path.is_dir() or (file := path.with_suffix(".py")).exists():
            text = (path / "__init__.py" if path.is_dir() else file).read_text(encoding="utf-8")
            return length == len(words) or re.search(rf"\b{words[length]}\b", text) is not None
    return False
