"""Agreement of verdicts with those of people, on battles and on models (Cheng et al. 2025, section 4).

N battles.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from capkit.errors import UsageError
from capkit.judges.pairwise import Verdict
from capkit.metrics.arena.battles import HUMAN, Battle
from capkit.metrics.arena.ratings import Rating
from capkit.metrics.bootstrap import ImageSums
from capkit.metrics.correlation import kendall, spearman

OVERALL = "overall"


def countable(battles: Sequence[Battle]) -> list[int]:
    """Places of the battles that agreement counts: people judged them, and neither caption is a person's."""
    return [
        place for place, battle in enumerate(battles) if battle.people is not None and HUMAN not in (battle.a, battle.b)
    ]


def caption_level(battles: Sequence[Battle], verdicts: Sequence[Verdict | None]) -> ImageSums:
    """Shares of battles in which a judge says what people say: `ties/...` and `no_ties/...`, overall and by level.

    With ties a tie agrees with a tie only. Without, battles count in which neither people nor judge see a tie. Battles
    with a caption of a person, and those without a verdict, are left out. Rows are pictures.
    """
    rows = {name: place for place, name in enumerate(dict.fromkeys(battle.picture for battle in battles))}
    levels = sorted({battle.level for battle in battles if battle.level is not None})
    names = [OVERALL, *(f"level_{level}" for level in levels)]
    values = np.zeros((len(rows), len(names), 2, 2))  # name, without ties, (agreed, counted)
    for place in countable(battles):
        battle, said = battles[place], verdicts[place]
        if said is None:
            continue
        own = [0] if battle.level is None else [0, 1 + levels.index(battle.level)]
        for without_ties in range(1 + ("tie" not in (said, battle.people))):
            for name in own:
                values[rows[battle.picture], name, without_ties] += (said == battle.people, 1)
    kinds = [f"{kind}/{name}" for name in names for kind in ("ties", "no_ties")]

    def numbers(sums: np.ndarray) -> dict[str, np.ndarray]:
        agreed, counted = sums[:, 0::2], sums[:, 1::2]
        shares = np.divide(agreed, counted, out=np.full(agreed.shape, np.nan), where=counted > 0)
        return dict(zip(kinds, shares.T, strict=True))

    return ImageSums(values.reshape(len(rows), -1), numbers)


def model_level(ratings: Sequence[Rating], people: Sequence[Rating | str]) -> dict[str, float]:
    """Spearman's and Kendall's (tau b) correlation of the models' ratings with those by people, or with their ranking.

    Over the models that both have, 2 at least.
    """
    found = {rating.player: rating.rating for rating in ratings}
    wanted = _by_player(people)
    shared = [name for name in wanted if name in found]
    if len(shared) < 2:
        raise UsageError(
            f"agreement on models needs two models or more that both people and the judge rate, got {len(shared)}: "
            f"people have {', '.join(list(wanted)[:3])} .., the judge {', '.join(list(found)[:3])} .."
        )
    pair = [wanted[name] for name in shared], [found[name] for name in shared]
    return {"spearman": spearman(*pair), "kendall": kendall(*pair)}


def _by_player(people: Sequence[Rating | str]) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for place, entry in enumerate(people):
        found |= {entry: -float(place)} if isinstance(entry, str) else {entry.player: entry.rating}
    return found
