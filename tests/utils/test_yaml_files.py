"""libyaml reads what PyYAML's own parser reads, also for OmegaConf."""

import pytest
import yaml
from omegaconf import OmegaConf

from capkit.config.locations import config_dir
from capkit.utils.yaml_files import by_libyaml, load_yaml

FILES = sorted((config_dir() / "experiment").glob("c*.yaml"))
ODD = """
a: 1e-4
b: 1.0e-4
c: 012
d: 1:30
e: no
f: 2026-11-30
g: ~
h: "é\\n"
i: &x [1, {j: .inf}]
k: *x
l: |
  m
"""


@pytest.mark.parametrize("text", [ODD, "", "- 1\n- [2, 3]\n", *(file.read_text() for file in FILES)])
def test_values_are_those_of_pyyaml(text):
    assert load_yaml(text) == load_yaml(text.encode()) == yaml.safe_load(text)
    slow = OmegaConf.create(text)
    with by_libyaml():
        assert OmegaConf.create(text) == slow


def test_omegaconf_reads_by_libyaml_within_and_not_afterwards(monkeypatch):
    read = []
    monkeypatch.setattr("capkit.utils.yaml_files._FASTEST", type("Noted", (yaml.SafeLoader,), {}))
    monkeypatch.setattr(yaml, "load", lambda text, Loader: read.append(Loader.__mro__[1].__name__))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), by_libyaml():
            OmegaConf.create("a: 1")
            raise ZeroDivisionError
        OmegaConf.create("a: 1")
    assert read == ["Noted", "SafeLoader"] * 2


@pytest.mark.parametrize("text", ["a: [1, 2\nb: 3\n", "a:\n\t- 1\n"])
def test_mistakes_are_told_as_by_pyyaml(text):
    with pytest.raises(yaml.YAMLError) as ours:
        load_yaml(text)
    with pytest.raises(yaml.YAMLError) as theirs:
        yaml.safe_load(text)
    assert str(ours.value) == str(theirs.value)


def test_lists_nested_too_deep_end_no_process():
    with pytest.raises(RecursionError):
        load_yaml("[" * 5000)


def test_a_key_that_stands_twice_in_a_config_is_refused():
    with by_libyaml(), pytest.raises(yaml.YAMLError, match="duplicate key a"):
        OmegaConf.create("a: 1\na: 2\n")
