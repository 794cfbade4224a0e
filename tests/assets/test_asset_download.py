"""The package managers are stand-ins: small scripts on PATH, or a changed command. Nothing leaves the machine."""

import hashlib
import os
import sys

import pytest

from capkit.assets import download
from capkit.errors import UsageError

CONTENT = b"a package"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """Puts an `apt-get` on PATH that runs the given shell lines, and logs its arguments."""

    def install(script):
        tools = tmp_path / "tools"
        tools.mkdir(exist_ok=True)
        (tools / "apt-get").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/log\n{script}\n')
        (tools / "apt-get").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
        return tmp_path / "log"

    return install


def test_a_package_of_a_known_version_is_checked_and_kept(apt, cache):
    apt("printf 'a package' > thing_1.0-1_all.deb")
    file, version = download.apt_package("thing", {"1.0-1": DIGEST})
    assert (file, version) == (cache / "downloads" / "thing_1.0-1_all.deb", "1.0-1")
    assert file.read_bytes() == CONTENT
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_kept_package_is_not_fetched_again(apt):
    log = apt("printf 'a package' > thing_1.0-1_all.deb")
    download.apt_package("thing", {"1.0-1": DIGEST})
    download.apt_package("thing", {"1.0-1": DIGEST})
    assert log.read_text().splitlines() == ["download thing"]


def test_another_version_is_let_through_with_its_number(apt):
    apt("printf 'a package' > thing_1%3a2.0-1_all.deb")
    assert download.apt_package("thing", {"1.0-1": "0" * 64})[1] == "1:2.0-1"


def test_a_changed_file_of_a_known_version_is_refused_and_not_kept(apt, cache):
    apt("printf 'another' > thing_1.0-1_all.deb")
    with pytest.raises(UsageError, match=r"expected SHA-256 .*delete it"):
        download.apt_package("thing", {"1.0-1": DIGEST})
    assert not list((cache / "downloads").iterdir())


def test_a_kept_file_that_was_damaged_is_refused(apt, cache):
    apt("printf 'a package' > thing_1.0-1_all.deb")
    file, _ = download.apt_package("thing", {"1.0-1": DIGEST})
    file.write_bytes(b"")
    with pytest.raises(UsageError, match="damaged"):
        download.apt_package("thing", {"1.0-1": DIGEST})


def test_without_network_the_error_has_the_complaint_and_the_way_by_hand(apt, cache):
    apt("echo 'W: noise' >&2; echo 'E: Failed to fetch http://deb' >&2; exit 100")
    with pytest.raises(UsageError, match=r"E: Failed to fetch http://deb .*network.*thing_VERSION_all\.deb") as caught:
        download.apt_package("thing", {})
    assert "noise" not in str(caught.value)
    assert not list((cache / "downloads").iterdir())


def test_missing_package_lists_ask_a_user_for_an_update(apt, monkeypatch):
    apt("echo 'E: Unable to locate package thing' >&2; exit 100")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="sudo apt-get update"):
        download.apt_package("thing", {})


def test_missing_package_lists_are_fetched_by_root(apt, tmp_path, monkeypatch):
    log = apt(
        f"if [ $1 = update ]; then touch {tmp_path}/lists; exit 0; fi\n"
        f"if [ -e {tmp_path}/lists ]; then printf 'a package' > thing_1.0-1_all.deb; exit 0; fi\n"
        "echo 'E: Unable to locate package thing' >&2; exit 100"
    )
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    download.apt_package("thing", {"1.0-1": DIGEST})
    assert log.read_text().splitlines() == ["download thing", "update", "download thing"]


def test_without_apt_the_error_names_the_page_and_the_place(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"packages\.debian\.org/thing.*cache/downloads/thing_VERSION_all\.deb"):
        download.apt_package("thing", {})


def test_a_package_put_there_by_hand_needs_no_apt(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "thing_1.0-1_all.deb").write_bytes(CONTENT)
    assert download.apt_package("thing", {"1.0-1": DIGEST})[1] == "1.0-1"


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Replaces the Python that runs pip by a shell script."""

    def install(script):
        (tmp_path / "python").write_text(f'#!/bin/sh\nwhile [ "$1" != --dest ]; do shift; done; dest="$2"\n{script}\n')
        (tmp_path / "python").chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    return install


def test_a_wheel_is_checked_and_kept(pip, cache):
    pip('[ "$3" = thing==1.0 ] && printf "a package" > "$dest/thing-1.0.whl"')
    file = download.pip_wheel("thing", "1.0", "thing-1.0.whl", DIGEST)
    assert file == cache / "downloads" / "thing-1.0.whl"
    pip("exit 1")
    assert download.pip_wheel("thing", "1.0", "thing-1.0.whl", DIGEST) == file


def test_a_wheel_that_cannot_be_had_is_a_usage_error(pip):
    pip("echo 'ERROR: No matching distribution found for thing==1.0' >&2; exit 1")
    with pytest.raises(UsageError, match=r"thing==1\.0 could not be downloaded: ERROR: No matching.*network"):
        download.pip_wheel("thing", "1.0", "thing-1.0.whl", DIGEST)


def test_a_wheel_under_another_name_is_a_usage_error(pip):
    pip('printf "a package" > "$dest/other.whl"')
    with pytest.raises(UsageError, match=r"expected the download thing-1\.0\.whl, got \['other\.whl'\]"):
        download.pip_wheel("thing", "1.0", "thing-1.0.whl", DIGEST)
