import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.metrics.arena.battles import Battle, results_of
from capkit.metrics.arena.ratings import davidson_ratings, elo_ratings, resampled, tables, won_or_lost_all


def battle(picture, a, b, verdict):
    return Battle(str(picture), a, b, verdict=verdict)


def some(num=60):
    random = np.random.default_rng(0)
    pairs = [("p", "q"), ("q", "r"), ("r", "p")]
    return [battle(n // 3, *pairs[n % 3], random.choice(["a", "a", "b", "tie"])) for n in range(num)]


def test_tables_count_wins_and_ties_of_both_sides():
    results = results_of([battle(0, "p", "q", "a"), battle(1, "q", "p", "a"), battle(2, "p", "q", "tie")])
    wins, ties = tables(results, [np.arange(3), np.array([0, 0])])
    assert wins.tolist() == [[[0, 1], [1, 0]], [[0, 2], [0, 0]]]
    assert ties.tolist() == [[[0, 1], [1, 0]], [[0, 0], [0, 0]]]


def test_pictures_are_resampled_with_all_their_battles():
    results = results_of(some())
    for rows in resampled(results, "picture", 20, seed=1):
        counts = np.bincount(rows, minlength=60).reshape(20, 3)
        assert (counts == counts[:, :1]).all() and counts.sum() == 60


def test_a_strong_player_by_hand():
    """9 won, 1 lost: 400 / ln 10 x ln 9 = 381.7 points apart, around 1,000; the prior moves it by a point."""
    results = results_of([battle(n, "p", "q", "b" if n == 0 else "a") for n in range(10)])
    first, second = davidson_ratings(results, num_resamples=50)
    assert (first.player, second.player) == ("p", "q")
    assert first.rating - second.rating == pytest.approx(381.7, abs=4) and first.rating + second.rating == 2000
    assert first.by_battle[0] < first.rating < first.by_battle[1]


def test_ratings_do_not_depend_on_who_stands_first():
    turned = [battle(x.picture, x.b, x.a, {"a": "b", "b": "a"}.get(x.verdict, x.verdict)) for x in some()]
    own, other = (davidson_ratings(results_of(battles), num_resamples=30) for battles in (some(), turned))
    assert [r.player for r in own] == [r.player for r in other]
    assert [r.rating for r in own] == pytest.approx([r.rating for r in other])
    assert [r.by_picture for r in own] == [pytest.approx(r.by_picture) for r in other]


def test_intervals_by_picture_are_wider_where_a_picture_decides_its_battles():
    random = np.random.default_rng(3)
    battles = [battle(n, "p", "q", said) for n, said in enumerate(random.choice(["a", "b"], 40)) for _ in range(10)]
    (first, _) = davidson_ratings(results_of(battles), num_resamples=200)
    width = [high - low for low, high in (first.by_battle, first.by_picture)]
    assert width[1] > 2 * width[0]  # sqrt(10) times as wide
    (elo, _) = elo_ratings(results_of(battles), num_resamples=200)
    assert elo.by_picture[1] - elo.by_picture[0] > 1.2 * (elo.by_battle[1] - elo.by_battle[0])


def test_groups_without_a_battle_between_them_have_no_common_scale():
    apart = results_of([battle(0, "p", "q", "a"), battle(1, "r", "s", "a")])
    for rate in (davidson_ratings, elo_ratings):
        with pytest.raises(UsageError, match="got 2 groups without a battle between them: p, q; r, s"):
            rate(apart)


def test_players_without_a_finite_maximum_are_known():
    battles = [battle(0, "p", "q", "a"), battle(1, "q", "r", "tie"), battle(2, "p", "r", "a")]
    assert won_or_lost_all(results_of(battles)) == ["p"]


def test_no_verdict_at_all_and_a_battle_with_oneself_are_errors():
    with pytest.raises(UsageError, match="got none among 1; choose a judge"):
        results_of([battle(0, "p", "q", None)])
    with pytest.raises(UsageError, match="a battle of 'p' with itself"):
        battle(0, "p", "p", "a")
