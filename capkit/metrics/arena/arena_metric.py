"""metric=arena: captions in battles with those of baselines, as in CapArena-Auto (Cheng et al. 2025)."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.judges.pairwise import Decision, Judge, Pair, Verdict, decide
from capkit.llm.asker import Asker
from capkit.llm.base import Picture
from capkit.metrics.arena.auto_score import balance
from capkit.metrics.arena.battles import Battle
from capkit.metrics.arena.files import Rival, battle_of, read_auto, read_captions, row_of, write_battles
from capkit.metrics.arena.win_rate import battles_of, num_words, win_rate_at_equal_length
from capkit.metrics.embedding_metric import picture_of
from capkit.metrics.judged import MAX_FAILED, Columns, Judged, JudgedMetric, Shown, ratio
from capkit.utils.ranges import Probability, Seed, check_ranges
from capkit.utils.rng import stable_hash

_MARKS: dict[Verdict, Literal["right", "wrong", "open"]] = {"a": "right", "b": "wrong", "tie": "open"}


@check_ranges
class Arena(JudgedMetric):
    """Battles of each caption with those of baselines for the same picture, which a judge decides.

    - `arena`: mean over baselines of the score against each, `arena/BASELINE`: 100 x (wins - losses) / judged, from
      -100 to 100. Battles without a verdict that can be read are not judged. A model that is a baseline has 0 there.
    - `arena_length`: words of its captions. `arena_win_rate` and `arena_win_rate_equal_length`: over all battles, and
      what is left of it between captions of equal length.
    - `arena_flipped`: with `both_orders`, the share of judged battles whose verdict turned with the order: ties.

    Args:
        judge: A judge of pairs (configs/judge).
        baselines: CapArena-Auto's file caparena_auto_600.json, which has a baseline and a reference for each picture;
            or files of captions by the baselines' names, each of which meets every picture.
        model: The captioner's name in the battles.
        both_orders: Ask each battle in both orders; else in one drawn by (seed, picture, baseline).
    """

    needs_references = False

    def __init__(
        self,
        judge: Judge | None = None,
        baselines: str | Mapping[str, str] | None = None,
        model: str = "model",
        both_orders: bool = False,
        seed: Seed = 0,
        max_failed: Probability = MAX_FAILED,
    ) -> None:
        super().__init__("arena", max_failed)
        if judge is None:
            raise UsageError("metric arena needs a judge; add judge=vision, language, cider, similarity or scene")
        if not baselines:
            raise UsageError(
                "metric arena needs baselines: metric.arena.baselines=caparena_auto_600.json, or "
                "metric.arena.baselines.NAME=FILE of their captions, one or several"
            )
        object.__setattr__(self, "_judge", judge)  # past nn.Module's registration: it is no part of a checkpoint
        self._judge: Judge
        self._model, self._both_orders, self._seed = model, both_orders, seed
        self._auto = read_auto(baselines) if isinstance(baselines, str) else None
        self._files = {} if isinstance(baselines, str) else {n: read_captions(f) for n, f in baselines.items()}
        if model in self._files:
            raise UsageError(f"metric arena: a battle of {model!r} with itself; rename it or the baseline")
        rivals = self._auto or {}
        self._baselines = sorted(self._files) or list(dict.fromkeys(rival.baseline for rival in rivals.values()))
        self._names = _names(rivals)
        captions = {n: [rival.baseline, rival.caption, rival.reference] for n, rival in rivals.items()} or self._files
        self._hash = stable_hash(json.dumps(captions, sort_keys=True))

    @property
    def askers(self) -> Mapping[str, Asker]:
        return getattr(self._judge, "askers", {})

    def describe(self) -> dict[str, Any]:
        return {
            "judge": self._judge.about(),
            "baselines": self._baselines,
            "hash": f"{self._hash:016x}",
            "model": self._model,
            "order": "both" if self._both_orders else f"drawn by seed {self._seed}",
        }

    def complete(self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]) -> Columns:
        """All pictures, where those of the captions and of the baselines meet. Raises UsageError where they do not."""
        keys = [str(row["key"]) for row in metadata]
        if self._auto is not None:
            found = {self._names.get(key) for key in keys}
            strange = [key for key in keys if key not in self._names]
            absent = [name for name, r in self._auto.items() if name not in found and r.baseline != self._model]
        else:
            strange = [key for key in keys if any(key not in captions for captions in self._files.values())]
            absent = []
        if strange or absent:
            raise UsageError(
                f"metric arena: {len(strange)} of {len(keys)} pictures have no caption of a baseline "
                f"({', '.join(strange[:3]) or '-'}), and {len(absent)} of the baselines' have no caption of "
                f"{self._model} ({', '.join(absent[:3]) or '-'}); name pictures alike, and caption them all "
                "(eval_limit=N evaluates the first N)"
            )
        return predictions, references, metadata

    def judge_shares(self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]) -> None:
        """Every rank judges all pairs where a verdict may depend on the others, as that of CIDEr does."""
        if getattr(self._judge, "judges_together", False):
            self.judged(*self.complete(predictions, references, metadata))
        else:
            super().judge_shares(predictions, references, metadata)

    def judge(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> list[Judged]:
        battles = [self._battles(*row) for row in zip(predictions, references, metadata, strict=True)]
        pairs = [
            _pair(battle, row, texts)
            for own, row, texts in zip(battles, metadata, references, strict=True)
            for battle in own
        ]
        decisions = iter(decide(self._judge, pairs, self._seed, self._both_orders) if pairs else [])
        return [
            self._judged(caption, [(battle, next(decisions)) for battle in own])
            for caption, own in zip(predictions, battles, strict=True)
        ]

    def numbers(self, sums: Mapping[str, Float[np.ndarray, " R"]]) -> dict[str, Float[np.ndarray, " R"]]:
        nothing = np.zeros_like(sums["pictures"])
        scores = {
            f"arena/{name}": nothing
            if name == self._model
            else balance(*(sums.get(f"{what}/{name}", nothing) for what in ("wins", "losses", "judged")))
            for name in self._baselines
        }
        found = {"arena": sum(scores.values(), nothing) / len(scores), **scores}
        judged = sum((sums.get(f"judged/{name}", nothing) for name in self._baselines), nothing)
        wins, losses = (
            sum((sums.get(f"{what}/{name}", nothing) for name in self._baselines), nothing)
            for what in ("wins", "losses")
        )
        found["arena_win_rate"] = ratio(wins + (judged - wins - losses) / 2, judged)
        found["arena_length"] = ratio(sums["words"], sums["pictures"])
        return found | ({"arena_flipped": ratio(sums["flipped"], judged)} if self._both_orders else {})

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        numbers = super().score(predictions, references, metadata)
        if "arena" in numbers:
            rows = battles_of(self._model, self._all_battles((predictions, references, metadata)))
            numbers["arena_win_rate_equal_length"] = win_rate_at_equal_length(*rows)
        return numbers

    def shown(self, found: Judged) -> Shown | None:
        """Each battle with its reason, won, lost or tied; the score is that of the picture's battles."""
        battles = [battle_of(row, "a battle") for row in found.detail["battles"]]
        judged = [battle if battle.a == self._model else battle.turned for battle in battles if battle.verdict]
        if not judged:
            return None
        marks = [
            (f"against {battle.b}: {battle.reason or battle.verdict}", _MARKS[battle.verdict or "tie"])
            for battle in judged
        ]
        wins, losses = (sum(battle.verdict == side for battle in judged) for side in ("a", "b"))
        return Shown(100 * (wins - losses) / len(judged), marks)

    def write(self, folder: Path, rows: Columns) -> list[Path]:
        """Also `MODEL.json`, the battles as CapArena's programs read them."""
        path = folder / f"{self._model}.json"
        write_battles(path, self._all_battles(rows))
        return [*super().write(folder, rows), path]

    def _all_battles(self, rows: Columns) -> list[Battle]:
        judged = self.judged(*self.complete(*rows))
        return [battle_of(row, "a battle") for found in judged for row in found.detail["battles"]]

    def _battles(self, caption: str, references: Sequence[str], metadata: Mapping[str, Any]) -> list[Battle]:
        key = str(metadata["key"])
        if self._auto is not None:
            picture = self._names[key]
            rivals = [self._auto[picture]]
        else:
            picture, reference = key, references[0] if references else None
            rivals = [Rival(name, self._files[name][key], reference) for name in self._baselines]
        return [
            Battle(picture, self._model, rival.baseline, caption, rival.caption, rival.reference, rival.baseline)
            for rival in rivals
            if rival.baseline != self._model
        ]

    def _judged(self, caption: str, decided: Sequence[tuple[Battle, Decision]]) -> Judged:
        values: dict[str, float] = {"words": float(num_words(caption)), "flipped": 0.0}
        rows = []
        for battle, said in decided:
            own = {"a": "wins", "b": "losses"}.get(str(said.verdict))
            for what in ([own] if own else []) + (["judged"] if said.verdict else []):
                values[f"{what}/{battle.b}"] = values.get(f"{what}/{battle.b}", 0.0) + 1
            values["flipped"] += said.verdict is not None and said.has_flipped
            rows.append(row_of(battle, said))
        return Judged(
            values,
            num_asked=len(decided) * (1 + self._both_orders),
            num_failed=sum(said.num_failed for _, said in decided),
            detail={"battles": rows},
        )


def _names(rivals: Mapping[str, Rival]) -> dict[str, str]:
    """The pictures of a file by their names, and by these without the ending."""
    return {PurePosixPath(name).stem: name for name in rivals} | {name: name for name in rivals}


def _pair(battle: Battle, metadata: Mapping[str, Any], references: Sequence[str]) -> Pair:
    given = tuple(references) if battle.reference in references else (battle.reference,) if battle.reference else ()
    plain = {name: value for name, value in metadata.items() if name != "image"}
    picture = partial(_picture, metadata["image"], plain) if "image" in metadata else None
    return Pair(battle.key, battle.caption_a, battle.caption_b, given, picture, plain)


def _picture(image: Callable[[], Any] | Any, metadata: Mapping[str, Any]) -> Picture:
    return Picture(np.asarray(picture_of(image)), metadata)
