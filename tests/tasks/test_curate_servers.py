"""task=curate asking a server of this process: what it costs, when it stops, and what a bad server does to it."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from capkit.cli import main
from capkit.data.records import read_manifest
from capkit.llm.ledger import NUM_FIRST
from capkit.testing.stand_in_server import Reply, StandInServer, chat_reply
from capkit.utils.console import innermost
from capkit.utils.rng import stable_hash

PRICE = "text_lm.price=[2,10]"  # for a million tokens
BLEND, BOTH = "step=[blend_captions]", "step=[blend_captions,holistic_caption]"


def a_dog(prompt):
    """A caption of two words of its own for each prompt; a description where no JSON is asked for."""
    return json.dumps({"caption": f"dog {stable_hash(prompt)}"}) if "JSON" in prompt else "a dog on a sofa"


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "*")
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    with StandInServer(a_dog) as found:
        yield found


def curate_words(server, *words, count=12):
    models = [
        word
        for group in ("text_lm", "vision_chat")
        for word in (
            f"{group}=server",
            f"{group}.url={server.url}",
            f"{group}.model=tiny",
            f"{group}.first_wait_s=0.01",
        )
    ]
    return ["curate", f"data.train.count={count}", *models, *words]


def curate(server, *words, count=12):
    return main(curate_words(server, *words, count=count))


def report(folder="out"):
    with open(f"{folder}/train.report.json") as file:
        return json.load(file)["counts"]


def failures(folder="out"):
    with open(f"{folder}/train.failures.jsonl") as file:
        return [json.loads(line) for line in file]


def test_tokens_and_money_are_in_the_report(server, capsys):
    assert curate(server, BLEND, PRICE, "out=out") == 0
    counts = report()
    asked = server.prompts()
    tokens_in = sum(len(prompt.split()) for prompt in asked)  # as the stand-in counts them
    tokens_out = 3 * len(asked)
    assert len(asked) == 12 and tokens_out == 36
    assert counts["blend_captions/text_tokens_in"] == tokens_in
    assert counts["blend_captions/text_tokens_out"] == tokens_out
    assert counts["blend_captions/text_money"] == pytest.approx((tokens_in * 2 + tokens_out * 10) / 1e6)
    assert "blend_captions/text_money" in capsys.readouterr().out


def test_a_dry_run_counts_what_is_then_asked_and_asks_nothing(server, capsys):
    words = [BOTH, PRICE, "text_lm.max_tokens=100", "vision_chat.max_tokens=200"]
    assert curate(server, *words, "out=out", "dry_run=true") == 0
    table = " ".join(capsys.readouterr().out.split())
    assert server.requests == [] and not Path("out").exists()
    assert "12 records: nothing asked" in table and "no price" in table
    assert table.count(" 12 ") >= 3  # each of the three kinds of questions
    assert "1,200" in table and "2,400" in table  # of 100 and 200 tokens at most
    assert curate(server, *words, "out=out") == 0
    assert len(server.requests) == 36
    server.requests.clear()
    assert curate(server, *words, "out=other", "dry_run=true") == 0
    assert server.requests == []
    assert curate(server, *words, "out=other") == 0
    assert server.requests == []  # the examples that a dry run goes on with were not kept: the answers were


def test_a_spent_budget_ends_the_run_before_it_is_passed_and_keeps_everything(server, capsys):
    words = [BLEND, PRICE, "text_lm.max_tokens=100", "out=out"]
    assert curate(server, *words, "budget=0.004") == 85
    error = capsys.readouterr().err
    asked = server.prompts()
    spent = sum(len(prompt.split()) * 2 + 3 * 10 for prompt in asked) / 1e6
    assert 0 < len(asked) < 12 and spent < 0.004
    assert "budget=0.004" in error and f"{spent:.6g} are spent" in error
    assert curate(server, *words) == 0
    assert len(server.prompts()) == len(set(server.prompts())) == 12
    assert report()["blend_captions/text_cached"] == len(asked)


def test_a_budget_without_a_price_is_told_before_anything_is_asked(server, capsys):
    assert curate(server, BLEND, "budget=5", "out=out") == 2
    assert "budget=5 needs the price of a model" in capsys.readouterr().err
    assert server.requests == []


def test_failures_at_the_start_end_the_run_and_three_are_shown(server, capsys):
    server.answer = lambda prompt: "Sure! Here is your caption."
    assert curate(server, BLEND, "max_failed=0.1", "out=out") == 86
    error = capsys.readouterr().err
    assert f"of {NUM_FIRST} allows" in error and "blend_captions/text: 6 of the first 6" in error
    assert error.count("it said 'Sure! Here is your caption.'") == 3
    assert curate(server, BLEND, "max_failed=1", "out=out") == 0
    assert report()["kept"] == 0 and len(failures()) == 12
    assert "the steps kept none of 12 records" in capsys.readouterr().err


HTML, CUT, DROP = Reply("<html>Bad gateway</html>"), Reply(chat_reply("x"), ending="cut"), Reply("", ending="drop")


def plan_for_third(server, replies):
    """Has these replies for the next requests of one record's question."""
    curate(server, BLEND, "text_lm.num_connections=1", "out=first", "step.blend_captions.cache_dir=first/answers")
    prompt = server.prompts()[2]
    server.requests.clear()
    server.plan = {prompt: list(replies)}
    return prompt


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ([HTML], "the reply is a web page, not a chat completion"),
        ([Reply("", ending="hang")] * 2, "no answer within 0.5 s"),
        ([CUT] * 2, "connection lost"),
        ([DROP] * 2, "connection lost"),
        ([Reply('{"error": "bad"}')], "malformed reply"),
        ([Reply("busy", 500)] * 2, "status 500: busy"),
        ([Reply(chat_reply("the end is miss", "length"))], "truncated at max_tokens"),
    ],
)
def test_a_reply_that_is_none_is_recorded_and_asked_for_again_in_the_next_run(server, replies, reason):
    """With one attempt more than bad replies the record would be whole: `num_attempts` is what a run grants."""
    plan_for_third(server, replies)
    settings = ["text_lm.num_attempts=2", "text_lm.timeout_s=0.5", "text_lm.num_connections=2"]
    assert curate(server, BLEND, *settings, "out=out") == 0
    (failure,) = failures()
    assert reason in failure["reason"] and failure["step"] == "blend_captions"
    kept = {record.key for record in read_manifest("out/train.jsonl")}
    assert len(kept) == 11 and failure["key"] not in kept
    server.requests.clear()
    assert curate(server, BLEND, *settings, "out=out") == 0
    assert failures() == [] and len(server.requests) == 1
    with open("out/train.jsonl") as one, open("first/train.jsonl") as other:
        assert one.read() == other.read()


