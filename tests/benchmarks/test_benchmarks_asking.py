"""benchmarks/asking.py measures what it says: every question is asked once, or none where all are kept."""

import pytest

from benchmarks import asking
from capkit.llm.chat_server import ChatServer
from capkit.testing.stand_in_server import StandInServer


def test_the_ways_of_asking_ask_every_question_once(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with StandInServer(asking.caption) as server:
        asking.loop(server.url, 5)
        assert server.prompts() == [f"picture {number}" for number in range(5)]
        server.requests.clear()
        asker = asking.through_asker(ChatServer(server.url, "tiny"), tmp_path, 20)
        assert sorted(server.prompts()) == sorted(f"picture {number}" for number in range(20))
    assert asker.counts == {"cached": 0, "asked": 20, "failed": 0, "refused": 0}


def test_kept_answers_are_read_and_nobody_is_asked(monkeypatch):
    """The server of this run is not there: a question that is not kept would end it."""
    monkeypatch.setattr(asking, "NUM_READ", 50)
    assert all(seconds > 0 for seconds in asking.kept(100))


@pytest.mark.integration
def test_all_steps_of_all_captions_are_asked_at_once_and_then_come_from_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    count = 120  # more than the steps before have open when the first caption is verified
    with StandInServer(asking.caption, delay_s=0.01, num_slots=asking.NUM_SLOTS) as server:
        _, counts = asking.judged(server.url, tmp_path, count)
        assert counts == {"asked": count * asking.QUESTIONS_EACH, "cached": 0}
        prompts = server.prompts()
        assert len(prompts) == count * asking.QUESTIONS_EACH and server.most_running > 1
        # Steps overlap: claims are still asked for when the first captions are verified.
        asked_for_claims = [place for place, prompt in enumerate(prompts) if "[text]" in prompt]
        assert min(place for place, prompt in enumerate(prompts) if "[reference]" in prompt) < max(asked_for_claims)
        _, counts = asking.judged(server.url, tmp_path, count)
    assert counts == {"asked": 0, "cached": count * asking.QUESTIONS_EACH} and len(server.prompts()) == len(prompts)
