"""arena.html: ratings with intervals, scores, agreement with people, and battles as a judge saw them. Opens offline."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capkit.judges.pairwise import Decision, Judgement, Verdict
from capkit.metrics.arena.battles import Battle
from capkit.metrics.arena.standings import Standings
from capkit.reports.arena_tables import TextTable, agreement_table, auto_table, ratings_table
from capkit.reports.charts import interval_chart
from capkit.reports.page import chart_row
from capkit.reports.shell import page_html, thumbnail
from capkit.utils.files import write_atomically

NUM_BATTLES = 12
_STYLE = """
.battle { border: 1px solid var(--line); border-radius: .5rem; padding: .7rem; margin: .7rem 0 }
.battle { display: flex; gap: .8rem }
.battle img { width: 128px; height: 128px; object-fit: contain; background: var(--soft) }
.battle .texts { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; flex: 1; min-width: 0 }
.battle .texts > div { min-width: 0; overflow-wrap: anywhere }
@media (max-width: 600px) { .battle { display: block } }
.battle .said { grid-column: 1 / 3; color: var(--quiet); font-size: 13px }
td { white-space: nowrap } .won { background: var(--good-soft) } .flipped { color: var(--warn) }
.battle h3 { font-size: .9rem; margin: 0 0 .2rem } .battle .texts > div { padding: .3rem .5rem; border-radius: .3rem }
"""
_RATINGS = (
    "Davidson: maximum likelihood with a parameter for ties, on the scale of Elo, around 1,000. Its bars are 95 % "
    "intervals of resampled pictures, with all battles of a picture. Online Elo (K = 4, median over resamples) is how "
    "CapArena ranks; after few battles it is far from its limit, so that only its order counts."
)
_AUTO = "100 x (wins - losses) / judged against each baseline, and the mean; 0 against itself."
_AGREEMENT = (
    "Share of battles in which the verdict is that of people, with 95 % intervals of resampled pictures. With ties, a "
    "tie agrees with a tie only; without, battles count in which neither sees one. Models: correlation of ratings."
)


@dataclass(frozen=True)
class Rater:
    """Who judged: what follows from the verdicts, and counts of those asked for, failed, and flipped with the order."""

    standings: Standings
    counts: Mapping[str, float]


def write_arena(
    path: Path,
    title: str,
    raters: Mapping[str, Rater],
    battles: Sequence[tuple[Battle, Decision]],
    picture: Callable[[str], np.ndarray] | None = None,
) -> None:
    """Write the page; `battles` are those of the first rater."""
    body = "".join(_rater(name, rater) for name, rater in raters.items())
    agreement = agreement_table({name: rater.standings for name, rater in raters.items()})
    body += _section("Agreement with people", _AGREEMENT, agreement)
    shown = _chosen(battles)
    note = "Green: the caption that won. Words are counted between white space."
    cards = "".join(_battle(battle, said, picture) for battle, said in shown)
    body += f"<h2>Battles</h2><p class='note'>{note}</p>{cards}"
    write_atomically(path, page_html(f"{title}: arena", f"<p class='note'>{_RATINGS}</p>{body}", _STYLE))


def _chosen(battles: Sequence[tuple[Battle, Decision]]) -> list[tuple[Battle, Decision]]:
    """Those that turned with the order first, then those without a verdict, then others, spread over all."""
    ranked = sorted(battles, key=lambda row: (not row[1].has_flipped, row[1].verdict is not None))
    special = [row for row in ranked if row[1].has_flipped or row[1].verdict is None][: NUM_BATTLES // 2]
    others = [row for row in battles if not (row[1].has_flipped or row[1].verdict is None)]
    wanted = NUM_BATTLES - len(special)
    places = [number * len(others) // wanted for number in range(min(wanted, len(others)))]
    return special + [others[place] for place in places]


def _rater(name: str, rater: Rater) -> str:
    found = rater.standings
    told = [f"{rater.counts['asked']:,.0f} verdicts asked for, {rater.counts['failed']:,.0f} failed"]
    if "flipped" in rater.counts:
        told.append(f"{rater.counts['flipped']:.1%} of the readable ones turned with the order, and count as ties")
    if math.isfinite(found.longer_wins):
        told.append(f"the longer caption won {found.longer_wins:.1%} of battles with a winner and different lengths")
    if found.unbounded:
        told.append(f"{', '.join(found.unbounded)} won or lost all: the likelihood has no maximum, the prior decides")
    section = f"<h2>By {html.escape(name)}</h2><p class='note'>{html.escape('; '.join(told))}.</p>"
    chart = interval_chart(
        "Davidson's ratings", {r.player: (r.rating, *r.by_picture) for r in found.davidson}, "points, 95 % by picture"
    )
    return (
        section + chart_row([chart]) + table(*ratings_table(found)) + _section("Auto scores", _AUTO, auto_table(found))
    )


def _section(title: str, note: str, shown: TextTable | None) -> str:
    if shown is None:
        return ""
    return f"<h2>{title}</h2><p class='note'>{html.escape(note)}</p>{table(*shown)}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _battle(battle: Battle, said: Decision, picture: Callable[[str], np.ndarray] | None) -> str:
    shown = "" if picture is None else f"<img src='{thumbnail(picture(battle.picture))}' alt=''>"
    captions = "".join(
        f"<div{' class=won' if said.verdict == side else ''}><h3>{html.escape(player)}, {len(text.split())} words</h3>"
        f"{html.escape(text) or '<i>(empty)</i>'}</div>"
        for side, player, text in (("a", battle.a, battle.caption_a), ("b", battle.b, battle.caption_b))
    )
    if said.both is None:
        first = battle.b if said.is_turned else battle.a
        lines = [_said(battle, Judgement(said.verdict, said.reason), f"{first} stood first")]
    else:
        lines = [_said(battle, one, f"{name} first") for one, name in zip(said.both, (battle.a, battle.b), strict=True)]
    mark = "<b class='flipped'>The verdict turned with the order.</b> " if said.has_flipped else ""
    told = f"<div class='said'>{mark}{'<br>'.join(lines)}</div>"
    return f"<div class='battle'>{shown}<div class='texts'>{captions}{told}</div></div>"


def _said(battle: Battle, judgement: Judgement, order: str) -> str:
    reason = f": {judgement.reason}" if judgement.reason else ""
    return html.escape(f"{order}: {_winner(battle, judgement.verdict)}{reason}")


def _winner(battle: Battle, verdict: Verdict | None) -> str:
    return {"a": f"{battle.a} won", "b": f"{battle.b} won", "tie": "tie", None: "no verdict"}[verdict]
