"""Verifier: a chat model, with or without the picture, asked about all claims at once or about each by itself."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from capkit.errors import UsageError
from capkit.judges.claims import Failed, failed
from capkit.judges.verdicts import CONTRADICTED, ENTAILED, VERDICTS, Case, Evidence, Item, Verdict, Verdicts
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, ChatModel, Picture, Question
from capkit.llm.json_replies import Numbered
from capkit.llm.prompts import Prompt, numbered
from capkit.llm.replies import Choice, Reply
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

_LABELS = Choice(tuple(VERDICTS))
_TRUTH = Choice(("true", "false"))
_PROMPTS = {
    ("text", "list"): "entailment_list_v1",
    ("text", "single"): "entailment_v1",
    ("picture", "list"): "truth_list_v1",
    ("picture", "single"): "truth_v1",
    ("both", "list"): "truth_reference_list_v1",
    ("both", "single"): "truth_reference_v1",
}


@check_ranges
class ChatVerifier:
    """A chat model's verdicts: by a text entailed, contradicted or neutral; by a picture true or false.

    In the form "list" one question has all claims of a text, numbered, and its reply a verdict for each number and no
    other; in the form "single" each claim is a question. A verdict that is missing fails the whole case: the share of
    claims that are true is not known then. Probabilities are 0 and 1, or, of true and false in the form "single", those
    of the first token where the model gives them (`vision_chat.top_logprobs=5`).

    Args:
        model: A language model; one that sees, unless `by` is "text".
        by: What claims are judged by: a text, the picture, or both.
        prompt: With the fields $claims or $claim, and $reference where there is a text; null: the bundled one.
        num_samples: Verdicts on each case; more than 1 need a model that draws.
        retries, batch_size, cache_dir: of `Asker`.
    """

    def __init__(
        self,
        model: ChatModel | None = None,
        by: Literal["text", "picture", "both"] = "text",
        form: Literal["list", "single"] = "list",
        prompt: str | None = None,
        num_samples: PositiveInt = 1,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if model is None:
            kind = "language model; add text_lm" if by == "text" else "model that sees; add vision_chat"
            raise UsageError(f"a verifier by {by} needs a {kind}=hf, server or scene")
        if (by, form) not in _PROMPTS:
            raise UsageError(f"expected by=text, picture or both and form=list or single; got by={by}, form={form}")
        self.by, self.num_samples, self._form = by, num_samples, form
        fields = ["claims" if form == "list" else "claim", *([] if by == "picture" else ["reference"])]
        self._prompt = Prompt(prompt or _PROMPTS[by, form], fields)
        self._word = _LABELS if by == "text" else _TRUTH
        asker = Asker(model, cache_dir, self._word, retries, num_samples, batch_size, pictures=by != "text")
        self.askers: Mapping[str, Asker] = {"verify": asker}
        self._about = {
            "verifier": "chat", "model": model.about(), "by": by, "form": form, "num_samples": num_samples,
            "prompt": self._prompt.fingerprint_fields(), "retries": retries,
        }  # fmt: skip

    def about(self) -> dict[str, Any]:
        return self._about

    def verify(self, cases: Iterable[tuple[Item, Case]]) -> Iterator[tuple[Item, list[Verdicts]]]:
        def questions(row: tuple[Item, Case]) -> list[Question]:
            return list(self._questions(*row[1]))

        for (item, (claims, _)), answers in self.askers["verify"].stream(cases, questions):
            size = len(answers) // self.num_samples
            groups = [answers[start * size : (start + 1) * size] for start in range(self.num_samples)]
            yield item, [self._verdicts(group) if claims else [] for group in groups]

    def _questions(self, claims: Any, evidence: Evidence) -> Iterator[Question]:
        if not claims:
            return
        pictures = self._pictures(evidence)
        fields = {} if self.by == "picture" else {"reference": self._text(evidence)}
        texts = [claim.text for claim in claims]
        listed = [("claims", numbered(texts))] if self._form == "list" else [("claim", text) for text in texts]
        reply: Reply = Numbered(len(texts), self._word) if self._form == "list" else self._word
        for sample in range(self.num_samples):
            for name, value in listed:
                yield Question(self._prompt.fill(**fields, **{name: value}), pictures, sample=sample, reply=reply)

    def _pictures(self, evidence: Evidence) -> tuple[Picture, ...]:
        if self.by == "text":
            return ()
        if evidence.picture is None:
            raise UsageError(f"a verifier by {self.by} looks at pictures, and there are none; verify by text")
        return (evidence.picture(),)

    def _text(self, evidence: Evidence) -> str:
        if evidence.text is None:
            raise UsageError(f"a verifier by {self.by} reads a text, and there is none; verify by picture")
        return evidence.text

    def _verdicts(self, answers: list[Answer]) -> list[Verdict] | Failed:
        for answer in answers:
            if answer.text is None:
                return failed(answer, "verify")
        if self.by != "text" and self._form == "single":
            return [_probable(answer) for answer in answers]
        words = answers[0].value if self._form == "list" else [answer.value for answer in answers]
        if self.by == "text":
            return [VERDICTS[word] for word in words]
        return [ENTAILED if word == "true" else CONTRADICTED for word in words]


def _probable(answer: Answer) -> Verdict:
    """true or false with the probability that it had among the two as the first token, where that is known."""
    chances = {"true": 0.0, "false": 0.0}
    for token, logprob in (answer.first_logprobs or {}).items():
        word = token.strip().lower()
        if word in chances:
            chances[word] += math.exp(logprob)
    total = sum(chances.values())
    if not total:
        return ENTAILED if answer.value == "true" else CONTRADICTED
    return Verdict(chances["true"] / total, chances["false"] / total)
