"""Local models of transformers: chat language models, with or without pictures, and sequence-to-sequence models."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from jinja2 import TemplateError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoProcessor,
    AutoTokenizer,
    LogitsProcessorList,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from capkit.errors import UsageError, check_choice
from capkit.llm.base import Answer, Question
from capkit.llm.cache import question_key
from capkit.llm.choosing import KeyedDraw, RepetitionPenalty
from capkit.llm.cost import TOKENS_OF_TEMPLATE
from capkit.text.tokenizers import hub_reachable
from capkit.utils.ranges import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PositiveProbability,
    Seed,
    check_ranges,
)
from capkit.utils.renamed import moved_names
from capkit.utils.rng import stable_hash
from capkit.utils.tensors import default_device

__getattr__ = moved_names(__name__)  # HFChat was HFTextLM and HFVisionChat

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FACTORIES = {
    "causal": (AutoModelForCausalLM, AutoTokenizer),
    "seq2seq": (AutoModelForSeq2SeqLM, AutoTokenizer),
    "image_text": (AutoModelForImageTextToText, AutoProcessor),
}
_IMAGE = {"type": "image"}
# Of models that name no limit, such as T5, whose positions are relative: attention takes memory by the square of it.
_MOST_TOKENS = 4096


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


def token_counter(tokenizer: str) -> Callable[[Question], int]:
    """Counts a question's tokens by a tokenizer (hub name or folder), and 16 for a template: of a model elsewhere."""
    count = from_hub(AutoTokenizer, tokenizer, None)
    return lambda question: len(count(question.text, add_special_tokens=False)["input_ids"]) + TOKENS_OF_TEMPLATE


def kind_of(config: Any) -> str:
    """Of a model's config: "image_text", "seq2seq", "causal", or "encoder", such as BERT, which writes nothing.

    transformers loads an encoder as a causal model too, with attention to both sides and a head of random weights.
    """
    if config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return "image_text"
    if config.is_encoder_decoder:
        return "seq2seq"
    is_decoder = getattr(config, "is_decoder", False)
    return "encoder" if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not is_decoder else "causal"


@functools.cache
def _reader(kind: str, name: str, revision: str | None, chat: bool = True) -> Any:
    """The tokenizer or processor. Raises UsageError for a chat model without a chat template."""
    reader = from_hub(_FACTORIES[kind][1], name, revision)
    if chat and kind != "seq2seq" and getattr(reader, "chat_template", None) is None:
        raise UsageError(
            f"the model {name!r} has no chat template; use an instruction-tuned model, or one with an encoder and a "
            "decoder, such as T5, which needs none; chat=false for a model that was trained on plain prompts"
        )
    tokenizer = getattr(reader, "tokenizer", reader)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right" if kind == "seq2seq" else "left"
    return reader


@functools.cache
def loaded(kind: str, name: str, revision: str | None, dtype: str) -> Any:
    """Load a model, on a GPU if there is one; kept, so that steps share it and several take turns."""
    model = from_hub(_FACTORIES[kind][0], name, revision, dtype=DTYPES[dtype])
    model.generation_config.forced_eos_token_id = None  # of BART and Pegasus: a cut answer would look like a whole one
    return model.to(default_device()).eval()


