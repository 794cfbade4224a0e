"""SmolLM2-135M behind llama.cpp's own server on this machine, of `pip install xllamacpp`: one thread, eight slots."""

import importlib.util
import math
import time

import pytest

from benchmarks.small_reader import cases
from capkit.assets.cache import location
from capkit.assets.catalogue import SMOLLM2
from capkit.judges.chat_verifier import ChatVerifier
from capkit.judges.claims import Claim, Failed
from capkit.judges.verdicts import Evidence, Verdict
from capkit.llm.asker import Asker
from capkit.llm.base import Question
from capkit.llm.chat_server import ChatServer
from capkit.llm.json_replies import JSONObject
from capkit.llm.replies import Text, WholeNumber
from capkit.readers.chat import ChatReader
from capkit.testing.engines import llama_cpp

FRANCE = "Which city is the capital of France?"
COLOUR = "Name a colour and an animal."
BIRDS = (
    "A dog runs after two birds. Which animal runs? How many birds are there? Answer with one JSON object: "
    '{"animal": "...", "number": ...}'
)

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not location("smollm2-135m").exists(), reason="wants the assets of data=stamps"),
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="wants pip install xllamacpp"),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")
        work = tmp_path_factory.mktemp("llama_cpp")
        SMOLLM2.unpack(work / "model", lambda _: None)
        with llama_cpp(work / "model" / SMOLLM2.main, work / "log.txt") as running:
            yield running


def client(engine, **settings):
    return ChatServer(f"{engine.url}/v1", "smollm2", **{"max_tokens": 40, **settings})


def test_it_answers_with_its_own_counts_of_tokens(engine):
    short, long = client(engine).ask([Question(FRANCE), Question(FRANCE, system="Answer in one short sentence.")])
    assert "Paris" in short.text and "Paris" in long.text
    # The template's own system message is longer than ours.
    assert short.tokens_in > long.tokens_in > 10 and 1 < short.tokens_out <= 40


def test_a_cut_off_answer_is_told(engine):
    (answer,) = client(engine, max_tokens=2).ask([Question(FRANCE)])
    assert answer.text is None and "max_tokens" in answer.failure and answer.tokens_out == 2


def test_a_question_longer_than_a_slot_is_a_failure_with_the_engines_words(engine):
    """Eight slots of 2,048 tokens: a question is not cut, and another one is answered."""
    long, short = client(engine).ask([Question("word " * 10_000), Question(FRANCE)])
    assert long.text is None and "status 400" in long.failure and "context" in long.failure
    assert "Paris" in short.text


def test_draws_follow_from_seed_and_sample(engine):
    def drawn(**settings):
        answers = client(engine, temperature=1.0, max_tokens=16, **settings).ask(questions)
        return [answer.text or answer.said for answer in answers]

    questions = [Question(COLOUR, sample=sample) for sample in range(6)]
    first = drawn(num_connections=1)
    assert first == drawn(num_connections=1) and len(set(first)) > 3
    assert not set(first) & set(drawn(num_connections=1, seed=1))
    # What else is in the batch changes the last digits, and so may change a word, rarely.
    assert sum(a == b for a, b in zip(first, drawn(num_connections=6), strict=True)) >= 5


def test_settings_of_sampling_are_heeded(engine):
    """Of its most likely token alone, the engine draws what it answers greedily; a penalty changes that."""
    greedy, narrow, penalised = (
        client(engine, **settings).ask([Question(FRANCE)])[0]
        for settings in ({}, {"temperature": 1.0, "top_p": 1e-6}, {"repetition_penalty": 1.8})
    )
    assert narrow.text == greedy.text and greedy.text != (penalised.text or penalised.said)


def test_structured_replies_are_the_json_that_was_asked_for(engine, tmp_path):
    """The control: without the schema the model talks about its JSON, and the reply is refused."""
    reply = JSONObject({"animal": Text(5), "number": WholeNumber(0, 20)})
    (free,) = Asker(client(engine, max_tokens=60), tmp_path / "free", reply).ask([Question(BIRDS)])
    (held,) = Asker(client(engine, max_tokens=60, structured=True), tmp_path / "held", reply).ask([Question(BIRDS)])
    assert free.text is None and "not one JSON object" in free.failure
    assert held.value.keys() == {"animal", "number"}


def test_a_verifier_held_to_its_schema_gets_a_verdict_on_each_claim(engine, tmp_path):
    """The control: without the schema the small model writes something else, and the case fails."""
    case = (
        [Claim("A dog runs."), Claim("There are two birds."), Claim("A cat sleeps.")],
        Evidence("A dog runs after two birds."),
    )

    def verdicts(**settings):
        model = client(engine, max_tokens=60, **settings)
        ((_, (found,)),) = ChatVerifier(model, cache_dir=str(tmp_path)).verify([(0, case)])
        return found

    held, free = verdicts(structured=True), verdicts()
    assert len(held) == 3 and all(isinstance(verdict, Verdict) for verdict in held)
    assert isinstance(free, Failed) and "unparsable" in free.reason


def test_a_reader_held_to_the_letters_reads_an_answer_to_every_question(engine, tmp_path):
    """The control: without the schema the small model writes the option's text behind its letter, and is refused."""
    captions, asked, _ = cases(12)

    def choices(**settings):
        reader = ChatReader(client(engine, max_tokens=4, **settings), cache_dir=str(tmp_path))
        return [reading.choice for (reading,) in reader.read(captions, [[question] for question in asked])]

    held = choices(structured=True)
    assert set(held) <= set(range(4)) and len(held) == 12
    assert None in choices()


def test_log_probabilities_of_the_first_token_come_with_the_answer(engine):
    (answer,) = client(engine, top_logprobs=5, max_tokens=8).ask([Question(FRANCE)])
    first = max(answer.first_logprobs, key=answer.first_logprobs.get)
    assert len(answer.first_logprobs) == 5 and (answer.text or answer.said).startswith(first.strip())
    assert 0.2 < sum(math.exp(value) for value in answer.first_logprobs.values()) <= 1 + 1e-6


def test_a_killed_engine_that_comes_back_goes_on(engine):
    """Killed while it answers: the question is asked again, over a new connection, once the model is loaded (503s)."""
    model = client(engine, num_attempts=40, first_wait_s=0.5, max_tokens=200)
    before = engine.log.read_text().count("processing task")
    future = model.open(Question("Tell a long story about a dog."))
    for _ in range(500):
        if engine.log.read_text().count("processing task") > before:
            break
        time.sleep(0.02)
    assert not future.done()
    engine.kill()
    engine.start()
    answer = future.result(120)
    assert (answer.text or answer.said) and answer.tokens_out > 20
