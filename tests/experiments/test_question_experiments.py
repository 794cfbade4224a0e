"""Question sets by their commands: on SceneWorld whole, at paper size as far as it is composed."""

import json
import re
from pathlib import Path

import pytest

from capkit.cli import main
from capkit.config.arguments import parse
from capkit.config.check import problems
from capkit.config.compose import compose_config
from capkit.errors import UsageError
from capkit.readers.question_sets import QuestionFile
from capkit.sceneworld.language.question_forms import plainly
from capkit.sceneworld.language.questions import questions
from capkit.sceneworld.world.scene import Scene


@pytest.mark.integration
def test_scenes_are_asked_about_filtered_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["curate", "experiment=caprl_questions_sceneworld", "data.train.count=12", "data.test.count=4"]
    assert main([*command, "out=set", "step.write_questions.path=set/questions.jsonl"]) == 0
    source = QuestionFile("set/questions.jsonl")
    keys = source.keys()
    assert source.split == "train" and len(keys) == 12
    places = {item.choices.index(item.answer) for key in keys for item in source.of(key, {})}
    assert places == {0, 1, 2, 3}  # a reader that likes a letter gains nothing
    for line in Path("set/train.jsonl").read_text().splitlines():
        row = json.loads(line)
        right = {question.text: question.answer for question in questions(Scene.from_dict(row["metadata"]["scene"]))}
        items = source.of(row["key"], {})
        assert items and all(item.answer == right[plainly(item.question)] for item in items)
    # The same set of the test split, which a training run refuses, and pictures of it among the training pictures.
    assert main([*command, "splits=[test]", "out=test", "step.write_questions.path=test/questions.jsonl"]) == 0
    assert QuestionFile("test/questions.jsonl").split == "test"
    capsys.readouterr()
    assert main([*command, "data.train.split=test", "out=mixed"]) == 2
    assert "4 pictures of the test split" in capsys.readouterr().err
    assert main([*command, "dry_run=true", "out=dry"]) == 0 and not Path("dry").exists()


def test_the_published_models_and_thresholds_are_those_of_the_config():
    cfg = compose_config(
        parse(["curate", "experiment=caprl_questions", "data.train.path=x.jsonl", "step.write_questions.path=q.json",
               "out=out"])
    ).config  # fmt: skip
    step = cfg.step.filter_questions
    assert step.without_picture == step.vision_chat == cfg.vision_chat
    asked = cfg.step.ask_questions.vision_chat
    assert asked.name == "Qwen/Qwen2.5-VL-72B-Instruct" and asked.temperature == 0.1 and asked.max_tokens == 2048
    assert (step.blind, step.seen, step.duplicates) == (False, True, False)


def test_published_models_behind_servers_lose_what_only_models_on_this_machine_take():
    """`name` and `dtype` of the experiment, and what a step's own model has them from."""
    small = ["vision_chat=server", "vision_chat.url=http://a/v1", "vision_chat.model=small"]
    big = [f"step.ask_questions.vision_chat{end}" for end in ("=server", ".url=http://b/v1", ".model=big")]
    command = ["curate", "experiment=caprl_questions", "data.train.path=x.jsonl", "step.write_questions.path=q.json",
               "out=out", *big]  # fmt: skip
    for others in ([], small):
        cfg = compose_config(parse([*command, *others])).config
        assert dict(cfg.step.ask_questions.vision_chat) == {
            "_target_": "capkit.llm.chat_server.ChatServer", "url": "http://b/v1", "model": "big",
            "temperature": 0.1, "max_tokens": 2048,
        }  # fmt: skip
        answers = {"name": "Qwen/Qwen2.5-VL-3B-Instruct"} if not others else {"model": "small"}
        assert answers.items() <= cfg.step.filter_questions.without_picture.items()
        assert problems(compose_config(parse([*command, *others])), with_inputs=False) == []


def test_a_part_that_has_another_name_than_its_file_is_told():
    fix = "the part that caption_qa_open brings is metric.caption_qa: metric.caption_qa.KEY=VALUE"
    with pytest.raises(UsageError, match=re.escape(fix)):
        compose_config(parse(["metric=[caption_qa_open]", "metric.caption_qa_open.questions=x"]))


TAXONOMY = {"Object": {"Color": ["red"], "Shape": None}, "Background": None}


def test_captionqas_questions_are_those_of_its_taxonomys_leaves_and_pass_its_filters():
    cfg = compose_config(
        parse(["curate", "experiment=caption_qa_questions", "data.test.path=x.jsonl", "out=out",
               "step.ask_questions.taxonomy=t.json", "step.write_questions.path=q.jsonl"])
    ).config  # fmt: skip
    step = cfg.step.filter_questions
    assert (step.blind, step.seen, step.duplicates, step.agreed) == (True, False, True, True)
    assert step.second_vision_chat.name != step.vision_chat.name == cfg.vision_chat.name
    assert step.text_lm == cfg.text_lm and list(cfg.splits) == ["test"] and cfg.step.ask_questions.taxonomy == "t.json"


@pytest.mark.integration
@pytest.mark.parametrize("wrong", [0.0, 1.0])
def test_captionqas_building_asks_each_leaf_and_leaves_to_a_person_what_two_models_see_differently(
    wrong, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("taxonomy.json").write_text(json.dumps(TAXONOMY))
    second = "step.filter_questions.second_vision_chat"
    command = [
        "curate", "experiment=caprl_questions_sceneworld", "data.train.count=4", "data.test.count=6", "splits=[test]",
        "out=set", "step.ask_questions.taxonomy=taxonomy.json", "step.write_questions.path=set/questions.jsonl",
        "step.write_questions.review=set/look.jsonl", "step.filter_questions.seen=false",
        "step.filter_questions.agreed=true", f"{second}=vision_chat/scene", f"{second}.seed=1",
        f"{second}.wrong={wrong}",
    ]  # fmt: skip
    assert main(command) == 0, capsys.readouterr().err
    source = QuestionFile("set/questions.jsonl")
    keys = source.keys()
    assert source.split == "test" and len(keys) == 6
    kept = [item.category for key in keys for item in source.of(key, {})]
    looked_at = [json.loads(line) for line in Path("set/look.jsonl").read_text().splitlines()]
    assert {("Object", "Shape"), ("Background",)} <= set(kept)
    if wrong:  # the second model gets every colour wrong, and nothing else
        assert ("Object", "Color") not in kept
        assert len(looked_at) >= 5 and all(row["first"] == row["answer"] != row["second"] for row in looked_at)
    else:
        assert ("Object", "Color") in kept and looked_at == []
