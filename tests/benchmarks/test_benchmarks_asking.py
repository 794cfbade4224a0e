"""benchmarks/asking.py measures what it says: every question is asked once, or none where all are kept."""

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
