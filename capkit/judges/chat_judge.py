"""A chat model as the judge of two captions: one that sees the picture, or one that has the reference alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from capkit.errors import UsageError
from capkit.judges.pairwise import Judgement, Pair
from capkit.judges.verdict_reply import VerdictReply
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.prompts import Prompt
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

_NO_REFERENCE = "(none is given)"


@check_ranges
class ChatJudge:
    """Asks a model which of two captions is better, all pairs at once; answers are kept.

    A reply is a reason and one of the six verdicts of CapArena (`VerdictReply`); any other is no verdict, and its
    judgement says why.

    Args:
        model: A ChatModel.
        prompt: A prompt with the captions, $caption_1 and $caption_2, and the $reference.
        sees: Whether the model is shown the picture. One that is not judges by the reference, and needs one.
        retries, batch_size, cache_dir: of `Asker`.
    """

    def __init__(
        self,
        model: ChatModel | None = None,
        prompt: str = "arena_v1",
        sees: bool = True,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if model is None:
            kind = "a model that sees; add vision_chat" if sees else "a language model; add text_lm"
            raise UsageError(f"the judge needs {kind}=hf, server or scene")
        self._prompt = Prompt(prompt, ["caption_1", "caption_2", "reference"])
        self._sees, self._model, self._retries = sees, model, retries
        self._asker = Asker(model, cache_dir, VerdictReply(), retries, batch_size=batch_size, pictures=sees)

    @property
    def askers(self) -> Mapping[str, Asker]:
        return {"judge": self._asker}

    def about(self) -> dict[str, Any]:
        return {
            "judge": self._model.about(),
            "prompt": self._prompt.fingerprint_fields(),
            "sees": self._sees,
            "retries": self._retries,
        }

    def check(self, pairs: Sequence[Pair]) -> None:
        if self._sees and (blind := [pair.key for pair in pairs if pair.picture is None]):
            raise UsageError(
                f"a judge that sees needs the picture of each pair, got none of {len(blind)} of {len(pairs)}, such as "
                f"{blind[0]}; give images=FOLDER, or judge=language, which judges by the reference"
            )
        if not self._sees and (bare := [pair.key for pair in pairs if not pair.references]):
            raise UsageError(
                f"judge=language compares captions with a reference, got none for {len(bare)} of {len(pairs)} pairs, "
                f"such as {bare[0]}; give references, or judge=vision, which looks at the picture"
            )

    def judge(self, pairs: Sequence[Pair]) -> list[Judgement]:
        self.check(pairs)
        judgements = []
        for _, (answer,) in self._asker.stream(pairs, self._questions):
            judgements.append(Judgement(None, str(answer.failure)) if answer.text is None else answer.value)
        return judgements

    def _questions(self, pair: Pair) -> Iterator[Question]:
        reference = "\n".join(pair.references) or _NO_REFERENCE
        text = self._prompt.fill(caption_1=pair.a, caption_2=pair.b, reference=reference)
        yield Question(text, (pair.picture(),) if self._sees and pair.picture is not None else ())
