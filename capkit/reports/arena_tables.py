"""Tables of an arena, for the console and the page: a head and rows of text."""

from collections.abc import Mapping
from typing import NamedTuple

from capkit.metrics.arena.standings import Standings

_LEFT_OUT = ("95 %, by battle", "online Elo", "95 % of Elo, by picture", "battles")


class TextTable(NamedTuple):
    head: tuple[str, ...]
    rows: list[list[str]]


def ratings_table(found: Standings, brief: bool = False) -> TextTable:
    """A row a player, best first; a star at those whose rating follows from the prior.

    `brief`: what fits into 80 columns.
    """
    elo = {rating.player: rating for rating in found.elo}
    rows = []
    for rating in found.davidson:
        row, online = found.players[rating.player], elo[rating.player]
        rows.append(
            {
                "player": rating.player + (" *" if rating.player in found.unbounded else ""),
                "Davidson": f"{rating.rating:,.0f}",
                "95 %, by battle": interval(rating.by_battle),
                "95 %, by picture": interval(rating.by_picture),
                "online Elo": f"{online.rating:,.1f}",
                "95 % of Elo, by picture": interval(online.by_picture),
                "battles": f"{row.battles:,}",
                "win rate": f"{row.win_rate:.3f}",
                "at equal length": f"{row.win_rate_equal_length:.3f}",
                "words": f"{row.length:.1f}",
            }
        )
    names = [name for name in rows[0] if not brief or name not in _LEFT_OUT]
    return TextTable(tuple(names), [[row[name] for name in names] for row in rows])


def interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:,.0f} to {ends[1]:,.0f}"


def auto_table(found: Standings) -> TextTable | None:
    """A row a model, best first: its score against each baseline and the mean. None without baselines."""
    if not found.auto:
        return None
    names = list(next(iter(found.auto.values())))
    ranked = sorted(found.auto.items(), key=lambda item: -item[1]["mean"])
    return TextTable(
        ("model", *names), [[model, *(f"{scores[name]:.2f}" for name in names)] for model, scores in ranked]
    )


def agreement_table(all_found: Mapping[str, Standings]) -> TextTable | None:
    """A column a judge: shares of battles with 95 % intervals, correlations of ratings. None without people."""
    found = {name: own.agreement for name, own in all_found.items() if own.agreement is not None}
    if not found:
        return None
    first = next(iter(found.values()))
    rows = [
        [
            kind,
            *(
                f"{a.captions[kind]:.3f} [{a.intervals[kind][0]:.3f}, {a.intervals[kind][1]:.3f}]"
                for a in found.values()
            ),
        ]
        for kind in first.captions
    ]
    rows += [[kind, *(f"{a.models[kind]:.3f}" for a in found.values())] for kind in first.models]
    rows.append(["battles", *(f"{a.battles:,}" for a in found.values())])
    return TextTable(("agreement with people", *found), rows)
