"""Types that flow through capkit, and the legend of all shape annotations.

B images in the batch, K captions or samples per image, L tokens, N context tokens, D width, V vocabulary, H W pixels;
J tokens of a negative; C vectors of conditions, W width of the decoder. Of pairs that are compared with each other: N
images, M captions; Q prompts of an image, of P tokens.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from capkit.errors import UsageError
from capkit.utils.renamed import moved_names
from capkit.utils.tensor_fields import TensorFields


@runtime_checkable
class BoundedModule(Protocol):
    """A `torch.nn.Module` some of whose own parameters must stay within bounds.

    The module itself clamps them in place when it uses them. A strategy that updates copies of the weights (ZeRO's, in
    float32) clamps those after each step: a bound that is not declared here would be lost there.
    """

    def parameter_bounds(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest value by the parameter's name within this module; infinite where there is none."""
        ...


def _trimmed(tokens: Tensor | None, mask: Tensor | None, multiple: int) -> tuple[Tensor | None, Tensor | None]:
    if tokens is None or mask is None:
        return tokens, mask
    length = max(1, int(mask.flatten(0, 1).any(0).sum()))
    length = -(-length // multiple) * multiple
    return tokens[..., :length], mask[..., :length]


@dataclass
class Pictures(TensorFields):
    """Pictures that a reward's encoder has not looked at, read and preprocessed for it in a loader's worker.

    `found` are the keys of `asked` that could be read; `pixels` are those of `found` at `places`, all of them where
    `places` is empty and there are no `contents`. `contents` identify pixels in a cache on disk, which has the others.
    """

    asked: list[str]
    found: list[str]
    pixels: Float[Tensor, "P 3 H W"] | None = None
    contents: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


@runtime_checkable
class Viewer(Protocol):
    """Looks at training pictures beside the model, as a reward's frozen encoder does; sees each picture once.

    It says which ones it wants when their batch is requested, reads and preprocesses them in a loader's worker, and
    looks at them when the batch has come. What it was not given, it has to read by itself when it needs it.
    """

    def unseen(self, keys: Sequence[str]) -> list[str]:
        """Keys of the pictures that it will need for a batch of these images, and has not looked at."""
        ...

    def preprocess(self, keys: Sequence[str]) -> Pictures:
        """Read these pictures. Called in a worker: must not use a GPU, and changes nothing that the process keeps."""
        ...

    def look(self, pictures: Pictures) -> None: ...


@dataclass
class CaptionBatch(TensorFields):
    """Images with their captions. `tokens[b, k]`: [BOS or prompt] w1 .. wn EOS, then padding.

    `pixels` are normalised for the model; `features` replace them if a frozen image encoder's outputs were cached.
    Where images have different numbers of vectors (regions), shorter rows end in zeros, at which `features_mask` is
    False. `attribute_features` are further ones of the same regions, for model=modular.
    `mask` is True at real tokens (BOS, prompt and EOS included), set by position and never by token id, so that EOS
    counts even if the tokenizer also pads with it. `prompt_length` is the number of leading tokens that are given and
    not learned. `pictures` are for encoders of rewards, by name, and belong to the whole batch: no part of it has them.

    `conditions[name]` are values that captions are to be written under (capkit/models/conditions), NaN where none is
    given: of images (B, *value), or of captions (B, K, *value).

    `prompts[b, k]`: token ids that caption k answers, which are given and not learned; with Q = 1 prompt of an image,
    all of its captions. They are padded on the left, where `prompts_mask` is False, and are no part of `tokens`.

    `regions[b][k]`, where captions are of regions: the region that caption k is of, as {"number": its place in the
    record, "box": xyxy in [0, 1] of the whole picture, "text"}. Rows of `mask` beyond an image's last one are False.

    `objects` say which images are views of one thing (`Record.object`): equal numbers for equal names, on all ranks, -1
    for an image without one; None where no image of the batch has one.

    `word_classes[b, k, l]` is the class of the word that token l writes (`capkit.text.word_classes.MODULES`), -1 where
    there is none: at BOS, the prompt and padding.

    `scores` are those of `Caption.score`, NaN for a caption without one; None where no caption of the batch has one.

    `negative_tokens[b, k]`: caption k edited into a wrong one, if the data makes such edits. A row of `mask` or
    `negative_mask` without any True means that the caption does not exist.
    """

    keys: list[str]
    pixels: Float[Tensor, "B 3 H W"] | None = None
    features: Float[Tensor, "B N D"] | None = None
    tokens: Int[Tensor, "B K L"] | None = None
    mask: Bool[Tensor, "B K L"] | None = None
    prompt_length: int = 1
    negative_tokens: Int[Tensor, "B K J"] | None = None
    negative_mask: Bool[Tensor, "B K J"] | None = None
    references: list[list[str]] = field(default_factory=list)
    bag: Int[Tensor, " B"] | None = None
    objects: Int[Tensor, " B"] | None = None
    regions: list[list[dict[str, Any]]] = field(default_factory=list)
    scores: Float[Tensor, "B K"] | None = None
    conditions: dict[str, Tensor] = field(default_factory=dict)
    prompts: Int[Tensor, "B Q P"] | None = None
    prompts_mask: Bool[Tensor, "B Q P"] | None = None
    metadata: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, Pictures] = field(default_factory=dict)
    features_mask: Bool[Tensor, "B N"] | None = None
    word_classes: Int[Tensor, "B K L"] | None = None
    attribute_features: Float[Tensor, "B N A"] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice) -> "CaptionBatch":
        """A micro-batch: the images in a slice."""
        return self._select(rows)

    def trim(self, multiple: int = 1) -> "CaptionBatch":
        """Drop columns that are padding in every caption, and those in front of every prompt.

        Keeps enough padding, if there is any, to make the length a multiple of `multiple`.
        """
        tokens, mask = _trimmed(self.tokens, self.mask, multiple)
        negative_tokens, negative_mask = _trimmed(self.negative_tokens, self.negative_mask, multiple)
        word_classes = self.word_classes
        if word_classes is not None and tokens is not None:
            word_classes = word_classes[..., : tokens.shape[-1]]
        prompts, prompts_mask = self.prompts, self.prompts_mask
        if prompts is not None and prompts_mask is not None:
            length = max(1, int(prompts_mask.flatten(0, 1).any(0).sum()))
            prompts, prompts_mask = prompts[..., -length:], prompts_mask[..., -length:]
        return dataclasses.replace(
            self,
            tokens=tokens,
            mask=mask,
            negative_tokens=negative_tokens,
            negative_mask=negative_mask,
            prompts=prompts,
            prompts_mask=prompts_mask,
            word_classes=word_classes,
        )

    def select(self, rows: list[int]) -> "CaptionBatch":
        """The given images, in the given order."""
        return self._select(rows)

    def _select(self, rows: slice | list[int]) -> "CaptionBatch":
        """Tensors of a slice are views, so that micro-batches of a large batch take no extra memory."""
        changes: dict[str, Any] = {"pictures": {}}
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            if spec.name in changes:
                continue
            if isinstance(value, Tensor):
                changes[spec.name] = value[rows]
            elif isinstance(value, list) and value:
                changes[spec.name] = value[rows] if isinstance(rows, slice) else [value[row] for row in rows]
            elif isinstance(value, dict):
                changes[spec.name] = {k: v[rows] for k, v in value.items()}
        return dataclasses.replace(self, **changes)


