"""Battles of captions, and their results as arrays.

N battles, P players.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from capkit.errors import UsageError
from capkit.judges.pairwise import Verdict, turned

HUMAN = "human"
SCORES: dict[Verdict, float] = {"a": 1.0, "tie": 0.5, "b": 0.0}


@dataclass(frozen=True)
class Battle:
    """Two players' captions of one picture, and who won.

    `verdict` is a judge's, None where there is none that can be read; `people` is that of annotators, and `level` how
    close the two players are (CapArena's cluster: 1 far, 4 close). `baseline` is the one of the two that others are
    compared with, in CapArena-Auto.
    """

    picture: str
    a: str
    b: str
    caption_a: str = ""
    caption_b: str = ""
    reference: str | None = None
    baseline: str | None = None
    verdict: Verdict | None = None
    reason: str = ""
    people: Verdict | None = None
    level: int | None = None
    in_400: bool | None = None

    @property
    def key(self) -> str:
        """The same whoever of the two stands first, and whichever other battles there are."""
        return " | ".join([self.picture, *sorted((self.a, self.b))])

    def judged(self, verdict: Verdict | None, reason: str = "") -> "Battle":
        return replace(self, verdict=verdict, reason=reason)

    @property
    def turned(self) -> "Battle":
        """The same battle with the players in the other order."""
        return replace(
            self, a=self.b, b=self.a, caption_a=self.caption_b, caption_b=self.caption_a,
            verdict=turned(self.verdict), people=turned(self.people),
        )  # fmt: skip

    def __post_init__(self) -> None:
        if self.a == self.b:
            raise UsageError(f"picture {self.picture}: a battle of {self.a!r} with itself; expected two players")


@dataclass(frozen=True)
class Results:
    """Battles that were decided: the players' places in `players`, the score of a (1 won, .5 tie, 0 lost), the picture.

    Pictures are numbered from 0.
    """

    players: tuple[str, ...]
    a: Int[np.ndarray, " N"]
    b: Int[np.ndarray, " N"]
    score: Float[np.ndarray, " N"]
    picture: Int[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.score)


def results_of(battles: Iterable[Battle], verdicts: Sequence[Verdict | None] | None = None) -> Results:
    """Results of the battles that have a verdict, in order; `verdicts` replaces those of the battles.

    Raises UsageError without any.
    """
    listed = list(battles)
    given = [battle.verdict for battle in listed] if verdicts is None else verdicts
    decided = [(battle, said) for battle, said in zip(listed, given, strict=True) if said is not None]
    if not decided:
        raise UsageError(f"expected battles with a verdict, got none among {len(listed)}; choose a judge")
    players = sorted({name for battle, _ in decided for name in (battle.a, battle.b)})
    pictures = {name: place for place, name in enumerate(dict.fromkeys(battle.picture for battle, _ in decided))}
    place = {name: number for number, name in enumerate(players)}
    return Results(
        tuple(players),
        np.array([place[battle.a] for battle, _ in decided]),
        np.array([place[battle.b] for battle, _ in decided]),
        np.array([SCORES[said] for _, said in decided]),
        np.array([pictures[battle.picture] for battle, _ in decided]),
    )


def groups(results: Results) -> list[list[str]]:
    """Players that are joined by battles, directly or through others; ratings compare within a group only."""
    owner = list(range(len(results.players)))

    def root(player: int) -> int:
        while owner[player] != player:
            player = owner[player]
        return player

    for a, b in {*zip(results.a.tolist(), results.b.tolist(), strict=True)}:
        owner[root(a)] = root(b)
    found: dict[int, list[str]] = {}
    for player, name in enumerate(results.players):
        found.setdefault(root(player), []).append(name)
    return sorted(found.values(), key=lambda names: (-len(names), names))


def require_one_scale(results: Results) -> None:
    """Raises UsageError if no battle joins two groups of players, whose ratings have no common scale."""
    parts = groups(results)
    if len(parts) > 1:
        listed = "; ".join(", ".join(names[:3]) + (" ..." if len(names) > 3 else "") for names in parts[:3])
        raise UsageError(
            f"ratings need players that are joined by battles, got {len(parts)} groups without a battle between them: "
            f"{listed}; their ratings have no common scale: rate each group alone, or add battles between them"
        )
