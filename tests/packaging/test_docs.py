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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_that_is_named_exists(page):
    named = re.findall(r"(?<![\w/.])docs/[\w/]+\.md", page.read_text(encoding="utf-8"))
    assert all((ROOT / name).exists() for name in named)