@dataclass
class Context(TensorFields):
    """What decoding attends to. Encoded once per image, and shared by its K samples, guidance and attacks.

    `mask` is True at positions that may be attended; None: at all of them, which needs no look at the device and serves
    faster attention. `keys` are the images' keys, from which sampling is seeded.

    `conditions` are the C vectors, of the decoder's width W, that stand in front of a caption's tokens: of all captions
    of an image (K = 1), or of K captions each. Where there are more captions, each vector serves as many of them, in
    their order.

    `prompts` are the token ids that captions answer, padded on the left, and serve captions as conditions do. They
    stand between the conditions and the tokens, whose first one, BOS, gives its place to the prompt's last. Where an
    encoder has read them, `of_text`, the states are those of the prompts, Q x P of them one after the other.
    """

    states: Float[Tensor, "B N D"]
    mask: Bool[Tensor, "B N"] | None
    keys: list[str]
    conditions: Float[Tensor, "B K C W"] | None = None
    prompts: Int[Tensor, "B Q P"] | None = None
    prompts_mask: Bool[Tensor, "B Q P"] | None = None
    of_text: bool = False

    @property
    def num_conditions(self) -> int:
        """C: places that the conditions take in front of the tokens."""
        return 0 if self.conditions is None else self.conditions.shape[2]

    @property
    def prompt_places(self) -> int:
        """How many places the prompts take beside those of the tokens: the last of P is BOS's."""
        return 0 if self.prompts is None else self.prompts.shape[2] - 1

    @property
    def num_prompts(self) -> int:
        """B x K or B x Q: how many beginnings of captions differ, by their image, conditions or prompts."""
        of_captions = [value.shape[1] for value in (self.conditions, self.prompts) if value is not None]
        return len(self.states) * max(of_captions, default=1)

    def without_image(self) -> "Context":
        """Zeros where the images' states are, behind all that maps them: what `image_dropout` trains on.

        The conditions stay: guidance takes away the image, not what is wished for. Raises UsageError where there is no
        image.
        """
        if self.of_text or not self.states.shape[1]:
            raise UsageError(
                "expected a captioner that looks at pictures, of which guidance and image_dropout take some away, got "
                "one that reads text alone; set decoding=greedy and objective.image_dropout=0"
            )
        return dataclasses.replace(self, states=torch.zeros_like(self.states))


