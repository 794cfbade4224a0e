"""task=arena: battles of captions, judged or read, and what follows from them."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from capkit.config.instantiate import build, build_all, plain
from capkit.curation.folder import own_shard
from capkit.data.picture_folder import picture_reader
from capkit.data.prediction_files import read_captions as read_references
from capkit.errors import UsageError
from capkit.judges.pairwise import Decision, Judge, Pair, decide
from capkit.llm.accounts import open_accounts, show_cost
from capkit.llm.base import Picture
from capkit.llm.ledger import Ledger
from capkit.metrics.arena.agreement import countable
from capkit.metrics.arena.battles import HUMAN, Battle, require_one_scale, results_of
from capkit.metrics.arena.files import (
    auto_battles,
    is_auto,
    read_auto,
    read_battles,
    read_captions,
    write_battles,
)
from capkit.metrics.arena.metric_judge import (
    is_better_high,
    judgements,
    numbers_of_captions,
    require_numbers_of_captions,
    require_references,
)
from capkit.metrics.arena.standings import standings
from capkit.reports.arena import Rater, write_arena
from capkit.reports.arena_tables import TextTable, agreement_table, auto_table, ratings_table
from capkit.run.folder import RunFolder, default_run_dir
from capkit.utils.console import Screen, phase, say
from capkit.utils.files import write_json
from capkit.utils.process import set_up_process

JUDGE, FILE, PEOPLE = "judge", "file", "people"
MAX_FIRST_FAILED = 0.5  # of the first questions, as of other tasks: a model that cannot do it ends the run


def run(cfg: DictConfig) -> dict[str, float]:
    """Have `cfg.judge` and each number of `cfg.metric` judge the battles; else take the verdicts of the file.

    Writes metrics.json, arena.html, judges.json and, with a judge, battles.json as CapArena's programs read it. Where
    the file has people's winners, agreement with them is a table; battles with the human caption are left out then. Of
    `cfg.num_shards` processes each judges a share and gives no numbers: once all have, the same command without shards
    finds their answers kept. With `cfg.dry_run` the questions are counted and nothing is asked.
    """
    set_up_process(cfg.torch_threads)
    with phase("reading battles"):
        battles = _battles(cfg)
        # Before a model is loaded or a question is asked; ratings look again at the battles that have a verdict.
        require_one_scale(results_of(battles, ["tie"] * len(battles)))
        pairs = _pairs(cfg, battles)
    judge: Judge | None = None if cfg.get("judge") is None else build(cfg.judge)
    metrics = build_all(cfg.metric)
    for metric in metrics.values():
        require_numbers_of_captions(metric)
        require_references(metric, pairs)
    if judge is not None and hasattr(judge, "check"):
        judge.check(pairs)
    ledger = Ledger(cfg.budget, MAX_FIRST_FAILED, cfg.dry_run)
    accounts = open_accounts({"arena": judge}, ledger)
    shard, num_shards = own_shard(cfg.shard, cfg.num_shards)
    if cfg.dry_run or num_shards > 1:
        _require_asked(judge, accounts)
        decide(_given(judge), pairs[shard::num_shards], cfg.seed, cfg.both_orders)
        title = f"shard {shard} of {num_shards}, {len(pairs[shard::num_shards]):,} battles"
        counts = show_cost(
            {"arena": judge}, accounts, "task", title + (": nothing asked" if cfg.dry_run else ": asked")
        )
        return {name: float(count) for name, count in counts.items()}
    folder = RunFolder(cfg.run_dir or default_run_dir(f"{cfg.name}-arena"))
    folder.open(plain(cfg))
    decisions = _decisions(cfg, judge, metrics, battles, pairs)
    raters: dict[str, Rater] = {}
    numbers: dict[str, float] = {}
    for name, found in decisions.items():
        counts = _counts(found, cfg.both_orders and name == JUDGE)
        numbers |= {f"{name}/{what}": value for what, value in counts.items()}
        if _is_missing(name, counts, cfg.max_failed):
            continue
        with phase(f"rating by {name}"):
            of_judge = standings(battles, [said.verdict for said in found], cfg.ranking, cfg.num_resamples, cfg.seed)
        raters[name] = Rater(of_judge, counts)
        numbers |= {f"{name}/{what}": value for what, value in of_judge.numbers().items() if math.isfinite(value)}
    folder.write_metrics(numbers)
    if judge is not None:
        write_battles(folder.path / "battles.json", battles, decisions[JUDGE])
    abouts = ({} if judge is None else {JUDGE: judge.about()}) | {
        name: metric.provenance() for name, metric in metrics.items() if hasattr(metric, "provenance")
    }
    write_json(folder.path / "judges.json", abouts)
    shown = list(zip(battles, decisions.get(JUDGE, next(iter(decisions.values()))), strict=True))
    picture = None if cfg.images is None else picture_reader(cfg.images, [battle.picture for battle in battles])
    write_arena(folder.path / "arena.html", cfg.name, raters, shown, picture)
    _show(raters)
    say(f"wrote {folder.path / 'arena.html'}")
    return numbers


def _battles(cfg: DictConfig) -> list[Battle]:
    files = [cfg.battles] if isinstance(cfg.battles, str) else list(cfg.battles or ())
    captions = {name: read_captions(path) for name, path in cfg.players.items()}
    if not files:
        return _between(captions, _references(cfg))
    if len(files) == 1 and is_auto(files[0]):
        if not captions:
            raise UsageError(
                f"battles={files[0]} has the baselines' captions, and nobody to meet them; give players.NAME=FILE"
            )
        rivals = read_auto(files[0])
        return [battle for name, texts in captions.items() for battle in auto_battles(name, texts, rivals)]
    if captions:
        raise UsageError(
            f"battles={files[0]} lists battles with their captions, and players={', '.join(captions)} would not be in "
            "them; give one of battles and players, or the file of CapArena-Auto's baselines"
        )
    battles = [battle for path in files for battle in read_battles(path)]
    if any(battle.people is not None for battle in battles):  # as published
        battles = [battles[place] for place in countable(battles)]
        if not battles:
            raise UsageError(f"{files[0]}: expected battles between models, got none without {HUMAN!r}")
    return battles


def _references(cfg: DictConfig) -> dict[str, list[str]]:
    return {} if cfg.references is None else read_references(str(cfg.references), "references").captions


def _between(captions: Mapping[str, Mapping[str, str]], references: Mapping[str, Sequence[str]]) -> list[Battle]:
    """Everyone against everyone on every picture. Raises UsageError where the pictures do not meet."""
    if len(captions) < 2:
        raise UsageError(
            "arena needs battles=FILE, or two players and more, players.A=FILE players.B=FILE; got "
            f"{len(captions)} player(s)"
        )
    first = next(iter(captions))
    wanted = dict.fromkeys(references or captions[first])
    for name, texts in captions.items():
        absent, strange = [key for key in wanted if key not in texts], [key for key in texts if key not in wanted]
        if absent or strange:
            raise UsageError(
                f"players.{name}: expected a caption of each of {len(wanted)} pictures of "
                f"{'the references' if references else first}, got none of {len(absent)} "
                f"({', '.join(absent[:3]) or '-'}) and {len(strange)} of others "
                f"({', '.join(strange[:3]) or '-'}); give the same pictures to all"
            )
    return [
        Battle(
            picture, a, b, captions[a][picture], captions[b][picture], "\n".join(references.get(picture, ())) or None
        )
        for picture in wanted
        for a, b in itertools.combinations(captions, 2)
    ]


def _pairs(cfg: DictConfig, battles: Sequence[Battle]) -> list[Pair]:
    names = [battle.picture for battle in battles]
    read = None if cfg.images is None else picture_reader(cfg.images, names)
    return [
        Pair(
            battle.key,
            battle.caption_a,
            battle.caption_b,
            () if battle.reference is None else tuple(battle.reference.split("\n")),
            None if read is None else partial(_picture, read, battle.picture),
            {"key": battle.picture},
        )
        for battle in battles
    ]


def _picture(read: Callable[[str], Any], name: str) -> Picture:
    return Picture(read(name))


def _given(judge: Judge | None) -> Judge:
    if judge is None:
        raise UsageError("expected a judge whose model is asked, got none; add judge=vision or judge=language")
    return judge


def _require_asked(judge: Judge | None, accounts: Mapping[str, Any]) -> None:
    if not accounts:
        raise UsageError(
            "dry_run and shards are of judges whose models are asked, and "
            f"{'there is no judge' if judge is None else type(judge).__name__ + ' asks none'}; leave them out"
        )


def _decisions(
    cfg: DictConfig, judge: Judge | None, metrics: Mapping[str, Any], battles: Sequence[Battle], pairs: Sequence[Pair]
) -> dict[str, list[Decision]]:
    """Decisions on each battle by the name of who decides."""
    found: dict[str, list[Decision]] = {}
    if judge is not None:
        with phase("judging battles"):
            found[JUDGE] = decide(judge, pairs, cfg.seed, cfg.both_orders)
    for name, metric in metrics.items():
        with phase(f"scoring by {name}"):
            numbers = numbers_of_captions(metric, pairs)
        for number in numbers:
            verdicts = judgements(numbers, number, high=is_better_high(metric))
            found[number] = [Decision(said.verdict, said.reason, is_turned=False) for said in verdicts]
    if found:
        return found
    if any(battle.verdict is not None for battle in battles):
        found[FILE] = [Decision(battle.verdict, battle.reason, is_turned=False) for battle in battles]
    elif any(battle.people is not None for battle in battles):
        found[PEOPLE] = [Decision(battle.people, "", is_turned=False) for battle in battles]
    else:
        raise UsageError(
            "the battles have no verdicts; choose who decides: judge=vision, language, cider, scene, or metric=[..]"
        )
    return found


def _counts(decisions: Sequence[Decision], both_orders: bool) -> dict[str, float]:
    asked = len(decisions) * (1 + both_orders)
    counts = {"asked": float(asked), "failed": float(sum(said.num_failed for said in decisions))}
    if both_orders:
        readable = [said for said in decisions if said.verdict is not None]
        counts["flipped"] = sum(said.has_flipped for said in readable) / len(readable) if readable else math.nan
    return counts


def _is_missing(name: str, counts: Mapping[str, float], max_failed: float) -> bool:
    """Whether too many verdicts failed; says so."""
    if counts["failed"] <= max_failed * counts["asked"]:
        return False
    say(
        f"{name}: no numbers, since {counts['failed']:,.0f} of {counts['asked']:,.0f} verdicts cannot be read, more "
        f"than max_failed={max_failed:g} of them; choose another judge or prompt, or raise max_failed"
    )
    return True


def _show(raters: Mapping[str, Rater]) -> None:
    for name, rater in raters.items():
        _print(f"ratings by {name}", ratings_table(rater.standings, brief=True))
        if rater.standings.unbounded:
            say("* won or lost all: the likelihood has no maximum, and the prior decides")
        if math.isfinite(share := rater.standings.longer_wins):
            say(f"{name}: the longer caption won {share:.1%} of the battles with a winner")
        _print(f"Auto scores by {name}", auto_table(rater.standings))
    _print(None, agreement_table({name: rater.standings for name, rater in raters.items()}))


def _print(title: str | None, found: TextTable | None) -> None:
    if found is None:
        return
    table = Table(*found.head, title=title)
    for row in found.rows:
        table.add_row(*row)
    Screen().print(table)