@check_ranges
class HFChat:
    """A model by hub name or folder, loaded when it is first asked: a chat model, one with pictures, or an
    encoder-decoder, which reads the system message and the question as they are.

    At temperature 0 decoding is greedy, or beam search; else each token is drawn by (seed, question, sample,
    position) and nothing else. Questions of like length share a batch, and padding changes no score but for rounding:
    in float32 answers do not depend on the batch, in 16 bits they may, unless `batch_size=1`.

    Args:
        name: Hub name, or a folder.
        revision: Of a hub model.
        dtype: "float32", "bfloat16" or "float16".
        max_tokens: Longest answer; one that does not end there is a failure.
        batch_size: Questions at a time.
        temperature: Of sampling; 0 is greedy.
        top_p: Sample from the smallest set of tokens with at least this probability mass; 1 disables it.
        seed: Of sampling.
        repetition_penalty: Divides scores of tokens that occur in the question or the answer (of an encoder-decoder in
            the answer alone); None: as the model's own generation config says.
        num_beams: Beams at temperature 0.
        max_question_tokens: A longer question is a failure; None: what the model has positions for.
        chat: Whether a causal model reads questions by its chat template; false: as they are, with the special tokens
            that its tokenizer adds, as a model wants them that was trained on plain prompts.
    """

    kinds: tuple[str, ...] = tuple(_FACTORIES)

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        dtype: str = "float32",
        max_tokens: PositiveInt = 256,
        batch_size: PositiveInt = 8,
        temperature: NonNegativeFloat = 0.0,
        top_p: PositiveProbability = 1.0,
        seed: Seed = 0,
        repetition_penalty: PositiveFloat | None = None,
        num_beams: PositiveInt = 1,
        max_question_tokens: PositiveInt | None = None,
        chat: bool = True,
    ) -> None:
        check_choice("dtype", dtype, DTYPES)
        if temperature and num_beams > 1:
            raise UsageError(f"beam search draws nothing: expected num_beams=1, or temperature=0; got {num_beams=}")
        if not temperature and top_p < 1:
            raise UsageError(f"top_p={top_p} needs sampling: set temperature, such as 0.7, or top_p=1")
        self.name, self.revision, self.dtype = name, found_revision(name, revision), dtype
        self.max_tokens, self.batch_size, self.num_beams = max_tokens, batch_size, num_beams
        self.temperature, self.top_p, self.seed = float(temperature), float(top_p), seed
        self.repetition_penalty = repetition_penalty
        config = from_hub(AutoConfig, name, revision)
        self.kind, self.chat = kind_of(config), chat
        if self.kind not in self.kinds:
            raise UsageError(
                f"{type(self).__name__}: expected a model of kind {' or '.join(self.kinds)}, got {name!r} of kind "
                f"{self.kind}; choose another model"
            )
        if not chat and self.kind != "causal":
            raise UsageError(
                f"chat=false is for causal language models of plain prompts; {name!r} is {self.kind}; leave it out"
            )
        self.max_question_tokens = max_question_tokens or self._positions(config)
        self._reader = functools.partial(_reader, self.kind, name, revision, chat)
        self._model = functools.partial(loaded, self.kind, name, revision, dtype)
        self._reader()  # a chat template that is missing is told before anything is asked

    @property
    def takes_pictures(self) -> bool | None:
        """Whoever sees can be asked without a picture too."""
        return None if self.kind == "image_text" else False

    @property
    def draws(self) -> bool:
        return self.temperature > 0

    def about(self) -> dict[str, Any]:
        """Without a folder's path: the revision identifies its weights."""
        decoding: dict[str, Any] = {"decoding": "greedy"}
        if self.draws:
            decoding = {"decoding": "keyed sample", "temperature": self.temperature, "top_p": self.top_p}
            decoding["seed"] = self.seed
        elif self.num_beams > 1:
            decoding = {"decoding": "beam", "num_beams": self.num_beams}
        if self.repetition_penalty is not None:
            decoding["repetition_penalty"] = float(self.repetition_penalty)
        settings = {**decoding, "max_tokens": self.max_tokens, "dtype": self.dtype}
        settings |= {} if self.chat else {"chat": False}
        return {"backend": "transformers", "model": Path(self.name).name, "revision": self.revision, **settings}

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        answers = dict(self.ask_each(questions))
        return [answers[place] for place in range(len(questions))]

    def count_tokens(self, question: Question) -> int:
        """How many tokens of text the model reads, those of its template included."""
        text = self._as_text(question)
        return len(self._tokenizer(text, add_special_tokens=self._adds_special_tokens(text))["input_ids"])

    def can_write(self, text: str) -> bool:
        """Whether its tokenizer knows every part of the text."""
        unknown = self._tokenizer.unk_token_id
        return unknown is None or unknown not in self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def ask_each(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Each question's place and answer, batch by batch, the longest questions first."""
        texts = [self._as_text(question) for question in questions]
        lengths = [len(ids) for ids in self._tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
        order = sorted(range(len(texts)), key=lambda place: (-lengths[place], place))
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            yield from self._answers({place: (questions[place], texts[place]) for place in places})

    @property
    def _tokenizer(self) -> Any:
        reader = self._reader()
        return getattr(reader, "tokenizer", reader)

    def _positions(self, config: Any) -> int:
        found = getattr(config.get_text_config(), "max_position_embeddings", None) or _MOST_TOKENS
        # An encoder has positions of its own; elsewhere the answer stands behind the question.
        return max(found if self.kind == "seq2seq" else found - self.max_tokens, 1)

    def _as_text(self, question: Question) -> str:
        """The question as the model reads it, by its chat template if it has one."""
        if self.kind == "seq2seq" or not self.chat:
            return "\n\n".join(filter(None, (question.system, question.text)))
        if self.kind == "causal":
            chat: list[dict[str, Any]] = [{"role": "user", "content": question.text}]
        else:
            content = [*[_IMAGE] * len(question.pictures), {"type": "text", "text": question.text}]
            chat = [{"role": "user", "content": content}]
        if question.system is not None:
            chat.insert(0, {"role": "system", "content": question.system})
        try:
            return self._reader().apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        except TemplateError as error:
            raise UsageError(
                f"the chat template of {self.name!r} does not take this question: {error}; "
                "leave the system message out, or use another model"
            ) from error

    def _adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer adds its special tokens to a text of `_as_text`: most chat templates have them."""
        if self.kind != "image_text":
            return self.kind == "seq2seq" or not self.chat
        return self._tokenizer.bos_token is None or not text.startswith(self._tokenizer.bos_token)

    def _inputs(self, batch: Sequence[tuple[Question, str]]) -> dict[str, torch.Tensor]:
        texts = [text for _, text in batch]
        settings = {"padding": True, "return_tensors": "pt"}
        settings["add_special_tokens"] = self._adds_special_tokens(texts[0])
        if self.kind != "image_text":
            inputs = self._tokenizer(texts, **settings)
            return {name: inputs[name] for name in ("input_ids", "attention_mask")}
        images = [[picture.pixels for picture in question.pictures] for question, _ in batch]
        return dict(self._reader()(text=texts, images=images if any(images) else None, **settings))

    def _answers(self, batch: dict[int, tuple[Question, str]]) -> Iterator[tuple[int, Answer]]:
        inputs = self._inputs(list(batch.values()))
        lengths = dict(zip(batch, inputs["attention_mask"].sum(1).tolist(), strict=True))
        short = {place: asked for place, asked in batch.items() if lengths[place] <= self.max_question_tokens}
        for place in batch.keys() - short.keys():
            most = self.max_question_tokens
            yield place, Answer(None, f"the question has {lengths[place]} tokens, more than the model's {most}")
        if not short:
            return
        if len(short) < len(batch):
            inputs = self._inputs(list(short.values()))
        rows = self._generated(inputs, [question for question, _ in short.values()])
        for (place, asked), row in zip(short.items(), rows.tolist(), strict=True):
            yield place, self._answer(asked, row, lengths[place])

    def _answer(self, asked: tuple[Question, str], row: list[int], tokens_in: int) -> Answer:
        """The answer in a row of generated ids, which may have padding at its end."""
        return _until_end(row, self._end_ids(), self._tokenizer, tokens_in)

    @torch.inference_mode()
    def _generated(self, inputs: dict[str, torch.Tensor], questions: Sequence[Question]) -> torch.Tensor:
        """The answers' tokens, one row a question."""
        model = self._model()
        inputs = {name: value.to(model.device) for name, value in inputs.items()}
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        if self.kind == "seq2seq":  # the decoder begins with its start token
            is_read = torch.zeros(len(questions), 1, dtype=torch.bool, device=model.device)
        else:
            is_read = inputs["attention_mask"].bool()
        num_given = is_read.shape[1]
        processors = LogitsProcessorList()
        penalty = self.repetition_penalty or model.generation_config.repetition_penalty or 1.0
        if penalty != 1.0:
            processors.append(RepetitionPenalty(penalty, is_read))
        if self.draws:
            ids = [stable_hash(self.seed, "answer", question_key(question)) for question in questions]
            ids_here = torch.tensor(ids, device=model.device)
            processors.append(KeyedDraw(ids_here, num_given, self.temperature, self.top_p))
        output = model.generate(
            **inputs, do_sample=False, num_beams=self.num_beams, max_new_tokens=self.max_tokens,
            repetition_penalty=1.0, logits_processor=processors, pad_token_id=self._tokenizer.pad_token_id,
        )  # fmt: skip
        return output[:, num_given:]

    def _end_ids(self) -> set[int]:
        ends = self._model().generation_config.eos_token_id
        return {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}


def _until_end(row: list[int], ends: set[int], tokenizer: Any, tokens_in: int) -> Answer:
    length = next((i for i, token in enumerate(row) if token in ends), None)
    if length is None:
        said = tokenizer.decode(row, skip_special_tokens=True)
        return Answer(None, f"the answer was truncated at max_tokens={len(row)}", said, tokens_in, len(row))
    text = tokenizer.decode(row[:length], skip_special_tokens=True)
    return Answer(text, tokens_in=tokens_in, tokens_out=length + 1)
