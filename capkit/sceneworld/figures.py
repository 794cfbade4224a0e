"""Scenes as figures of a document, and the exact models that caption, judge and grade them (MLBCAP).

A figure's texts tell parts of its scene: the drawn word (`ocr`), the objects without their colours (`mention`), their
number and the background (`paragraph`). Generators know some of that, or see the picture, colours partly wrong; nobody
reads a drawn word off a picture. The judge sees the scene, and knows the drawn word from `ocr` alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.llm.base import Answer, Picture, Question
from capkit.sceneworld.chat.sections import sections
from capkit.sceneworld.experts import scene_in
from capkit.sceneworld.language.asking import seen
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.facts import scene_facts, text_fact
from capkit.sceneworld.language.merging import AmbiguousError, best_matches, union
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import Mention, ParsedCaption, parse
from capkit.sceneworld.language.plan import Detail
from capkit.sceneworld.language.writing import UnsayableError, write_facts
from capkit.sceneworld.world.options import COLORS
from capkit.sceneworld.world.scene import Scene, WorldOptions, make_scene, scene_hash
from capkit.utils.ranges import Probability, Seed, check_ranges
from capkit.utils.rng import generator, stable_hash, uniform

Source = Literal["picture", "ocr", "mention", "paragraph"]
_SOURCES: tuple[Source, ...] = ("picture", "ocr", "mention", "paragraph")
_MENTION = Detail(color=False, relations=1, text=False)
_PARAGRAPH = Detail(num_objects=1, color=False, size=False, inside=False, background=True, count=True, text=False)


class SceneDocuments:
    """A data step: records of SceneWorld with the texts of a scientific figure in their metadata."""

    scope = "record"

    def fingerprint_fields(self) -> dict[str, Any]:
        return {"revision": "1"}

    def __call__(self, records: Any) -> Iterator[Record]:
        for record in records():
            if "scene" not in record.metadata:
                raise UsageError("scene_documents needs SceneWorld's metadata 'scene'; use data=sceneworld")
            scene = Scene.from_dict(record.metadata["scene"])
            texts = {
                "figure_type": "scene",
                "categories": f"{len(scene.objects)} shapes",
                "ocr": scene.text.word if scene.text else "",
                "mention": caption(scene, "human", detail=_MENTION).text,
                "paragraph": caption(scene, "dense", detail=_PARAGRAPH).text,
            }
            yield replace(record, metadata={**record.metadata, **texts})


@check_ranges
class SceneWriter:
    """A generator that knows only some sources: it writes the facts of all that it `knows`, or noise if that is none.

    Of the picture it sees everything but the drawn word, and a share `wrong` of colours wrongly, drawn by (seed, scene,
    object). Noise is about another scene, drawn by (seed, prompt).
    """

    def __init__(self, knows: Sequence[Source] = (), wrong: Probability = 0.0, seed: Seed = 0) -> None:
        if unknown := set(knows) - set(_SOURCES):
            raise UsageError(f"knows lists some of {', '.join(_SOURCES)}; got {', '.join(sorted(unknown))}")
        self.knows, self.wrong, self.seed = sorted(set(knows)), wrong, seed
        self.takes_pictures = "picture" in self.knows

    def about(self) -> dict[str, Any]:
        decoding = {"knows": self.knows, "wrong": self.wrong, "seed": self.seed}
        return {"model": f"scene_writer({','.join(self.knows)})", "revision": "1", "decoding": decoding}

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Answer:
        given = sections(question.text)
        texts = [given[name] for name in ("mention", "paragraph") if name in self.knows and name in given]
        if self.takes_pictures:
            texts.append(caption(replace(self._seen(question.pictures[0]), text=None), "dense").text)
        if "ocr" in self.knows and (word := _word(given)):
            texts.append(write_facts(ParsedCaption(globals={text_fact(word)})))
        if not self.knows:
            place = stable_hash(self.seed, "noise", question.text) % 10_000
            texts.append(caption(make_scene(WorldOptions(), self.seed, "train", place), "dense").text)
        known = [facts for facts in map(parse, texts) if facts.facts]
        if not known:
            return Answer(None, "nothing is known about the figure")
        try:
            return Answer(texts[0] if len(texts) == 1 else write_facts(union(known)))
        except (AmbiguousError, UnsayableError) as problem:
            return Answer(None, str(problem))

    def _seen(self, picture: Picture) -> Scene:
        scene = scene_in(picture, "SceneWriter")
        draws = stable_hash(self.seed, "writer", scene_hash(scene)) + np.arange(len(scene.objects))
        objects = []
        for item, is_wrong, share in zip(scene.objects, uniform(draws, 0) < self.wrong, uniform(draws, 1), strict=True):
            others = [color for color in COLORS if color != item.color]
            objects.append(replace(item, color=others[int(share * len(others))]) if is_wrong else item)
        return replace(scene, objects=tuple(objects))


@check_ranges
class SceneJudge:
    """Picks, mends and grades captions of a scene, which it sees, and of its drawn word, which it has from [ocr].

    It picks the candidate with the best fact F1, of equal ones the first; with probability `first_bias`, drawn by
    (seed, prompt), the first whatever it says. Mended, a caption states of what it stated all that is true, with wrong
    attributes corrected, and the drawn word; relations go first where the words are too many, then the number of
    objects and the background, sizes, places, and the last objects. A grade is 6 for a caption without a wrong fact,
    and one less for each.
    """

    takes_pictures = True

    def __init__(self, first_bias: Probability = 0.0, seed: Seed = 0) -> None:
        self.first_bias, self.seed = first_bias, seed

    def about(self) -> dict[str, Any]:
        decoding = {"first_bias": self.first_bias, "seed": self.seed}
        return {"model": "scene_judge", "revision": "1", "decoding": decoding}

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Answer:
        given, scene = sections(question.text), scene_in(question.pictures[0], "SceneJudge")
        if "candidates" in given:
            return Answer(str(self._pick(question, given, scene)))
        if "candidate" in given:
            return self._mended(given, scene, most=int(question.text.partition("At most ")[2].split()[0]))
        if "figure_caption" in given:
            score = score_caption(scene, given["figure_caption"], [])
            return Answer(str(max(6 - (score.num_facts - score.num_correct), 1) if score.num_facts else 1))
        return Answer(None, "SceneJudge follows prompts with [candidates], [candidate] or [figure_caption]")

    def _pick(self, question: Question, given: dict[str, str], scene: Scene) -> int:
        if generator(self.seed, "first", question.text).random() < self.first_bias:
            return 1
        lines = [line.partition(". ")[2] for line in given["candidates"].splitlines()]
        known = scene if scene.text and scene.text.word == _word(given) else replace(scene, text=None)
        wanted = scene_facts(known)
        scores = [score_caption(known, line, wanted).f1 for line in lines]
        return scores.index(max(scores)) + 1

    def _mended(self, given: dict[str, str], scene: Scene, most: int) -> Answer:
        try:
            facts = corrected(parse(given["candidate"]), replace(scene, text=None))
        except AmbiguousError as problem:
            return Answer(None, str(problem))
        if scene.text and scene.text.word == _word(given):
            facts.globals.add(text_fact(scene.text.word))
        for shorter in shortened(facts):
            try:
                text = write_facts(shorter)
            except UnsayableError:
                continue
            if text and len(text.split()) <= most:
                return Answer(text)
        return Answer(None, f"nothing true is left to say in {most} words")


def corrected(said: ParsedCaption, scene: Scene) -> ParsedCaption:
    """What of a caption is true, with the scene's value for each attribute that it states of an object."""
    truth = seen(scene)
    match = best_matches(truth, said, may_contradict=True)[0]
    index: dict[int, int] = {}
    mentions: list[Mention] = []
    for place, (found, mention) in enumerate(zip(match, said.mentions, strict=True)):
        if found is not None:
            kinds = {kind for kind, _ in mention.attributes}
            there = truth.mentions[found]
            index[place] = len(mentions)
            shape = there.shape if mention.shape is not None else None
            mentions.append(Mention(shape, {item for item in there.attributes if item[0] in kinds}))
    relations = {
        (name, index[a], index[b])
        for name, a, b in said.relations
        if a in index and b in index and (name, match[a], match[b]) in truth.relations
    }
    return ParsedCaption(mentions, relations, said.globals & truth.globals)


def shortened(facts: ParsedCaption) -> Iterator[ParsedCaption]:
    """The caption, then ever shorter ones."""
    mentions = [Mention(item.shape, set(item.attributes)) for item in facts.mentions]
    words = {text for text in facts.globals if text.startswith("text=")}
    yield facts
    yield ParsedCaption(mentions, set(), facts.globals)
    yield ParsedCaption(mentions, set(), words)
    for kind in ("size", "place"):
        mentions = [Mention(m.shape, {item for item in m.attributes if item[0] != kind}) for m in mentions]
        yield ParsedCaption(mentions, set(), words)
    for count in range(len(mentions) - 1, 0, -1):
        yield ParsedCaption(mentions[:count], set(), words)


def _word(given: dict[str, str]) -> str:
    word = given.get("ocr", "")
    return "" if word == "(not known)" else word
