"""SmolLM2-135M behind a real engine on this machine: `transformers serve`, of `pip install 'transformers[serving]'`."""

import importlib.util
import json

import pytest

from capkit.assets.cache import location
from capkit.llm.base import Question
from capkit.llm.chat_server import ChatServer
from capkit.testing.engines import transformers_serve

MODEL = location("smollm2-135m")
FRANCE = "What is the capital of France?"
ENGINE = ("fastapi", "uvicorn", "openai")

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not MODEL.exists(), reason="wants the assets of data=stamps"),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ENGINE), reason="wants transformers[serving]"
    ),
]


def sampling(folder):
    """The model with `do_sample` in its generation_config.json, without which this engine answers greedily."""
    folder.mkdir()
    for file in MODEL.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((MODEL / "generation_config.json").read_text()) | {"do_sample": True}
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")
        work = tmp_path_factory.mktemp("engine")
        model = sampling(work / "model")
        with transformers_serve(model, work / "log.txt") as running:
            yield running, str(model)


def client(engine, **settings):
    running, model = engine
    return ChatServer(f"{running.url}/v1", model, **{"max_tokens": 30, "num_connections": 2, **settings})


def test_it_answers_with_its_own_counts_of_tokens(engine):
    short, long = client(engine).ask([Question(FRANCE), Question(FRANCE, system="Answer in one short sentence.")])
    assert "Paris" in short.text and "Paris" in long.text
    assert short.tokens_in > 10 and long.tokens_in != short.tokens_in and 1 < short.tokens_out <= 30


def test_a_cut_off_answer_is_told(engine):
    (answer,) = client(engine, max_tokens=2).ask([Question(FRANCE)])
    assert answer.text is None and "max_tokens" in answer.failure and answer.tokens_out == 2


def test_draws_follow_from_seed_and_sample(engine):
    """One at a time: this engine's seed is that of its process."""
    questions = [Question("Name a colour and an animal.", sample=sample) for sample in range(4)]
    first, again = ([a.text for a in client(engine, temperature=1.0, num_connections=1).ask(questions)] for _ in "ab")
    other = [a.text for a in client(engine, temperature=1.0, seed=1, num_connections=1).ask(questions)]
    assert first == again and len(set(first)) > 1 and other != first


def test_a_setting_that_the_engine_refuses_is_told(engine):
    (answer,) = client(engine, repetition_penalty=1.1).ask([Question(FRANCE)])
    assert answer.text is None and "422" in answer.failure and "repetition_penalty" in answer.failure


def test_a_killed_engine_that_comes_back_goes_on(engine):
    model = client(engine, num_attempts=40, first_wait_s=2.0)
    engine[0].kill()
    future = model.open(Question(FRANCE))
    engine[0].start()
    assert "Paris" in future.result(300).text