@pytest.mark.parametrize(
    ("reply", "fix"),
    [
        (Reply(chat_reply('{"caption": "a cat"}', model="other")), "give the exact name of one as model"),
        (Reply("no such model", 404), "check url, model and api_key_variable"),
        (Reply("", 302, {"Location": "http://elsewhere/v1"}), "give that server's address as url"),
    ],
)
def test_a_server_that_is_another_one_stops_the_run_with_the_fix(server, capsys, reply, fix):
    plan_for_third(server, [reply])
    capsys.readouterr()
    assert curate(server, BLEND, "text_lm.num_connections=1", "out=out") == 2
    assert innermost() is None  # no progress line stays
    error = capsys.readouterr().err
    assert fix in error and error.splitlines()[-1].startswith("error: ")  # below progress, where it is slow
    asked = len(server.requests)
    assert curate(server, BLEND, "text_lm.num_connections=1", "out=out") == 0
    assert len(server.requests) - asked == 10  # the first two answers were kept


def photos(work, captions):
    """Records of three files, of which the second is no picture."""
    (work / "photos").mkdir()
    for name in ("a", "c"):
        Image.new("RGB", (4, 4), (9, 9, 9)).save(work / f"photos/{name}.png")
    (work / "photos/b.png").write_bytes(b"\x89PNG torn")
    rows = [{"image": f"{name}.png", "captions": captions} for name in "abc"]
    (work / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = [f"data.{split}.path=in.jsonl" for split in ("train", "val", "test")]
    return ["data=manifest", *paths, "data.train.root=photos"]


def ask_about(server, words, *more):
    models = [f"{group}.{key}" for group in ("text_lm", "vision_chat") for key in (f"url={server.url}", "model=tiny")]
    return main(["curate", *words, "text_lm=server", "vision_chat=server", *models, *more])


def test_one_unreadable_picture_is_a_failure_of_its_record(server, tmp_path):
    words = photos(tmp_path, ["a dog", "one dog"])
    assert ask_about(server, words, BOTH, "out=out") == 0
    (failure,) = failures()
    assert failure["key"] == "b.png" and failure["reason"].startswith("picture: ")
    assert [record.key for record in read_manifest("out/train.jsonl")] == ["a.png", "c.png"]


def test_an_empty_caption_is_not_asked_about(server, tmp_path):
    words = photos(tmp_path, ["", " "])
    assert ask_about(server, words, BLEND, "out=out") == 0
    assert {failure["reason"] for failure in failures()} == {"no caption, or only empty ones"}
    assert server.requests == []


def test_a_caption_of_ten_thousand_words_is_asked_about_and_refused_by_the_server_alone(server, tmp_path):
    """The model's context is the server's to know: it answers 400, which is told with its words and not repeated."""
    words = photos(tmp_path, ["word " * 10_000])
    server.answer = lambda prompt: Reply("maximum context length is 8192", 400) if len(prompt) > 40_000 else "short"
    assert ask_about(server, words, BLEND, "out=out") == 0
    assert {failure["reason"] for failure in failures()} == {"status 400: maximum context length is 8192"}
    assert len(server.requests) <= 3  # once for each record, or for all that are open at one time


def test_a_broken_row_of_a_table_is_a_failure_of_its_record(server, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    pictures = [file.getvalue(), b"torn", None]
    rows = [
        {
            "image": {"bytes": data, "path": f"{n}.png"},
            "caption": [f"dog {n}"],
            "split": "train",
            "filename": f"{n}.png",
        }
        for n, data in enumerate(pictures)
    ]
    (tmp_path / "tables").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "tables/train.parquet")
    assert (
        ask_about(
            server,
            ["data=parquet", "data.train.folder=tables", "data.train.val=0", "data.train.test=0"],
            BOTH,
            "out=out",
        )
        == 0
    )
    assert [record.key for record in read_manifest("out/train.jsonl")] == ["0"]
    assert [failure["key"] for failure in failures()] == ["1", "2"]
    assert all(failure["reason"].startswith("picture: ") for failure in failures())
