"""Files of CapArena and CapArena-Auto (https://github.com/njucckevin/CapArena): battles, baselines, results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from capkit.errors import UsageError
from capkit.judges.pairwise import Decision, Verdict
from capkit.judges.verdict_reply import STRINGS, WRITTEN
from capkit.metrics.arena.battles import HUMAN, Battle
from capkit.utils.files import write_json
from capkit.utils.text_files import expect, member, read_json, shown

_LEVEL = "level "
_BATTLES = 'a list of {"img", "source1", "source2", "caption1", "caption2", "ref"}'
_AUTO = '{picture: {"captions": {"human": .., MODEL: ..}, "ref_model": MODEL}}'


@dataclass(frozen=True)
class Rival:
    """What a picture's caption meets in CapArena-Auto: the baseline's name and caption, and the human reference."""

    baseline: str
    caption: str
    reference: str | None


def read_battles(path: str | Path) -> list[Battle]:
    """A list of battles; "judge", "judge_reason", "winner", "cluster" and "in-400" are read where they stand.

    A "judge" that is none of the six strings is no verdict; "winner" names one of the two sources, or else a tie.
    """
    rows = read_json(path, f"battles, {_BATTLES}")
    expect(rows, "a list", str(path))
    battles = [battle_of(row, f"{path} entry {place}") for place, row in enumerate(rows)]
    if not battles:
        raise UsageError(f"{path}: expected {_BATTLES}, got an empty list")
    return battles


def write_battles(path: Path, battles: Sequence[Battle], decisions: Sequence[Decision] | None = None) -> None:
    """The list as CapArena's programs read it, of what a judge decided if that is given, else of the battles' verdicts.

    A battle without a verdict has no "judge", which they leave out.
    """
    said: Sequence[Decision | None] = [None] * len(battles) if decisions is None else decisions
    rows = [row_of(*pair) for pair in zip(battles, said, strict=True)]
    write_json(path, rows, ensure_ascii=False)


def is_auto(path: str | Path) -> bool:
    """Whether a file is CapArena-Auto's, with baselines by picture, and no list of battles."""
    return isinstance(read_json(path, f"battles, {_BATTLES}, or {_AUTO}"), dict)


def read_auto(path: str | Path) -> dict[str, Rival]:
    """caparena_auto_600.json: each picture's rival. Raises UsageError for other files, and for an absent reference."""
    found = expect(read_json(path, f"CapArena-Auto, {_AUTO}"), "an object", str(path))
    rivals = {}
    for picture, value in found.items():
        where = f"{path}, {picture}"
        row = expect(value, "an object", where)
        captions, baseline = member(row, "captions", "an object", where), member(row, "ref_model", "text", where)
        if baseline not in captions or HUMAN not in captions:
            raise UsageError(
                f"{where}: expected the captions of {HUMAN!r} and of ref_model={baseline!r}, got those of "
                f"{', '.join(map(repr, captions)) or 'nobody'}; correct the file"
            )
        rivals[str(picture)] = Rival(
            baseline, expect(captions[baseline], "text", where, baseline), expect(captions[HUMAN], "text", where, HUMAN)
        )
    if not rivals:
        raise UsageError(f"{path}: expected {_AUTO}, got no picture")
    return rivals


def read_captions(path: str | Path) -> dict[str, str]:
    """{picture: caption}, as CapArena-Auto has it; or COCO's results, which evaluate writes. One caption a picture."""
    found = read_json(path, 'captions, {picture: caption} or [{"image_id": .., "caption": ..}]')
    if isinstance(found, dict):
        return {str(name): expect(text, "text", f"{path}, {name}") for name, text in found.items()}
    captions: dict[str, str] = {}
    for place, value in enumerate(expect(found, "a list", str(path))):
        where = f"{path} entry {place}"
        row = expect(value, "an object", where)
        name = str(expect(row.get("image_id"), "text or a whole number", where, "image_id"))
        if name in captions:
            raise UsageError(f"{path}: expected one caption a picture, got several of {name}; keep one")
        captions[name] = member(row, "caption", "text", where)
    return captions


