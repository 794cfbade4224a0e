from dataclasses import dataclass, field

import pytest

from capkit.judges.pairwise import Judgement, Pair, decide, is_drawn_turned


@dataclass
class Likes:
    """Prefers the caption that it likes; without one that it likes, the first, or says nothing readable."""

    word: str = "cat"
    without: str | None = "a"
    seen: list[Pair] = field(default_factory=list)

    def judge(self, pairs):
        self.seen += pairs
        return [self._judgement(pair) for pair in pairs]

    def about(self):
        return {}

    def _judgement(self, pair):
        liked = [self.word in pair.a, self.word in pair.b]
        if liked == [False, False]:
            return Judgement(self.without, "neither")
        return Judgement("tie" if all(liked) else "a" if liked[0] else "b", "it says it")


def pairs(*texts):
    return [Pair(f"picture {n}", a, b) for n, (a, b) in enumerate(texts)]


def test_verdicts_are_in_the_pairs_terms_whichever_caption_stood_first():
    judge = Likes()
    found = decide(judge, pairs(*[("a cat", "a dog")] * 40), seed=0)
    assert {decision.verdict for decision in found} == {"a"}
    turned = [decision.is_turned for decision in found]
    assert 8 < sum(turned) < 32  # fair: 20 with a standard deviation of 3.2
    assert [pair.a == "a dog" for pair in judge.seen] == turned


def test_a_pairs_order_depends_on_seed_and_key_alone():
    many = pairs(*[("x", "y")] * 30)
    orders = {pair.key: decision.is_turned for pair, decision in zip(many, decide(Likes(), many, 1), strict=True)}
    some = many[::-3]
    assert [decision.is_turned for decision in decide(Likes(), some, 1)] == [orders[pair.key] for pair in some]
    assert orders == {pair.key: is_drawn_turned(1, pair.key) for pair in many}
    assert any(is_drawn_turned(2, key) != turned for key, turned in orders.items())


def test_both_orders_by_hand():
    """A judge without an opinion takes the first: its verdict turns, and is a tie. A tie both times has not turned."""
    judge = Likes()
    likes, tie, first = decide(
        judge, pairs(("a dog", "a cat"), ("a cat", "cats"), ("x", "y")), seed=0, both_orders=True
    )
    assert (likes.verdict, likes.has_flipped) == ("b", False)
    assert (tie.verdict, tie.has_flipped) == ("tie", False)
    assert (first.verdict, first.has_flipped) == ("tie", True)
    assert [said.verdict for said in first.both] == ["a", "b"]  # in terms of (x, y): y stood first the second time
    assert len(judge.seen) == 6 and judge.seen[3] == judge.seen[0].turned


@pytest.mark.parametrize("both_orders, failed", [(False, 1), (True, 2)])
def test_what_cannot_be_read_is_no_verdict_and_counted(both_orders, failed):
    (found,) = decide(Likes(without=None), pairs(("x", "y")), 0, both_orders)
    assert found.verdict is None and found.num_failed == failed and found.reason == "neither"
    assert not found.has_flipped
