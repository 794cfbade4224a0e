"""ScaleCap: keep what the picture speaks for, ask about the objects in it, compose (Xing et al. 2025, 2506.19848).

A captioner writes on what it expects: the sky, so the sun. The description is rated by the captioner itself, with and
without the picture, and loses what the picture adds nothing to. What is left names the objects that are asked about, as
many as the budget allows. The paper's prompts are in its released program; ours are `scalecap_*` in
`capkit/llm/prompts`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from capkit.curation.base import Records
from capkit.curation.grounding import Grounding, ground
from capkit.curation.step_bases import AskingStep, PictureStep
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, ChatModel, Question
from capkit.llm.json_replies import JSONField
from capkit.llm.marked_replies import NumberedLines
from capkit.llm.prompts import Prompt, numbered
from capkit.llm.rated import RatedReply, can_rate
from capkit.llm.replies import Text
from capkit.text.tagging import Tagger
from capkit.utils.ranges import FiniteFloat, NonNegativeInt, PositiveInt, check_ranges

SCALECAP = "scalecap"
_MAX_OBJECT_WORDS = 20
_ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)
_NOTHING = "nothing"
_KINDS = ("details", "positions")
_COUNTED = (
    "vision_questions", "text_questions", "units", "units_dropped", "descriptions_kept_for_lack_of_any", "objects",
    "objects_asked",
)  # fmt: skip


@dataclass(frozen=True)
class _Case:
    """A record on its way: what is left of its description, the objects in it, what was said of them, and the caption.

    `said` has the answers, and later the text that they were collected in, by kind.
    """

    record: Record
    described: Grounding
    description: str
    objects: tuple[str, ...] = ()
    said: dict[str, list[str]] = field(default_factory=dict)


@check_ranges
class ScaleCaption(PictureStep, AskingStep):
    """Records with a new caption: a description, less what its picture does not speak for, more about what is left.

    1. `describer` describes the picture and rates its own words (`capkit/curation/grounding.py`): a sentence, or a
       clause of it at a comma, stays if one of its content words gains more than `tau` nats by the picture. If none
       stays, the description does.
    2. `text_lm` lists the objects of each sentence that stayed. Equal names are one object.
    3. `vision_chat` is asked twice about each of the first `num_objects`: for details, and for its position.
    4. `text_lm` collects the details, then the positions, and merges both into the sentences.

    For n objects, a budget of N and g sentences these are 1 + 2 min(N, n) questions to models that see and g + 3 to
    `text_lm`. Where nothing is asked about, what stayed of the description is the caption, and nothing is merged:
    `text_lm` gets no question for N = 0, and g for n = 0. `counts` counts all of them, kept answers included.

    The caption's source is "scalecap/<merge prompt>/<text_lm>/<describer>", or "scalecap/<describe prompt>/<describer>"
    where nothing was merged. In the metadata, `scalecap` has the description as it was, the ratings of its units and
    the objects that were asked about.

    A record is left out, and reported, if its picture cannot be read or its description, collecting or merging failed.
    A sentence whose objects, or an object whose answers are missing is reported, and the caption does without.

    Args:
        text_lm, vision_chat: Models.
        describer: A model that rates its own texts (`rates = True`): `RatedCaptioner` or `RatedHFChat`.
        tagger: Tells content words from function words.
        tau: In nats; null: minus infinity, everything stays.
        num_objects: The budget N; null: all.
        language: Of the description.
        max_description_words, max_answer_words, max_words: The longest description, answer (collected ones may be as
            long as a caption), and caption.
        keep: Whether the captions that were there stay before the new one.
        describe_retries, objects_retries, answer_retries, collect_retries, merge_retries, batch_size, cache_dir: of
            `Asker`.
    """

    name = "scale_caption"

    def __init__(
        self,
        text_lm: ChatModel | None = None,
        vision_chat: ChatModel | None = None,
        describer: ChatModel | None = None,
        tagger: Tagger | None = None,
        tau: FiniteFloat | None = 0.0,
        num_objects: NonNegativeInt | None = None,
        language: str = "en",
        max_description_words: PositiveInt = 800,
        max_answer_words: PositiveInt = 400,
        max_words: PositiveInt = 3000,
        describe_prompt: str = "scalecap_describe_v1",
        objects_prompt: str = "scalecap_objects_v1",
        details_prompt: str = "scalecap_details_v1",
        position_prompt: str = "scalecap_position_v1",
        collect_details_prompt: str = "scalecap_collect_details_v1",
        collect_positions_prompt: str = "scalecap_collect_positions_v1",
        merge_prompt: str = "scalecap_merge_v1",
        keep: bool = False,
        describe_retries: NonNegativeInt = 0,
        objects_retries: NonNegativeInt = 0,
        answer_retries: NonNegativeInt = 0,
        collect_retries: NonNegativeInt = 0,
        merge_retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if text_lm is None or vision_chat is None or describer is None or tagger is None:
            raise UsageError(
                "scale_caption needs a language model, a model that sees, one that describes and rates, and a tagger; "
                "add text_lm=... and vision_chat=..., each hf, server or scene, and step.scale_caption.describer and "
                "tagger as experiment=scalecap has them"
            )
        if not can_rate(describer):
            raise UsageError(
                f"scale_caption: describer: expected a model that rates its own words with and without the picture, "
                f"got {type(describer).__name__}, which does not tell log-probabilities; take "
                "capkit.train.rated_captioner.RatedCaptioner (ckpt=RUN) or capkit.llm.rated_huggingface.RatedHFChat"
            )
        tagger.tag(["a"], language)  # raises before anything is asked
        self._tagger, self._tau, self._language, self._keep = tagger, tau, language, keep
        self._num_objects = num_objects
        self._describe, self._objects = Prompt(describe_prompt, []), Prompt(objects_prompt, ["sentence"])
        look = (details_prompt, position_prompt)
        self._look = {kind: Prompt(p, ["object"]) for kind, p in zip(_KINDS, look, strict=True)}
        collect = (collect_details_prompt, collect_positions_prompt)
        self._collect = {kind: Prompt(p, ["sentences", "answers"]) for kind, p in zip(_KINDS, collect, strict=True)}
        self._merge = Prompt(merge_prompt, ["sentences", *_KINDS])
        names = NumberedLines(_MAX_OBJECT_WORDS, nothing="none")
        description, text = RatedReply(max_description_words), Text(max_words)
        merged = JSONField("caption", text)
        self.askers = {
            "describe": Asker(describer, cache_dir, description, describe_retries, 1, batch_size, pictures=True),
            "objects": Asker(text_lm, cache_dir, names, objects_retries, 1, batch_size, pictures=False),
            "look": Asker(vision_chat, cache_dir, Text(max_answer_words), answer_retries, 1, batch_size, pictures=True),
            "collect": Asker(text_lm, cache_dir, text, collect_retries, 1, batch_size, pictures=False),
            "merge": Asker(text_lm, cache_dir, merged, merge_retries, 1, batch_size, pictures=False),
        }
        prompts = [self._describe, self._objects, *self._look.values(), *self._collect.values(), self._merge]
        self._about = {
            "prompts": [prompt.fingerprint_fields() for prompt in prompts],
            "text_lm": text_lm.about(),
            "vision_chat": vision_chat.about(),
            "describer": describer.about(),
            "tagger": tagger.about() if hasattr(tagger, "about") else type(tagger).__name__,
            "tau": None if tau is None else float(tau),
            "num_objects": num_objects,
            "language": language,
            "max_words": [max_description_words, max_answer_words, max_words],
            "keep": keep,
            "retries": [describe_retries, objects_retries, answer_retries, collect_retries, merge_retries],
        }
        described = describer.about()["model"]
        self._sources = {
            False: f"{SCALECAP}/{self._describe.name}/{described}",
            True: f"{SCALECAP}/{self._merge.name}/{text_lm.about()['model']}/{described}",
        }
        self._numbers: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))

    def __call__(self, records: Records) -> Iterator[Record]:
        return self._merged(self._collected(self._looked(self._named(self._described(records())))))

    def _described(self, records: Iterable[Record]) -> Iterator[_Case]:
        def questions(record: Record) -> list[Question]:
            picture = self.picture(record)
            return self._asked("vision_questions", [] if picture is None else [(self._describe.fill(), picture)])

        for record, answers in self.askers["describe"].stream(records, questions):
            for rated in self._values(record, "description", answers):
                found = ground(rated, self._tagger, self._language, self._tau)
                self._numbers["units"] += len(found.ratings)
                self._numbers["units_dropped"] += found.num_dropped
                self._numbers["descriptions_kept_for_lack_of_any"] += found.is_fallback
                yield _Case(record, found, rated.text)

    def _named(self, cases: Iterable[_Case]) -> Iterator[_Case]:
        def questions(case: _Case) -> list[Question]:
            sentences = case.described.sentences if self._num_objects != 0 else ()
            return self._asked("text_questions", [(self._objects.fill(sentence=text), None) for text in sentences])

        for case, answers in self.askers["objects"].stream(cases, questions):
            names = [name for names in self._values(case.record, "objects", answers) for name in names]
            found = distinct_names(names)
            self._numbers["objects"] += len(found)
            yield replace(case, objects=tuple(found[: self._num_objects]))

    def _looked(self, cases: Iterable[_Case]) -> Iterator[_Case]:
        def questions(case: _Case) -> list[Question]:
            picture = self.picture(case.record) if case.objects else None
            texts = [prompt.fill(object=name) for name in case.objects for prompt in self._look.values()]
            return self._asked("vision_questions", [] if picture is None else [(text, picture) for text in texts])

        for case, answers in self.askers["look"].stream(cases, questions):
            said = {
                kind: self._values(case.record, kind, answers[place :: len(_KINDS)])
                for place, kind in enumerate(_KINDS)
            }
            self._numbers["objects_asked"] += len(case.objects)
            yield replace(case, said=said)

    def _collected(self, cases: Iterable[_Case]) -> Iterator[_Case]:
        def questions(case: _Case) -> list[Question]:
            sentences = " ".join(case.described.sentences)
            texts = [
                self._collect[kind].fill(sentences=sentences, answers=numbered(said))
                for kind, said in case.said.items()
                if said
            ]
            return self._asked("text_questions", [(text, None) for text in texts])

        for case, answers in self.askers["collect"].stream(cases, questions):
            texts = self._values(case.record, "collecting", answers)
            if len(texts) == len(answers):
                rest = iter(texts)
                yield replace(case, said={kind: [next(rest)] for kind, said in case.said.items() if said})

    def _merged(self, cases: Iterable[_Case]) -> Iterator[Record]:
        def questions(case: _Case) -> list[Question]:
            texts = {kind: case.said[kind][0] if kind in case.said else _NOTHING for kind in _KINDS}
            filled = self._merge.fill(sentences=" ".join(case.described.sentences), **texts)
            return self._asked("text_questions", [(filled, None)] if case.said else [])

        for case, answers in self.askers["merge"].stream(cases, questions):
            if not answers:
                yield self._record(case, case.described.text)
            for text in self._values(case.record, "merging", answers):
                yield self._record(case, text)

    def _record(self, case: _Case, text: str) -> Record:
        ratings = [[unit, None if rating is None else round(rating, 4)] for unit, rating in case.described.ratings]
        about = {"description": case.description, "ratings": ratings, "objects": list(case.objects)}
        kept = case.record.captions if self._keep else ()
        caption = Caption(text, self._sources[bool(case.said)], self._language)
        return replace(case.record, captions=[*kept, caption], metadata={**case.record.metadata, SCALECAP: about})

    def _asked(self, kind: str, questions: Sequence[tuple[str, Any]]) -> list[Question]:
        """Questions of texts and pictures, counted."""
        self._numbers[kind] += len(questions)
        return [Question(text, () if picture is None else (picture,)) for text, picture in questions]

    def _values(self, record: Record, what: str, answers: Sequence[Answer]) -> list[Any]:
        """What the answers say; failures are reported."""
        for answer in answers:
            if answer.text is None:
                self._fail(record, f"{what}: {answer.failure}", answer.said)
        return [answer.value for answer in answers if answer.text is not None]


def distinct_names(names: Iterable[str]) -> list[str]:
    """The names in order, without those that differ from an earlier one by an article, a capital or a full stop."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(_ARTICLE.sub("", name).rstrip(".").lower(), name)
    return list(found.values())
