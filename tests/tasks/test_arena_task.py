"""`capkit arena` as the command line runs it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capkit.cli import main
from capkit.metrics.arena.files import read_battles
from capkit.testing.stand_in_server import StandInServer

THINGS = ("ball", "tree", "dog", "car", "hat", "cup")
REFERENCES = {str(n): [f"a red {thing} on the grass", f"a {thing}"] for n, thing in enumerate(THINGS)}
CAPTIONS = {
    "good": [f"a red {thing} on the grass" for thing in THINGS],
    "short": [f"a red {thing}" for thing in THINGS],
    "wrong": ["two people in snow"] * len(THINGS),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "*")

    def write(name, content):
        (tmp_path / name).write_text(json.dumps(content))

    write("references.json", REFERENCES)
    for name, captions in CAPTIONS.items():
        write(f"{name}.json", dict(zip(REFERENCES, captions, strict=True)))
    auto = {
        f"{n}.png": {"captions": {"human": "a red ball", "base": "two dogs"}, "ref_model": "base"} for n in range(4)
    }
    write("auto.json", auto)
    write("m.json", dict.fromkeys(auto, "a ball"))
    annotated = [
        {
            "img": f"{n}.png", "source1": a, "source2": b, "caption1": CAPTIONS[a][n], "caption2": CAPTIONS[b][n],
            "ref": CAPTIONS["good"][n], "winner": a, "cluster": f"level {1 + n % 2}", "in-400": True,
        }
        for n in range(4)
        for a, b in (("good", "short"), ("good", "wrong"), ("short", "wrong"))
    ]  # fmt: skip
    annotated.append({**annotated[0], "source1": "human"})
    write("annotated.json", annotated)
    return write


def arena(*words):
    return main(["arena", "num_resamples=20", *words])


def numbers(folder="out"):
    return json.loads(Path(folder, "metrics.json").read_text())


def test_players_meet_on_every_picture_by_any_metric(files, capsys):
    players = [f"players.{name}={name}.json" for name in CAPTIONS]
    assert arena(*players, "references=references.json", "metric=[cider,bleu]", "run_dir=out") == 0
    found = numbers()
    for name in ("cider", "bleu_4"):
        ratings = [found[f"{name}/davidson/{player}"] for player in CAPTIONS]
        assert ratings == sorted(ratings, reverse=True) and found[f"{name}/asked"] == 18
    assert found["cider/win_rate/good"] == 1 and found["cider/length/short"] == 3
    assert "ratings by cider" in capsys.readouterr().out and "<svg" in Path("out/arena.html").read_text()


def test_agreement_with_people_is_one_table_for_metrics_and_judge(files, capsys):
    assert arena("battles=annotated.json", "judge=language", "text_lm=scene", "metric=[cider]", "run_dir=out") == 0
    found = numbers()
    assert found["cider/agreement/no_ties/overall"] == 1 and found["cider/agreement/kendall_davidson"] == 1
    # The scene model knows no things: a caption that is the reference wins, and of others none.
    assert found["judge/asked"] == 12 and found["judge/agreement/ties/overall"] == pytest.approx(2 / 3)
    assert found["judge/agreement/no_ties/overall"] == 1
    out = capsys.readouterr().out
    assert "agreement with people" in out and "no_ties/level_2" in out


def test_without_a_judge_the_verdicts_of_people_rate(files):
    assert arena("battles=annotated.json", "run_dir=out") == 0
    assert numbers()["people/win_rate/short"] == 0.5 and "people/davidson/human" not in numbers()


def test_a_ranking_of_people_replaces_their_winners(files):
    ranking = "ranking=[wrong,human,short,good]"
    assert arena("battles=annotated.json", "metric=[cider]", ranking, "run_dir=out") == 0
    assert numbers()["cider/agreement/spearman_elo"] == -1


@pytest.fixture
def server():
    with StandInServer() as found:
        yield found


def asked(server, *words):
    vision = ["judge=vision", "vision_chat=server", f"vision_chat.url={server.url}", "vision_chat.model=tiny"]
    return arena("battles=auto.json", "players.m=m.json", "images=photos", *vision, *words)


def photos():
    Path("photos").mkdir()
    for n in range(4):
        Image.fromarray(np.full((8, 8, 3), 40 * n, np.uint8)).save(f"photos/{n}.png")


def test_auto_scores_by_a_server_that_sees_and_files_as_published(files, server, capsys):
    photos()
    server.answer = lambda prompt: "Reason: it is red.\nJudgment: Caption 1 is better."
    assert asked(server, "both_orders=true", "run_dir=out") == 0
    found = numbers()
    assert found["judge/asked"] == 8 and found["judge/flipped"] == 1 and found["judge/auto/m/mean"] == 0
    assert len(server.requests) == 8
    rows = json.loads(Path("out/battles.json").read_text())
    assert {row["judge"] for row in rows} == {"Tie"} and len(rows[0]["both_orders"]) == 2
    parts = server.requests[0]["body"]["messages"][-1]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text"]

    assert asked(server, "run_dir=drawn") == 0  # from the store
    assert len(server.requests) == 8 and numbers("drawn")["judge/asked"] == 4
    firsts = {battle.a for battle in read_battles("drawn/battles.json")}
    assert {battle.verdict for battle in read_battles("drawn/battles.json")} == {"a"} and firsts <= {"m", "base"}
    assert arena("battles=drawn/battles.json", "run_dir=again") == 0
    assert numbers("again")["file/auto/m/mean"] == numbers("drawn")["judge/auto/m/mean"]


def test_too_many_unreadable_verdicts_give_no_number(files, server, capsys):
    photos()
    server.answer = lambda prompt: "Caption 1 wins"
    assert asked(server, "run_dir=out") == 0
    assert numbers() == {"judge/asked": 4, "judge/failed": 4}
    assert "judge: no numbers, since 4 of 4 verdicts cannot be read" in capsys.readouterr().out
    assert all("judge" not in row for row in json.loads(Path("out/battles.json").read_text()))


def test_a_dry_run_counts_and_shards_ask_what_one_run_then_finds(files, server, capsys):
    photos()
    server.answer = lambda prompt: "Reason: it is red.\nJudgment: Tie"
    price = "vision_chat.price=[2,10]"
    assert asked(server, "dry_run=true", price) == 0
    assert len(server.requests) == 0 and "4 battles: nothing asked" in capsys.readouterr().out
    for shard in range(2):
        assert asked(server, f"shard={shard}", "num_shards=2") == 0
    assert len(server.requests) == 4
    assert asked(server, "run_dir=out") == 0
    assert len(server.requests) == 4 and numbers()["judge/win_rate/m"] == 0.5


def test_caparena_auto_wants_a_key_and_then_tells_its_cost(files, monkeypatch, capsys):
    """60 verdicts of at most 1,500 tokens: 10 dollars a million make .9 dollars, and the questions."""
    rivals = {
        f"{n}.png": {"captions": {"human": "h", f"base{n % 3}": "b"}, "ref_model": f"base{n % 3}"} for n in range(60)
    }
    files("auto60.json", rivals)
    files("mine.json", {name: f"a caption of {name}" for name in rivals})
    Path("photos").mkdir()
    for name in rivals:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(f"photos/{name}")
    words = [
        "experiment=caparena_auto",
        "battles=auto60.json",
        "players.mine=mine.json",
        "images=photos",
        "dry_run=true",
    ]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert arena(*words) == 2 and "OPENAI_API_KEY" in capsys.readouterr().err
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert arena(*words) == 0
    out = capsys.readouterr().out
    assert "60 battles: nothing asked" in out and "90,000" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "arena needs battles=FILE, or two players and more"),
        (["battles=auto.json"], "nobody to meet them; give players.NAME=FILE"),
        (["battles=annotated.json", "players.m=m.json"], "players=m would not be in them"),
        (["players.a=good.json", "players.b=m.json"], "got none of 6 (0, 1, 2) and 4 of others (0.png, 1.png, 2.png)"),
        (["players.a=good.json", "players.b=short.json"], "the battles have no verdicts"),
        (["players.a=good.json", "players.b=short.json", "metric=[cider]"], "got none for 6 of 6 pairs"),
        (["battles=annotated.json", "judge=scene"], "needs SceneWorld's metadata 'scene'"),
        (["battles=annotated.json", "judge=vision", "vision_chat=scene"], "give images=FOLDER, or judge=language"),
        (["battles=annotated.json", "judge=vision"], "add vision_chat=hf, server or scene"),
        (["battles=annotated.json", "dry_run=true", "metric=[cider]"], "there is no judge; leave them out"),
        (["battles=no.json"], "battles=no.json: no such file"),
        (["battles=annotated.json", "judge=visio"], "there is no judge 'visio'; did you mean 'vision'"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_asked(files, words, told, capsys):
    assert arena(*words, "run_dir=out") == 2
    assert told in capsys.readouterr().err


def test_groups_without_a_battle_between_them_have_no_ratings_and_nothing_is_asked(files, server, capsys):
    row = {"img": "1", "caption1": "x", "caption2": "y", "ref": "z", "judge": "Tie"}
    files("apart.json", [{**row, "source1": "p", "source2": "q"}, {**row, "source1": "r", "source2": "s"}])
    model = ["text_lm=server", f"text_lm.url={server.url}", "text_lm.model=tiny"]
    for judge in ([], ["judge=language", *model], ["judge=similarity", "judge.metric.scorer.encoder=no such model"]):
        assert arena("battles=apart.json", "run_dir=out", *judge) == 2
        assert "have no common scale" in capsys.readouterr().err
    assert server.requests == []
