"""`capkit evaluate` with metrics of questions and battles, on a run of SceneWorld, by its commands."""

import itertools
import json
import re

import pytest
from killed import run_and_kill
from tiny_fit_run import caches

from capkit.cli import main
from capkit.llm.base import Answer
from capkit.metrics.caption_qa import CaptionQA
from capkit.metrics.scoring import score_rows
from capkit.readers.chat import ChatReader
from capkit.run.folder import RunFolder
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.questions import YES_NO, questions
from capkit.sceneworld.reading import SceneQuestions, SceneReader
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import make_scene
from capkit.testing.stand_in_server import Reply, StandInServer
from capkit.utils.rng import stable_hash

pytestmark = pytest.mark.integration

NUM_ANSWERED = 12  # before the kill
KEYS = [f"test-{number}" for number in range(4)]
SCENES = {key: make_scene(WorldOptions(), 0, "test", number) for number, key in enumerate(KEYS)}


def command(tiny_fit, *words):
    run = ["evaluate", f"ckpt={tiny_fit / 'run'}", "trainer.devices=1", "eval_limit=4", *caches(tiny_fit)]
    return [*run, *words]


@pytest.fixture(scope="module")
def evaluated(tiny_fit, tmp_path_factory):
    """The run's captions, asked about and against those of SceneWorld and their own."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "dense.json").write_text(json.dumps({key: caption(SCENES[key], "dense").text for key in KEYS}))
    questions = ["metric=[caption_qa_scenes,arena]", "reader=scene"]
    baselines = {"dense": folder / "dense.json", "itself": tiny_fit / "run" / "predictions" / "test.json"}
    battles = ["judge=scene", *(f"metric.arena.baselines.{name}={file}" for name, file in baselines.items())]
    assert main(command(tiny_fit, *questions, *battles, f"run_dir={folder / 'run'}")) == 0
    return RunFolder(folder / "run")


def captions_of(run):
    return {row["image_id"]: row["caption"] for row in json.loads((run.predictions / "test.json").read_text())}


def rows_of(captions):
    return [
        {"key": key, "caption": captions[key], "references": [], "metadata": {"scene": SCENES[key].to_dict()}}
        for key in KEYS
    ]


def test_questions_about_scenes_are_answered_from_the_runs_captions(evaluated):
    """By hand: what a caption of six words of noise does not say is abstained from, and "no" of yes and no."""
    captions, numbers = captions_of(evaluated), evaluated.metrics()
    asked = [question for scene in SCENES.values() for question in questions(scene)]
    assert numbers["test/caption_qa_asked"] == len(asked) and numbers["test/caption_qa_failed"] == 0
    yes_no = [question for question in asked if set(question.choices) == set(YES_NO)]
    assert 0 <= numbers["test/caption_qa_abstained"] <= 1 - len(yes_no) / len(asked)
    empty = [float(q.answer == "no") if q in yes_no else 1 / len(q.choices) + 0.05 for q in asked]
    metric = CaptionQA(SceneReader(), SceneQuestions())
    wanted = score_rows(rows_of(captions), {"qa": metric})
    assert {name: numbers[f"test/{name}"] for name in wanted} == pytest.approx(wanted)
    assert abs(numbers["test/caption_qa"] - sum(empty) / len(empty)) < 0.2
    low, high = json.loads((evaluated.path / "intervals.json").read_text())["caption_qa"]
    assert low < numbers["test/caption_qa"] < high
    folder = evaluated.predictions / "test_judged"
    assert [json.loads(line)["key"] for line in (folder / "caption_qa.jsonl").read_text().splitlines()] == KEYS
    assert json.loads((evaluated.path / "judges.json").read_text())["caption_qa"]["reader"]["reader"] == "scene"
    page = (folder / "judged.html").read_text()
    shown = re.search(r"<td>caption_qa</td><td>([\d.]+)</td><td>([\d.]+) to ([\d.]+)</td>", page)
    assert [float(text) for text in shown.groups()] == pytest.approx([numbers["test/caption_qa"], low, high], abs=1e-3)


def test_a_captioner_ties_with_itself_and_loses_to_captions_that_say_all(evaluated):
    numbers = evaluated.metrics()
    assert (numbers["test/arena/dense"], numbers["test/arena/itself"], numbers["test/arena"]) == (-100, 0, -50)
    assert (numbers["test/arena_asked"], numbers["test/arena_failed"]) == (8, 0)
    assert json.loads((evaluated.path / "intervals.json").read_text())["arena/dense"] == [-100, -100]
    battles = json.loads((evaluated.predictions / "test_judged" / "model.json").read_text())
    assert len(battles) == 8 and {row["judge"] for row in battles if row["ref_model"] == "itself"} == {"Tie"}
    page = (evaluated.predictions / "test_judged" / "judged.html").read_text()
    assert page.count("<span class='mark wrong'>against dense: ") == 4
    assert page.count("<span class='mark open'>against itself: ") == 4


def letter(prompt):
    """One of the first two options of each question."""
    return "AB"[stable_hash(prompt) % 2]


class Letters:
    def about(self):
        return {"model": "letters"}

    def ask(self, asked):
        return [Answer(letter(question.text)) for question in asked]


def test_a_killed_evaluation_goes_on_from_the_store_and_asks_nothing_twice(tiny_fit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "*")
    number, is_killed = itertools.count(), []
    done: set[str] = set()

    def answer(prompt):
        if not is_killed and next(number) >= NUM_ANSWERED:
            return Reply("", ending="hang")
        done.update([] if is_killed else [prompt])
        return letter(prompt)

    def kept():
        return sum(len(file.read_text().splitlines()) for file in tmp_path.glob("data/answers/*/answers.jsonl"))

    with StandInServer(answer) as server:
        model = [f"reader.model.url={server.url}", "reader.model.model=letters"]
        words = command(tiny_fit, "metric=[caption_qa_scenes]", "reader=server", *model)
        script = (
            f"import os; os.chdir({str(tmp_path)!r}); from capkit.cli import main; main({[*words, 'run_dir=run']!r})"
        )
        run_and_kill(script, tmp_path, lambda: kept() == NUM_ANSWERED)
        before = server.prompts()
        is_killed.append(True)
        assert main([*words, "run_dir=again"]) == 0
        after = server.prompts()[len(before) :]
    assert len(done) == NUM_ANSWERED < kept() and not done & set(after), "what was answered is not asked again"
    assert len(after) == len(set(after)) and set(before) - done <= set(after)
    numbers = RunFolder(tmp_path / "again").metrics()
    assert (
        len(done) + len(after) <= numbers["test/caption_qa_asked"]
    )  # of equal questions of equal captions one is asked
    captions = captions_of(RunFolder(tmp_path / "again"))
    reader = ChatReader(Letters(), cache_dir=str(tmp_path / "others"))
    wanted = score_rows(rows_of(captions), {"qa": CaptionQA(reader, SceneQuestions())})
    assert {name: numbers[f"test/{name}"] for name in wanted} == pytest.approx(wanted)