def auto_battles(model: str, captions: Mapping[str, str], rivals: Mapping[str, Rival]) -> list[Battle]:
    """A battle for each picture whose baseline is not the model itself.

    Raises UsageError where the pictures do not meet, naming some: a picture without a caption would shrink the score.
    """
    wanted = [picture for picture, rival in rivals.items() if rival.baseline != model]
    absent = [picture for picture in wanted if picture not in captions]
    strange = [picture for picture in captions if picture not in rivals]
    if absent or strange:
        raise UsageError(
            f"expected {model}'s captions of the {len(wanted)} pictures of its battles, got none of {len(absent)} "
            f"({', '.join(absent[:3]) or '-'}) and captions of {len(strange)} others ({', '.join(strange[:3]) or '-'})"
            "; name pictures as the file of baselines does, and give '' for an empty caption"
        )
    return [
        Battle(
            picture, model, rivals[picture].baseline, captions[picture], rivals[picture].caption,
            rivals[picture].reference, rivals[picture].baseline,
        )
        for picture in wanted
    ]  # fmt: skip


def battle_of(value: Any, where: str) -> Battle:
    row = expect(value, "an object", where)
    texts = {name: member(row, name, "text", where) for name in ("img", "source1", "source2", "caption1", "caption2")}
    optional = {name: expect(row[name], "text", where, name) for name in ("ref", "ref_model", "judge_reason", "winner")
                if row.get(name) is not None}  # fmt: skip
    in_400 = row.get("in-400")
    if not isinstance(in_400, bool | None):
        raise UsageError(f"{where}: expected in-400 to be true or false, got {shown(in_400)}")
    return Battle(
        picture=texts["img"],
        a=texts["source1"],
        b=texts["source2"],
        caption_a=texts["caption1"],
        caption_b=texts["caption2"],
        reference=optional.get("ref"),
        baseline=optional.get("ref_model"),
        verdict=STRINGS.get(row["judge"]) if isinstance(row.get("judge"), str) else None,
        reason=optional.get("judge_reason", ""),
        people=_people(optional.get("winner"), texts["source1"], texts["source2"]),
        level=_level(row["cluster"], where) if "cluster" in row else None,
        in_400=in_400,
    )


def _people(winner: str | None, a: str, b: str) -> Verdict | None:
    if winner is None:
        return None
    return "a" if winner == a else "b" if winner == b else "tie"


def _level(cluster: Any, where: str) -> int:
    digits = cluster.removeprefix(_LEVEL) if isinstance(cluster, str) else ""
    if not digits.isdecimal():
        raise UsageError(f'{where}: expected "cluster" to be "level 1" to "level 4", got {shown(cluster)}')
    return int(digits)


def row_of(battle: Battle, said: Decision | None = None) -> dict[str, Any]:
    """The battle as a row of the list; with what a judge `said`, in the order in which it saw the captions."""
    battle = battle if said is None else _seen(battle, said)
    row: dict[str, Any] = {
        "img": battle.picture,
        "source1": battle.a,
        "source2": battle.b,
        "caption1": battle.caption_a,
        "caption2": battle.caption_b,
        "ref": battle.reference,
        "ref_model": battle.baseline,
    }
    if battle.people is not None:
        row["winner"] = {"a": battle.a, "b": battle.b, "tie": "tie"}[battle.people]
    if battle.level is not None:
        row["cluster"] = f"{_LEVEL}{battle.level}"
    if battle.in_400 is not None:
        row["in-400"] = battle.in_400
    if battle.verdict is not None:
        row |= {"judge": WRITTEN[battle.verdict], "judge_reason": battle.reason}
    if said is not None and said.both is not None:
        row["both_orders"] = [
            {"judge": found.verdict and WRITTEN[found.verdict], "judge_reason": found.reason} for found in said.both
        ]
    return {name: value for name, value in row.items() if value is not None}


def _seen(battle: Battle, said: Decision) -> Battle:
    """The battle with a decision, its players in the order in which the judge saw them."""
    decided = replace(battle, verdict=said.verdict, reason=said.reason)
    return decided.turned if said.is_turned else decided
