"""The documentation as a site: built strictly, offline, with search, and without anything from elsewhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from capkit.config.locations import config_dir, groups

ROOT = Path(__file__).parents[2]
pytest.importorskip("mkdocs", reason="wants mkdocs-material: pip install 'capkit[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A proxy that leads nowhere stands for no network."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_MKDOCS_2_WARNING": "1"}
    environment = os.environ | nowhere | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.integration
def test_every_page_is_there_and_can_be_searched(site):
    pages = [path.stem for path in (ROOT / "docs").glob("*.md") if path.stem != "README"]
    assert all((site / page / "index.html").is_file() for page in pages)
    entries = json.loads((site / "search/search_index.json").read_text())["docs"]
    found = {entry["location"].split("#")[0] for entry in entries}
    assert {f"{page}/" for page in pages} <= found
    assert {f"methods/{name}/" for name in groups([config_dir()])["experiment"]} <= found
    by_place = {entry["location"]: entry["text"] for entry in entries}
    assert "pip install -c requirements/constraints.txt" in " ".join(by_place.values())


@pytest.mark.integration
def test_methods_say_paper_command_and_what_was_measured(site):
    page = re.sub(r"<[^>]+>", "", (site / "methods/clip_reward_sceneworld/index.html").read_text())
    assert "arXiv 2205.13115" in page and "experiment=clip_reward_sceneworld init_from=" in page
    assert "What was seen here" in page and "control, which must fail" in page


@pytest.mark.integration
def test_the_reference_comes_from_the_code(site):
    api = (site / "reference/api/index.html").read_text()
    assert 'id="capkit.api.load"' in api and 'id="capkit.loaded.LoadedCaptioner.caption"' in api
    configs = (site / "reference/configs/index.html").read_text()
    assert all(f'id="{group}"' in configs for group in groups([config_dir()]))


@pytest.mark.integration
def test_no_page_loads_anything_from_elsewhere(site):
    loaded = re.compile(r"<(?:script|img|link)\b[^>]*?(?:src|href)=\"?(https?://[^\"\s>]+)")
    foreign = {
        (str(page.relative_to(site)), address)
        for page in site.rglob("*.html")
        for address in loaded.findall(page.read_text(encoding="utf-8"))
    }
    assert not foreign


@pytest.mark.integration
def test_page_names_in_a_text_are_links(site):
    assert re.search(r'href="?\.\./rl_effects/', (site / "self_retrieval/index.html").read_text()) or re.search(
        r'href="?(?:\.\./)?rl_effects/', (site / "papers/index.html").read_text()
    )
