import json
import stat

import pytest

from capkit.assets.cache import building, cache_dir, damage, location, path
from capkit.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_environment_names_the_cache_and_home_holds_it_otherwise(cache, monkeypatch, tmp_path):
    assert cache_dir() == cache
    monkeypatch.delenv("CAPKIT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "capkit"


def test_an_asset_appears_whole_with_its_source(cache):
    with building("thing", {"version": "1"}) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("x")
        (folder / "inner" / "file").chmod(0o600)
        assert not location("thing").exists()
    assert path("thing", "inner/file") == str(cache / "thing" / "inner" / "file")
    about = json.loads((cache / "thing" / "about.json").read_text())
    assert about == {"version": "1", "checksums": {"inner/file": "8cdc1683-1"}}
    assert stat.S_IMODE((cache / "thing" / "inner" / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((cache / "thing").stat().st_mode) == 0o755


def test_a_failed_build_leaves_the_old_asset_and_no_rest(cache):
    with building("thing", {"version": "1"}):
        pass
    with pytest.raises(RuntimeError), building("thing", {"version": "2"}) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert [p.name for p in cache.iterdir()] == ["thing"]
    assert json.loads((cache / "thing" / "about.json").read_text())["version"] == "1"


def test_a_new_build_takes_the_place_of_the_old():
    for version in "12":
        with building("thing", {"version": version}) as folder:
            (folder / version).write_text("")
    assert sorted(p.name for p in location("thing").iterdir()) == ["2", "about.json"]


def test_a_missing_asset_is_an_error_that_names_the_command():
    with pytest.raises(UsageError, match=r"capkit prepare data=stamps.*CAPKIT_CACHE"):
        path("smollm2-135m")


def test_a_cut_file_is_named_when_it_is_wanted(cache):
    with building("thing", {}) as folder:
        (folder / "weights").write_text("12345")
        (folder / "other").write_text("x")
    (cache / "thing" / "weights").write_text("")
    for wanted in ({"file": "weights"}, {}):
        with pytest.raises(
            UsageError, match="thing/weights is damaged: it has 0 bytes, and had 5; run `capkit prepare"
        ):
            path("thing", **wanted)
    assert path("thing", "other")
    (cache / "thing" / "weights").unlink()
    with pytest.raises(UsageError, match="it is gone"):
        path("thing")


def test_damage_is_whatever_differs_from_what_was_fetched(cache):
    with building("thing", {}) as folder:
        (folder / "weights").write_text("12345")
    assert damage("thing") is None
    (cache / "thing" / "weights").write_text("12355")
    assert path("thing") and "weights and others are not as fetched" in (damage("thing") or "")
    for content in (b"", b"\xff", b"[]", b'{"checksums": 3}'):
        (cache / "thing" / "about.json").write_bytes(content)
        assert "about.json is damaged" in (damage("thing") or ""), content
    (cache / "thing" / "about.json").write_text('{"version": "1"}')  # of a time before checksums
    assert damage("thing") is None
