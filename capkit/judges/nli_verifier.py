"""Verifier: an inference model of transformers, that reads the text as premise and each claim as hypothesis."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from transformers import AutoConfig

from capkit.errors import UsageError
from capkit.judges.nli import NLIModel, inference_labels
from capkit.judges.verdicts import Case, Item, Verdict, Verdicts
from capkit.llm.huggingface import found_revision
from capkit.models.pretrained import load_pretrained
from capkit.utils.ranges import PositiveInt, check_ranges

_CASES = 16  # whose claims are put into batches together


@check_ranges
class NLIVerifier:
    """The probabilities of an inference model, by hub name or folder; its three labels are found by name.

    It is loaded when it first judges; its labels are looked for before.

    A pair of more than `max_length` tokens is cut at the end of the longer text, so that what a long text says last is
    not read.
    """

    by: Literal["text", "picture", "both"] = "text"
    num_samples = 1

    def __init__(
        self, name: str, max_length: PositiveInt = 512, batch_size: PositiveInt = 64, device: str = "cpu"
    ) -> None:
        config = load_pretrained(AutoConfig, name, "inference model")
        self._labels = inference_labels(config.id2label, name)
        self._name, self._max_length, self._batch_size, self._device = name, max_length, batch_size, device
        self._about = {
            "verifier": "nli", "model": name, "revision": found_revision(name, None), "max_length": max_length,
        }  # fmt: skip

    @cached_property
    def _model(self) -> NLIModel:
        return NLIModel(self._name, self._max_length, self._batch_size).to(self._device)

    def about(self) -> dict[str, Any]:
        return self._about

    def verify(self, cases: Iterable[tuple[Item, Case]]) -> Iterator[tuple[Item, list[Verdicts]]]:
        rest = iter(cases)
        while rows := list(islice(rest, _CASES)):
            premises, hypotheses = [], []
            for _, (claims, evidence) in rows:
                if evidence.text is None:
                    raise UsageError("verifier=nli reads a text, and there is none; choose a verifier that sees")
                premises += [evidence.text] * len(claims)
                hypotheses += [claim.text for claim in claims]
            table = iter(self._model.probabilities(premises, hypotheses)[:, list(self._labels)].tolist())
            for item, (claims, _) in rows:
                yield item, [[Verdict(*next(table)) for _ in claims]]
