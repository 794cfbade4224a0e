"""A text writer by the command line: fit, go on, evaluate, export, and asked again as `text_lm=hf`."""

import json

import pytest
import torch
from PIL import Image

from capkit.checkpoint.files import load_checkpoint
from capkit.checkpoint.loading import load_captioner
from capkit.cli import main
from capkit.data.sources.answers import Answers
from capkit.llm.base import Question
from capkit.llm.huggingface import HFChat
from capkit.run.folder import RunFolder
from capkit.text.prompt_encoder import PromptEncoder

COLORS, SHAPES = ("red", "green", "blue"), ("circle", "square", "cross", "star")
LLAMA = "{model_type:llama,hidden_size:16,intermediate_size:24,num_hidden_layers:1,num_attention_heads:2,"
LLAMA += "initializer_range:.3}"
ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
OF_DATA = ["debug=tiny", "data.train.val=.2", "data.train.test=.2", *ONE_CORE]
TINY = [
    *OF_DATA, "data=answers", "model=text_writer", f"model.lm={LLAMA}", "model.tokenizer=word", "model.max_length=48",
    "metric=[bleu,rouge]", "data.max_length=16", "decoding.max_length=12", "max_steps=4", "val_every=2",
    "optimizer.lr=1e-2", "scheduler=constant", "callback.checkpoints.every_steps=2", "callback.recorder.every_steps=1",
]  # fmt: skip


def pairs():
    shown = [(color, shape) for color in COLORS for shape in SHAPES]
    return [{"prompt": f"colour: {c}\nshape: {s}", "answer": f'{{"caption": "a {c} {s}."}}'} for c, s in shown]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("writer")
    (path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs()))
    assert main(command(path, "run")) == 0
    return path


def command(folder, name, *words):
    return [*TINY, f"data.train.path={folder / 'pairs.jsonl'}", f"run_dir={folder / name}", *words]


def weights(run):
    return load_checkpoint(sorted((run / "checkpoints").glob("*4*"))[-1])["state_dict"]


@pytest.mark.integration
def test_a_run_that_went_on_from_a_checkpoint_ends_as_one_that_was_left_alone(folder):
    assert main(command(folder, "stopped", "max_steps=2")) == 0
    assert main(command(folder, "stopped")) == 0
    first, second = weights(folder / "stopped"), weights(folder / "run")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    predicted = [(folder / name / "predictions/test.json").read_text() for name in ("stopped", "run")]
    assert predicted[0] == predicted[1]


@pytest.mark.integration
def test_evaluate_gives_the_numbers_of_the_run_and_its_report_shows_prompts(folder):
    words = [*OF_DATA, f"ckpt={folder / 'run'}", f"run_dir={folder / 'eval'}"]
    assert main(["evaluate", *words, f"data.train.path={folder / 'pairs.jsonl'}"]) == 0
    trained, found = RunFolder(folder / "run").metrics(), RunFolder(folder / "eval").metrics()
    names = [name for name in found if name.startswith("test/") and name.count("/") == 1]
    assert names and all(found[name] == trained[name] for name in names)
    page = (folder / "eval/report.html").read_text()
    assert '<div class="prompt" dir="auto">colour: ' in page and "<img" not in page


@pytest.mark.integration
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
def test_an_export_is_asked_like_any_chat_model_and_answers_what_the_run_wrote(folder, lora, capsys):
    run, out = folder / ("adapted" if lora else "run"), folder / f"exported{int(lora)}"
    if lora:
        assert main(command(folder, run.name, "model.lora={rank:2}")) == 0
    assert main(["export", f"ckpt={run}", f"out={out}"]) == 0
    assert "LlamaForCausalLM.from_pretrained" in capsys.readouterr().out.replace("\n", "")
    prompts = [row["prompt"] for row in pairs()]
    asked = HFChat(str(out), max_tokens=12, batch_size=5).ask([Question(prompt) for prompt in prompts])
    said = [answer.text if answer.text is not None else answer.said for answer in asked]
    expected = written(load_captioner(str(run))[0], prompts)
    assert [text.strip() for text in said] == expected and len(set(expected)) > 3
    assert written(load_captioner(str(out))[0], prompts) == expected
    predicted = json.loads((run / "predictions/test.json").read_text())
    assert {row["caption"] for row in predicted} <= set(expected)


def written(model, prompts):
    """Greedy answers, one prompt at a time, by transformers' own generate on the run's network."""
    texts = []
    for prompt in prompts:
        ids = torch.tensor([PromptEncoder(model.tokenizer, 40)(prompt)])
        out = model.lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        texts.append(model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return texts


@pytest.mark.integration
def test_what_a_language_model_answered_in_a_curate_run_is_learned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    curate = ["curate", "data=sceneworld_pairs", "data.train.source.count=12", "step=[blend_captions]", "text_lm=scene"]
    curate += ["step.blend_captions.prompt=blend_bare_v1", "step.blend_captions.cache_dir=kept", "out=merged"]
    assert main(curate) == 0
    assert main([*TINY, "data.train.path=kept", "run_dir=run", "data.max_length=48", "model.max_length=128"]) == 0
    source = Answers("kept", val=0, test=0)
    assert 0 < len(source) <= 12
    for index in range(len(source)):
        (caption,) = source.record(index).captions
        assert caption.prompt.startswith("[captions]\n1. ") and json.loads(caption.text)["caption"]
    assert RunFolder(tmp_path / "run").metrics()["train/steps"] == 4


def test_a_writer_is_not_asked_for_captions_of_pictures(folder, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/a.png")
    words = [f"ckpt={folder / 'run'}", f"images={tmp_path / 'photos'}", f"out={tmp_path / 'out.jsonl'}"]
    assert main(["caption", *words]) == 2
    assert "expected a captioner of pictures, got one that answers prompts; export it" in capsys.readouterr().err


def test_prompts_and_answers_must_fit_into_the_model(folder, capsys):
    assert main(command(folder, "long", "data.max_prompt_tokens=40")) == 2
    said = capsys.readouterr().err
    assert "data.max_prompt_tokens=40 and data.max_length=16: expected both together within the model's 48" in said
