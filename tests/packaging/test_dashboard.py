import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def load():
    spec = importlib.util.spec_from_file_location("dashboard", ROOT / "launch" / "dashboard.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["dashboard"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


dashboard = load()
TERMS = ["clip_score", "mine"]
needs_library = pytest.mark.skipif(
    importlib.util.find_spec("wandb_workspaces") is None,
    reason="wants wandb-workspaces: pip install 'capkit[dashboard]'",
)


def test_the_sections_of_the_project_stand_in_their_order():
    assert list(dashboard.sections(TERMS)) == ["overview", "RL health", "retrieval", "data", "system"]
    assert all(dashboard.sections(TERMS).values())


def test_every_panel_asks_for_what_runs_log():
    assert dashboard.unknown_names(dashboard.sections(TERMS), TERMS) == []


def test_a_panel_that_asks_for_something_else_would_be_found():
    spec = dashboard.sections(TERMS)
    spec["data"].append(dashboard.Panel("wrong", ("val/cidr", "rl/kl")))
    assert dashboard.unknown_names(spec, TERMS) == ["val/cidr"]
    assert dashboard.unknown_names(dashboard.sections(TERMS), ["clip_score"]) == ["reward/mine", "reward/mine_weighted"]


def test_every_monitor_and_every_shipped_reward_term_has_a_panel():
    terms = dashboard.shipped_terms()
    shown = {name for panels in dashboard.sections(terms).values() for panel in panels for name in panel.names}
    assert {*dashboard.POLICY, *dashboard.REWARD, *dashboard.TRAIN, dashboard.SAMPLES} <= shown
    assert {"cider", "clip_score", "grammar", "length", "nli"} <= set(terms)
    assert {name for term in terms for name in dashboard.of_term(term)} <= shown


def test_no_two_panels_of_a_section_have_one_title():
    for panels in dashboard.sections(TERMS).values():
        assert len({panel.title for panel in panels}) == len(panels)


def test_check_lists_everything_and_sends_nothing(capsys, monkeypatch):
    monkeypatch.setattr(dashboard, "has_key", lambda: pytest.fail("asked for a key"))
    assert dashboard.main(["--check", "--terms", "mine"]) == 0
    out = capsys.readouterr().out
    assert "RL health (15 panels)" in out and "reward/mine_weighted" in out and "every name is one that runs log" in out


def test_it_runs_as_a_script():
    command = [sys.executable, str(ROOT / "launch" / "dashboard.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "overview" in done.stdout


def test_without_an_entity_it_says_what_is_missing(capsys):
    assert dashboard.main([]) == 2
    assert "give --entity NAME" in capsys.readouterr().err


@needs_library
def test_the_library_builds_every_panel_as_it_is_meant():
    spec = dashboard.sections(TERMS)
    built = dashboard.workspace(spec, "someone", "capkit")
    assert [section.name for section in built.sections] == list(spec)
    for section in built.sections:
        for panel, wanted in zip(section.panels, spec[section.name], strict=True):
            sent = panel._to_model().model_dump_json(by_alias=True)
            assert all(name in sent for name in wanted.names)


@needs_library
def test_it_is_sent_where_there_is_a_key_and_nowhere_else(capsys, monkeypatch):
    sent = []
    import wandb_workspaces.workspaces as workspaces

    monkeypatch.setattr(workspaces.Workspace, "save", lambda self: sent.append((self.entity, self.project)))
    monkeypatch.setattr(dashboard, "has_key", lambda: False)
    assert dashboard.main(["--entity", "someone"]) == 2 and not sent
    assert "nothing was sent" in capsys.readouterr().err
    monkeypatch.setattr(dashboard, "has_key", lambda: True)
    assert dashboard.main(["--entity", "someone", "--project", "p"]) == 0
    assert sent == [("someone", "p")]


def test_without_the_library_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert dashboard.main(["--entity", "someone"]) == 2
    assert "capkit[dashboard]" in capsys.readouterr().err
