"""Readers by causal language models of transformers: probabilities of letters, or of the options' texts."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from capkit.errors import UsageError, check_choice
from capkit.llm.base import Answer
from capkit.llm.cache import AnswerStore
from capkit.llm.huggingface import DTYPES, found_revision, from_hub, kind_of, loaded
from capkit.llm.prompts import Prompt
from capkit.readers.base import LETTERS, SYSTEM, ChoiceQuestion, Reading, check_choices, lettered
from capkit.readers.shared_reading import batches_of_last_logits, last_logits
from capkit.utils.ranges import PositiveInt, check_ranges
from capkit.utils.store import digest

PROMPTS = {"letter": "read_letter_v1", "cloze": "read_cloze_v1"}
_FIELDS = {"letter": ["caption", "question", "options"], "cloze": ["caption", "question"]}


@check_ranges
class HFReader:
    """A causal language model by hub name or folder, loaded when it first reads. Nothing is generated.

    `form="letter"`: the options stand in the prompt, and the letters' log-probabilities at the first new token are
    compared. `form="cloze"`: the options do not stand in the prompt; compared is the mean log-probability, over its
    tokens, of each option's text as the answer. `probabilities` are the softmax of what is compared, so that those of
    the cloze are none of whole texts. A number has to be quoted with its form: small models know options better by
    their texts than by letters.

    What the questions of a text share (instruction, text) is run once (`shared_reading.py`). Readings are kept in
    `cache_dir`, as answers of a ChatModel are. A prompt that is longer than the model has positions for is a failure.

    Args:
        name: Hub name, or a folder.
        form: "letter" or "cloze".
        prompt: A prompt with $caption and $question, of "letter" also $options; None: "read_letter_v1"
            (in the order of CaptionQA's program) or "read_cloze_v1".
        system: Of "letter", before the prompt, as a system message where the tokenizer has a chat template; None: one
            that asks for a letter.
        chat: Whether the prompt goes through the chat template; None: if there is one.
        batch_size: Texts, and then questions, at a time.
    """

    def __init__(
        self,
        name: str,
        form: Literal["letter", "cloze"] = "cloze",
        prompt: str | None = None,
        system: str | None = None,
        chat: bool | None = None,
        revision: str | None = None,
        dtype: str = "float32",
        batch_size: PositiveInt = 16,
        cache_dir: str = "data/answers",
    ) -> None:
        check_choice("dtype", dtype, DTYPES)
        self.form, self.prompt = form, Prompt(prompt or PROMPTS[form], _FIELDS[form])
        self.system = system if system is not None or form == "cloze" else SYSTEM
        self.name, self.revision, self.dtype = name, found_revision(name, revision), dtype
        config = from_hub(AutoConfig, name, revision)
        kind = kind_of(config)
        if kind != "causal":
            raise UsageError(
                f"reader=hf needs a causal language model, whose next tokens it compares; {name!r} is {kind}; give "
                "another, or ask it by reader=server"
            )
        self.tokenizer = from_hub(AutoTokenizer, name, revision)
        has_template = getattr(self.tokenizer, "chat_template", None) is not None
        if chat and not has_template:
            raise UsageError(f"chat=true needs a chat template, which {name!r} has not; leave chat out")
        self.chat, self.batch_size = has_template if chat is None else chat, batch_size
        self.max_tokens = getattr(config, "max_position_embeddings", None)
        self._model = partial(loaded, kind, name, revision, dtype)
        self._store = AnswerStore(cache_dir, self.about())
        if form == "letter":
            _ = self._letters  # letters of several tokens are told before anything is read

    def about(self) -> dict[str, Any]:
        prompts = {"prompt": self.prompt.fingerprint_fields(), "system": self.system, "chat": self.chat}
        model = {"model": Path(self.name).name, "revision": self.revision, "dtype": self.dtype}
        return {"reader": "hf", "form": self.form, **model, **prompts}

    def read(self, texts: Sequence[str], questions: Sequence[Sequence[ChoiceQuestion]]) -> list[list[Reading]]:
        found: dict[tuple[int, int], Reading] = {}
        wanted: dict[str, list[tuple[int, int]]] = {}
        for row, (text, asked) in enumerate(zip(texts, questions, strict=True)):
            for number, question in enumerate(asked):
                check_choices(question.choices, f"question {question.text!r}")
                wanted.setdefault(self._key(text, question), []).append((row, number))
        for key, places in wanted.items():
            if (kept := self._store.get(key)) is not None and kept.text is not None:
                found |= dict.fromkeys(places, _reading(json.loads(kept.text)))
        missing: dict[int, list[tuple[str, int]]] = {}
        for key, places in wanted.items():
            if places[0] not in found:
                missing.setdefault(places[0][0], []).append((key, places[0][1]))
        for key, scores in self._scores(texts, questions, missing):
            found |= dict.fromkeys(wanted[key], _reading(scores))
            if isinstance(scores, list):
                self._store.add(key, Answer(json.dumps(scores)))
        self._store.flush()
        return [[found[row, number] for number in range(len(asked))] for row, asked in enumerate(questions)]

    def _key(self, text: str, question: ChoiceQuestion) -> str:
        return digest(*(part.encode() for part in ("read", text, question.text, *question.choices))).hex()

    def _scores(
        self,
        texts: Sequence[str],
        questions: Sequence[Sequence[ChoiceQuestion]],
        missing: dict[int, list[tuple[str, int]]],
    ) -> Iterator[tuple[str, list[float] | str]]:
        """Keys, and the log-probability of each choice, or the reason why there is none."""
        asked = [(row, key, questions[row][number]) for row, keyed in missing.items() for key, number in keyed]
        prompts = iter(self._prompts([(texts[row], question) for row, _, question in asked]))
        groups, num_last, members = [], [], []
        for keyed in missing.values():
            group: list[list[int]] = []
            kept: list[int] = []
            of_group: list[tuple[str, int]] = []  # key, number of its choice
            for key, _ in keyed:
                tokenized = next(prompts)
                longest = max(len(tokens) for tokens, _ in tokenized)
                if self.max_tokens is not None and longest > self.max_tokens:
                    yield key, f"the prompt has {longest} tokens, more than the model's {self.max_tokens}"
                    continue
                for choice, (tokens, num) in enumerate(tokenized):
                    group.append(tokens)
                    kept.append(num)
                    of_group.append((key, choice))
            groups.append(group)
            num_last.append(kept)
            members.append(of_group)
        counts = {key: len(question.choices) for _, key, question in asked}
        if not any(groups):
            return
        if self.form == "letter":
            for places, batch in batches_of_last_logits(self._model(), groups, num_last, self.batch_size):
                letters = torch.tensor(self._letters, device=batch.device)
                found = batch[:, -1].log_softmax(-1)[:, letters].tolist()  # of a batch at once: a GPU is waited for
                for (row, member), scores in zip(places, found, strict=True):
                    key, _ = members[row][member]
                    yield key, scores[: counts[key]]
            return
        parts: dict[str, dict[int, float]] = {}
        for row, member, logits in last_logits(self._model(), groups, num_last, self.batch_size):
            key, choice = members[row][member]
            option = groups[row][member][-(num_last[row][member] - 1) :]
            parts.setdefault(key, {})[choice] = mean_logprob(logits[:-1], option)
            if len(parts[key]) == counts[key]:
                scores = parts.pop(key)
                yield key, [scores[place] for place in range(counts[key])]

    def _prompts(self, asked: Sequence[tuple[str, ChoiceQuestion]]) -> list[list[tuple[list[int], int]]]:
        """The prompts of each text's question, and at how many last tokens of each the logits are wanted."""
        written = [self._written_for(text, question) for text, question in asked]
        tokens = iter(self._ids([prompt for prompts in written for prompt in prompts]) if written else ())
        found = []
        for prompts in written:
            first, *others = [next(tokens) for _ in prompts]
            found.append([(row, _num_behind(first, row)) for row in others] if others else [(first, 1)])
        return found

    def _written_for(self, text: str, question: ChoiceQuestion) -> list[str]:
        """The prompt; in the form cloze what stands before the options, and that with each option behind it."""
        if self.form == "letter":
            return [self._written(caption=text, question=question.text, options=lettered(question.choices))]
        stem = self._written(caption=text, question=question.text)
        return [stem, *(stem + self._space + choice for choice in question.choices)]

    def _written(self, **values: str) -> str:
        text = self.prompt.fill(**values)
        if not self.chat:
            return f"{self.system}\n\n{text}" if self.system else text
        chat = [{"role": "system", "content": self.system}] if self.system else []
        chat.append({"role": "user", "content": text})
        return self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        """With the special tokens that the model expects, which a chat template writes itself."""
        found: list[list[int]] = self.tokenizer(texts, add_special_tokens=not self.chat)["input_ids"]
        return found

    @property
    def _space(self) -> str:
        return "" if self.chat else " "

    @cached_property
    def _letters(self) -> list[int]:
        """The token of each letter behind the prompt."""
        written = self._written(caption="a", question="b", options="A. c")
        before, *behind = self._ids([written, *(written + self._space + letter for letter in LETTERS)])
        found = []
        for letter, tokens in zip(LETTERS, behind, strict=True):
            if tokens[: len(before)] != before or len(tokens) != len(before) + 1:
                raise UsageError(
                    f"form=letter needs a tokenizer with one token for each letter behind the prompt; that of "
                    f"{self.name!r} has {len(tokens) - len(before)} for {letter!r}; use form=cloze"
                )
            found.append(tokens[-1])
        return found


def _num_behind(stem: list[int], tokens: list[int]) -> int:
    """How many of the tokens stand behind those that they have in common with the stem, and the one before them."""
    same = next((at for at, (a, b) in enumerate(zip(stem, tokens, strict=False)) if a != b), len(stem))
    return len(tokens) - same + 1


def mean_logprob(logits: Float[Tensor, "n V"], tokens: Sequence[int]) -> float:
    """Mean log-probability in nats of tokens by the logits before each."""
    wanted = torch.tensor(tokens, device=logits.device)[:, None]
    return float(logits.log_softmax(-1).gather(1, wanted).mean())


def _reading(scores: list[float] | str) -> Reading:
    """The first of the best choices."""
    if isinstance(scores, str):
        return Reading(None, failure=scores)
    probabilities = torch.tensor(scores, dtype=torch.float64).softmax(0).tolist()
    return Reading(max(range(len(scores)), key=lambda place: (scores[place], -place)), tuple(probabilities))