@dataclass
class Samples(TensorFields):
    """Captions generated by a model, or given as text. Sampled token ids are kept: text is never tokenized again.

    `tokens` begin with the BOS or prompt given to generation, as in `CaptionBatch`. `ended` is True if EOS was
    generated. `logprobs` (nats, of `tokens[..., 1:]`) are those of the distribution sampled from, including temperature
    and truncation; 0 at given and padded positions. `support` is a bitmap, eight tokens per byte, of the tokens that
    this distribution could give (capkit/decoding/truncation.py); None if it could give any.
    """

    texts: list[list[str]]
    tokens: Int[Tensor, "B K L"] | None = None
    mask: Bool[Tensor, "B K L"] | None = None
    ended: Bool[Tensor, "B K"] | None = None
    logprobs: Float[Tensor, "B K M"] | None = None
    support: UInt8[Tensor, "B K M W"] | None = None

    @cached_property
    def ended_on_host(self) -> Bool[Tensor, "B K"] | None:
        """`ended` on the CPU; the host waits for it once."""
        return None if self.ended is None else self.ended.cpu()

    @classmethod
    def from_texts(cls, texts: list[list[str]]) -> "Samples":
        return cls(texts=texts)

    def images(self, rows: list[int]) -> "Samples":
        """The samples of the given images, in the given order."""
        changes = {name: None if value is None else value[rows] for name, value in self._tensors().items()}
        return Samples(texts=[self.texts[row] for row in rows], **changes)

    def numbers(self, some: slice) -> "Samples":
        """The given samples of each image."""
        changes = {name: None if value is None else value[:, some] for name, value in self._tensors().items()}
        return Samples(texts=[texts[some] for texts in self.texts], **changes)

    def select(self, row: int, number: int) -> "Samples":
        """One sample of one image, as its own batch."""
        changes = {
            name: None if value is None else value[row : row + 1, number : number + 1]
            for name, value in self._tensors().items()
        }
        return Samples(texts=[[self.texts[row][number]]], **changes)

    def pick(self, numbers: list[int]) -> "Samples":
        """One sample per image: the one at the given index for each image."""
        rows = list(range(len(numbers)))
        tensors = self._tensors().items()
        changes = {name: None if value is None else value[rows, numbers][:, None] for name, value in tensors}
        return Samples(texts=[[texts[number]] for texts, number in zip(self.texts, numbers, strict=True)], **changes)

    def _tensors(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("tokens", "mask", "ended", "logprobs", "support")}


@dataclass
class PairEmbeddings(TensorFields):
    """Unit-norm embeddings of this rank's N images and M captions, and which caption belongs to which image.

    Ids are comparable across ranks: caption m belongs to the image whose `image_ids` entry equals `owners[m]`; equal
    captions have equal `text_ids`. Cosines are multiplied by `logit_scale` (clamped), then `logit_bias` is added
    (SigLIP). `extras` are further outputs by name, with one row per caption or per negative.
    """

    images: Float[Tensor, "N D"]
    texts: Float[Tensor, "M D"]
    logit_scale: Float[Tensor, ""]
    image_ids: Int[Tensor, " N"]
    owners: Int[Tensor, " M"]
    text_ids: Int[Tensor, " M"]
    logit_bias: Float[Tensor, ""] | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class PairLoss:
    """One rank's share of a loss over the images and captions of all ranks, and detached numbers to log.

    The shares of all ranks add up to the global batch's loss. `loss.backward()` on every rank gives each rank the exact
    gradient of that sum with respect to its own embeddings. The gradients of `logit_scale` and `logit_bias` are the
    rank's share: sum them over ranks.
    """

    loss: Float[Tensor, ""]
    logs: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class ObjectiveOutput:
    """A summed loss with gradient, its number of targets, and detached numbers to log.

    The training step divides by the targets of the whole optimizer step, over all micro-batches and ranks, never by
    those of one micro-batch.
    """

    loss_sum: Float[Tensor, ""]
    num_targets: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)


Row = dict[str, Any]  # key, caption, references, metadata


__getattr__ = moved_names(__name__)  # protocols that were here
