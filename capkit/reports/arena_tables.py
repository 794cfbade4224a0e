"""Tables of an arena, for the console and the page: a head and rows of text."""

from collections.abc import Mapping
from typing import NamedTuple

from capkit.metrics.arena.standings import Standings


class TextTable(NamedTuple):
    head: tuple[str, ...]
    rows: list[list[str]]


def ratings_table(found: Standings) -> TextTable:
    """A row a player, best first; a star at those whose rating follows from the prior."""
    elo = {rating.player: rating for rating in found.elo}
    head = ("player", "Davidson", "95 % by battle", "95 % by picture", "online Elo", "95 % by picture", "battles",
            "win rate", "at equal length", "words")  # fmt: skip
    rows = []
    for rating in found.davidson:
        row, online = found.players[rating.player], elo[rating.player]
        rows.append(
            [
                rating.player + (" *" if rating.player in found.unbounded else ""),
                *(f"{rating.rating:,.0f}", interval(rating.by_battle), interval(rating.by_picture)),
                *(f"{online.rating:,.1f}", interval(online.by_picture), f"{row.battles:,}"),
                *(f"{row.win_rate:.3f}", f"{row.win_rate_equal_length:.3f}", f"{row.length:.1f}"),
            ]
        )
    return TextTable(head, rows)


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
