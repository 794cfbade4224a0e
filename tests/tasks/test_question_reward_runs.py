"""task=fit_rl by questions that a server answers: where it is away, the run ends, saved, and goes on later."""

import json

import pytest
from tiny_fit_run import MODEL

from capkit.cli import main
from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.config.instantiate import build
from capkit.errors import NO_ANSWERS_STATUS, USAGE_STATUS
from capkit.run.folder import RunFolder
from capkit.testing.stand_in_server import Reply, StandInServer, chat_reply
from capkit.train.rl.module import RLModule

pytestmark = pytest.mark.nightly

DATA = [
    "debug=tiny", "data.train.count=16", "data.val.count=4", "data.test.count=4", "decoding.max_length=6", "controls=0",
]  # fmt: skip
REWARDED = [
    "task=fit_rl", "callback=[recorder,checkpoints]", "max_steps=3", "val_every=4", "objective=grpo",
    "reward=[question_answering]",
    "objective.kl=none", "objective.num_samples=2", "reader=server", "reader.model.model=tiny",
    "reader.model.num_attempts=1", "callback.checkpoints.every_steps=100", "callback.recorder.every_steps=1",
    "reward.question_answering.scorer.num_questions=2",
]  # fmt: skip


def test_a_server_that_is_away_ends_the_run_saved_and_the_same_command_goes_on(tmp_path, capsys, monkeypatch):
    caches = [f"data.{split}.cache_dir={tmp_path / 'scenes'}" for split in ("train", "val", "test")]
    assert main([*DATA, *MODEL, *caches, "max_steps=1", "val_every=1", f"run_dir={tmp_path / 'mle'}"]) == 0
    source = build(compose_config(parse([*DATA, *caches])).config.data.train)
    asked = [{"question": f"how {number}?", "choices": ["so", "not so"], "answer": "so"} for number in range(5)]
    questions = {source.record(index).key: asked for index in range(len(source))}
    (tmp_path / "questions.json").write_text(json.dumps(questions))
    run, step, gone = RunFolder(tmp_path / "run"), RLModule.training_step, []

    def away_in_step_1(self, batch, batch_idx):
        gone[:] = [True] * (self.global_step == 1)
        return step(self, batch, batch_idx)

    with StandInServer(lambda prompt: Reply(chat_reply("A"), ending="drop" if gone else None)) as server:
        command = [
            *DATA, *caches, *REWARDED, f"init_from={tmp_path / 'mle'}", f"reader.model.url={server.url}",
            f"reader.cache_dir={tmp_path / 'answers'}", f"run_dir={run.path}",
            f"reward.question_answering.scorer.questions={tmp_path / 'questions.json'}",
        ]  # fmt: skip
        with monkeypatch.context() as patched:
            patched.setattr(RLModule, "training_step", away_in_step_1)
            assert main(command) == NO_ANSWERS_STATUS
        assert "the reader cannot be asked: no connection" in capsys.readouterr().err
        assert [path.name for path in run.checkpoints.glob("step-*")] == ["step-00000001.ckpt"]
        gone.clear()
        assert main(command) == 0
        (tmp_path / "questions.json").write_text(json.dumps(dict.fromkeys(questions, asked[:3])))
        assert main([*command, "max_steps=4"]) == USAGE_STATUS
        assert "the questions that the checkpoint was trained by" in capsys.readouterr().err
    rows = [row for row in run.current_rows() if "reward/question_answering" in row]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["reward/question_answering_unread"] == 0 for row in rows)
    assert all(row["reward/question_answering"] == row["reward/question_answering_right_any"] for row in rows)
    # The file asks about training pictures alone, so the page shows those, as they were captioned before and now.
    shown = [row["key"] for row in run.read_rows("initial_asked")]
    page = run.report.read_text()
    assert len(shown) == 6 and set(shown) <= set(questions) and all(f'alt="{key}"' in page for key in shown)
    assert "<h2>Questions</h2>" in page and page.count("<td>how 0?</td>") + page.count("<td>how 1?</td>") >= 4
