"""What follows from the verdicts of one judge on battles: ratings, win rates, Auto scores, agreement with people.

N battles.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from capkit.judges.pairwise import Verdict
from capkit.metrics.arena.agreement import caption_level, countable, model_level
from capkit.metrics.arena.auto_score import Tally, auto_scores, tallies
from capkit.metrics.arena.battles import Battle, results_of
from capkit.metrics.arena.ratings import Rating, davidson_ratings, elo_ratings, won_or_lost_all
from capkit.metrics.arena.win_rate import battles_of, longer_wins, num_words, win_rate_at_equal_length
from capkit.metrics.bootstrap import bootstrap_intervals


@dataclass(frozen=True)
class PlayerRow:
    """A player in all of its battles that have a verdict: how many, its share won (a tie is half), words a caption."""

    battles: int
    win_rate: float
    win_rate_equal_length: float
    length: float


@dataclass(frozen=True)
class Agreement:
    """With people: shares of battles with intervals over pictures, by name, and correlations of ratings."""

    battles: int
    captions: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    models: dict[str, float]


@dataclass(frozen=True)
class Standings:
    """All numbers of one judge. `unbounded` won or lost all, so that their ratings follow from the prior.

    `longer_wins`: share of battles that the longer caption won.
    """

    davidson: list[Rating]
    elo: list[Rating]
    unbounded: list[str]
    players: dict[str, PlayerRow]
    longer_wins: float
    auto: dict[str, dict[str, float]] = field(default_factory=dict)
    judged: dict[str, dict[str, Tally]] = field(default_factory=dict)
    agreement: Agreement | None = None

    def numbers(self) -> dict[str, float]:
        """As one flat table of names."""
        found = {"longer_wins": self.longer_wins}
        found |= {f"davidson/{rating.player}": rating.rating for rating in self.davidson}
        found |= {f"elo/{rating.player}": rating.rating for rating in self.elo}
        for name, row in self.players.items():
            found |= {f"win_rate/{name}": row.win_rate, f"win_rate_equal_length/{name}": row.win_rate_equal_length}
            found[f"length/{name}"] = row.length
        for model, scores in self.auto.items():
            found |= {f"auto/{model}/{name}": score for name, score in scores.items()}
        if self.agreement is not None:
            found |= {f"agreement/{name}": value for name, value in self.agreement.captions.items()}
            found |= {f"agreement/{name}": value for name, value in self.agreement.models.items()}
        return found


def standings(
    battles: Sequence[Battle],
    verdicts: Sequence[Verdict | None],
    ranking: Sequence[str] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Standings:
    """Numbers of the verdicts. With people's winners in the battles, agreement with them, or with their `ranking`."""
    results = results_of(battles, verdicts)
    davidson, elo = (rate(results, seed, num_resamples) for rate in (davidson_ratings, elo_ratings))
    judged = [battle.judged(verdict, battle.reason) for battle, verdict in zip(battles, verdicts, strict=True)]
    baselines = list(dict.fromkeys(battle.baseline for battle in battles if battle.baseline is not None))
    models = list(dict.fromkeys(_model(battle) for battle in battles if battle.baseline is not None))
    found = {model: tallies(judged, model, baselines) for model in models}
    return Standings(
        davidson,
        elo,
        won_or_lost_all(results),
        {name: _player(name, judged) for name in results.players},
        longer_wins(judged),
        {model: auto_scores(tally, model) for model, tally in found.items()},
        found,
        _agreement(battles, verdicts, davidson, elo, ranking, num_resamples, seed) if countable(battles) else None,
    )


def _model(battle: Battle) -> str:
    return battle.b if battle.a == battle.baseline else battle.a


def _player(name: str, judged: Sequence[Battle]) -> PlayerRow:
    score, difference = battles_of(name, judged)
    words = [num_words(battle.caption_a if battle.a == name else battle.caption_b)
             for battle in judged if name in (battle.a, battle.b)]  # fmt: skip
    return PlayerRow(
        len(score), float(score.mean()), win_rate_at_equal_length(score, difference), float(np.mean(words))
    )


def _agreement(
    battles: Sequence[Battle],
    verdicts: Sequence[Verdict | None],
    davidson: Sequence[Rating],
    elo: Sequence[Rating],
    ranking: Sequence[str] | None,
    num_resamples: int,
    seed: int,
) -> Agreement:
    images = caption_level(battles, verdicts)
    places = countable(battles)
    by_people = results_of([battles[place] for place in places], [battles[place].people for place in places])
    correlations: dict[str, float] = {}
    for name, own, rate in (("davidson", davidson, davidson_ratings), ("elo", elo, elo_ratings)):
        wanted: Sequence[Rating | str] = rate(by_people, seed, num_resamples) if ranking is None else ranking
        correlations |= {f"{kind}_{name}": value for kind, value in model_level(own, wanted).items()}
    return Agreement(
        sum(verdicts[place] is not None for place in places),
        {name: float(value[0]) for name, value in images.numbers(images.values.sum(0)[None]).items()},
        bootstrap_intervals(images, num_resamples=num_resamples, seed=seed),
        correlations,
    )
