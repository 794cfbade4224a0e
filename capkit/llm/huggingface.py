"""Local models of transformers: chat language models, with or without pictures."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from capkit.errors import UsageError
from capkit.llm.base import Answer, Question
from capkit.text.tokenizers import hub_reachable
from capkit.utils.ranges import NonNegativeFloat, PositiveInt, check_ranges
from capkit.utils.rng import stable_hash
from capkit.utils.tensors import default_device

_IMAGE = [{"type": "image"}]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def from_hub(factory: Any, name: str, revision: str | None, **settings: Any) -> Any:
    try:
        return factory.from_pretrained(name, revision=revision, local_files_only=not hub_reachable(), **settings)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"the model {name!r} could not be loaded: {str(error).splitlines()[0]}; give a folder, or a hub name "
            "(with network) of a kind that transformers knows"
        ) from error


def found_revision(name: str, revision: str | None) -> str:
    """The commit of a hub model, or a hash of a folder's files (about 1 GB/s)."""
    from_hub(AutoConfig, name, revision)
    if not Path(name).is_dir():
        cached = try_to_load_from_cache(name, "config.json", revision=revision)  # .../snapshots/COMMIT/config.json
        assert isinstance(cached, str), f"{name} was loaded without passing through the hub's cache"
        return Path(cached).parent.name
    state = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in Path(name).iterdir() if path.is_file()):
        state.update(path.name.encode())
        with path.open("rb") as file:
            state.update(hashlib.file_digest(file, "blake2b").digest())
    return state.hexdigest()


@functools.lru_cache(maxsize=2)
def _loaded(kind: str, name: str, revision: str | None, dtype: str) -> tuple[Any, Any]:
    """Load model and tokenizer (or processor), on a GPU if there is one; cached, so that steps share a model."""
    factory, reader_factory = {
        "text": (AutoModelForCausalLM, AutoTokenizer),
        "vision": (AutoModelForImageTextToText, AutoProcessor),
    }[kind]
    reader = from_hub(reader_factory, name, revision)
    tokenizer = getattr(reader, "tokenizer", reader)
    if getattr(reader, "chat_template", None) is None:
        raise UsageError(f"the model {name!r} has no chat template; use an instruction-tuned model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    model = from_hub(factory, name, revision, dtype=_DTYPES[dtype])
    return model.to(default_device()).eval(), reader


class _LocalModel:
    """Shared by both kinds of models: settings, decoding, answers without the prompt.

    At temperature 0 decoding is greedy; else answers are drawn by (samples, questions) of the batch.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        revision: str | None,
        dtype: str,
        max_tokens: int,
        batch_size: int,
        temperature: float = 0.0,
    ) -> None:
        if dtype not in _DTYPES:
            raise UsageError(f"dtype must be one of {', '.join(_DTYPES)}; got {dtype!r}")
        self.name, self.revision = name, found_revision(name, revision)
        self.max_tokens, self.batch_size, self.dtype = max_tokens, batch_size, dtype
        self.temperature = temperature
        self._load = functools.partial(_loaded, kind, name, revision, dtype)

    def about(self) -> dict[str, Any]:
        """Without a folder's path: the revision identifies its weights."""
        sampling = {"decoding": "sample", "temperature": self.temperature}
        decoding = sampling if self.temperature else {"decoding": "greedy"}
        settings = {**decoding, "max_tokens": self.max_tokens, "dtype": self.dtype}
        return {"backend": "transformers", "model": Path(self.name).name, "revision": self.revision, **settings}

    @torch.inference_mode()
    def run(self, questions: Sequence[Question], inputs_of: Callable[[Any, Sequence[Question]], Any]) -> list[Answer]:
        """Answer questions in batches of `batch_size`; `inputs_of` builds the model inputs of one."""
        model, reader = self._load()
        tokenizer = getattr(reader, "tokenizer", reader)
        answers: list[Answer] = []
        for start in range(0, len(questions), self.batch_size):
            batch = questions[start : start + self.batch_size]
            inputs = inputs_of(reader, batch).to(model.device)
            if "pixel_values" in inputs:
                inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
            output = self._generated(model, inputs, tokenizer.pad_token_id, [question.sample for question in batch])
            ends = _end_ids(model, tokenizer)
            for row in output[:, inputs["input_ids"].shape[1] :].tolist():
                answers.append(_until_end(row, ends, tokenizer))
        return answers

    def _generated(self, model: Any, inputs: Any, pad_token_id: int, samples: list[int]) -> torch.Tensor:
        options = {"max_new_tokens": self.max_tokens, "pad_token_id": pad_token_id}
        if not self.temperature:
            return model.generate(**inputs, do_sample=False, **options)
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(stable_hash("draw", samples, str(inputs["input_ids"].tolist())) % 2**63)
            return model.generate(**inputs, do_sample=True, temperature=self.temperature, top_k=0, **options)


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}


def _until_end(row: list[int], ends: set[int], tokenizer: Any) -> Answer:
    length = next((i for i, token in enumerate(row) if token in ends), None)
    if length is None:
        said = tokenizer.decode(row, skip_special_tokens=True)
        return Answer(None, f"the answer was truncated at max_tokens={len(row)}", said)
    return Answer(tokenizer.decode(row[:length], skip_special_tokens=True))


@check_ranges
class HFTextLM:
    """A chat language model by hub name or folder, decoded greedily and loaded at first use.

    Batches are padded: in 16-bit precision an answer may depend on the other prompts of its batch, unless
    `batch_size=1`.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        dtype: str = "float32",
        max_tokens: PositiveInt = 256,
        batch_size: PositiveInt = 8,
    ) -> None:
        self._model = _LocalModel("text", name, revision, dtype, max_tokens, batch_size)

    def about(self) -> dict[str, Any]:
        return self._model.about()

    takes_pictures = False

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        def inputs_of(tokenizer: Any, batch: Sequence[Question]) -> Any:
            chats = [[{"role": "user", "content": question.text}] for question in batch]
            return tokenizer.apply_chat_template(
                chats, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
            )

        return self._model.run(questions, inputs_of)


@check_ranges
class HFVisionChat:
    """An image-text-to-text model by hub name or folder, loaded at first use; greedy unless `temperature` is set.

    A sampled answer depends on the other questions of its batch, unless `batch_size=1`.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        dtype: str = "float32",
        max_tokens: PositiveInt = 256,
        batch_size: PositiveInt = 4,
        temperature: NonNegativeFloat = 0.0,
    ) -> None:
        self._model = _LocalModel("vision", name, revision, dtype, max_tokens, batch_size, temperature)

    takes_pictures = True

    @property
    def draws(self) -> bool:
        return self._model.temperature > 0

    def about(self) -> dict[str, Any]:
        return self._model.about()

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        def inputs_of(processor: Any, batch: Sequence[Question]) -> Any:
            chats = [
                [
                    {
                        "role": "user",
                        "content": [*_IMAGE * len(q.pictures), {"type": "text", "text": q.text}],
                    }
                ]
                for q in batch
            ]
            texts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
            images = [[picture.pixels for picture in question.pictures] for question in batch]
            return processor(text=texts, images=images, padding=True, return_tensors="pt")

        return self._model.run(questions, inputs_of)
