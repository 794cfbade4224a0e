"""A captioner whose words are said by modules that a controller weighs: CNM and CVLNM.

CNM: Yang et al., "Learning to Collocate Neural Modules for Image Captioning" (ICCV 2019). CVLNM: Yang et al., "Learning
to Collocate Visual-Linguistic Neural Modules for Image Captioning" (IJCV 2022).

B images, K captions of each, R = B x K rows, L tokens (T new ones, or those that are read), N regions, E their width,
A that of their attributes' features, D width, F = 3 D, M blocks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError, did_you_mean
from capkit.models.captioners.base import null_context, resolve_tokenizer
from capkit.models.captioners.headed import HeadedCaptioner
from capkit.models.captioners.logprobs import chunked_token_losses
from capkit.models.captioners.module_blocks import SLOPE, VISUAL, ModularBlock, Seen
from capkit.models.captioners.module_controllers import States
from capkit.models.captioners.recurrent_cache import RecurrentCache
from capkit.models.encoders.image_tokens import attributes_of, encoder_width, image_tokens
from capkit.text.word_classes import MODULES
from capkit.types import CaptionBatch, Context
from capkit.utils.ranges import DropoutRate, NonNegativeInt, PositiveInt, check_ranges
from capkit.utils.text_files import existing_file


class RegionModules(nn.Module):
    """Regions as each visual module sees them: a layer for objects, one for attributes, and relations, which attend."""

    def __init__(
        self,
        region_width: int,
        width: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        attribute_width: int | None,
    ) -> None:
        super().__init__()

        def layer(input_width: int = region_width) -> nn.Module:
            return nn.Sequential(nn.Linear(input_width, width), nn.LeakyReLU(SLOPE), nn.Dropout(dropout))

        self.object, self.relation, self.attribute = layer(), layer(), layer(attribute_width or region_width)
        self.relating = nn.ModuleList(
            nn.TransformerEncoderLayer(region_width, num_heads, region_width, 0.1, batch_first=True)
            for _ in range(num_layers)
        )

    def forward(
        self,
        regions: Float[Tensor, "B N E"],
        mask: Bool[Tensor, "B N"] | None,
        attributes: Float[Tensor, "B N A"] | None = None,
    ) -> Float[Tensor, "B N F"]:
        """`attributes` are what the attribute module sees of each region; None: the regions."""
        related, hidden = regions, None if mask is None else ~mask
        for relate in self.relating:
            related = relate(related, src_key_padding_mask=hidden)
        return torch.cat(
            [
                self.object(regions),
                self.relation(related),
                self.attribute(regions if attributes is None else attributes),
            ],
            -1,
        )


class ModularDecoder(nn.Module):
    """Word embeddings, blocks and their memory. Between blocks, the word's state is added to the word."""

    gathered_at_once = True  # its layers run once a word: ZeRO's stage 3 gathers all of their weights for a pass

    def __init__(
        self,
        vocab_size: int,
        width: int,
        attention_width: int,
        num_blocks: int,
        kind: str,
        num_heads: int,
        memory: Tensor | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(vocab_size, width), nn.Dropout(dropout)
        self.image = nn.Linear(len(VISUAL) * width, width)
        self.memory = None if memory is None else nn.Parameter(memory)
        memory_width = None if memory is None else memory.shape[1]
        self.blocks = nn.ModuleList(
            ModularBlock(width, attention_width, kind, num_heads, memory_width, dropout) for _ in range(num_blocks)
        )

    def _blocks(self) -> list[Any]:
        return list(self.blocks)

    def see(self, states: Float[Tensor, "B N F"], mask: Bool[Tensor, "B N"] | None) -> Seen:
        regions = list(states.chunk(len(VISUAL), -1))
        if mask is None:
            mean = states.mean(1)
        else:
            mean = states.masked_fill(~mask[..., None], 0.0).sum(1) / mask.sum(1, keepdim=True)
        keys = [
            [look.of_regions(own) for look, own in zip(block.look, regions, strict=True)] for block in self._blocks()
        ]
        return Seen(regions, self.image(mean), mask, keys)

    def start(self, rows: int, like: Tensor) -> States:
        return [state for block in self._blocks() for state in block.start(rows, like)]

    def forward(
        self,
        rows: Int[Tensor, "R L"],
        states: Float[Tensor, "B N F"],
        mask: Bool[Tensor, "B N"] | None,
        zeroed: str | None,
    ) -> tuple[Float[Tensor, "R L D"], Float[Tensor, "R L M 4"]]:
        """Of each token its state, and the weights of every block."""
        seen = self.see(states, mask)
        behind, hidden, weights = self.start(len(rows), seen.image), [], []
        for tokens in rows.unbind(1):
            state, weight, behind = self.step(tokens, seen, behind, zeroed)
            hidden.append(state)
            weights.append(weight)
        return torch.stack(hidden, 1), torch.stack(weights, 1)

    def step(
        self, tokens: Int[Tensor, " R"], seen: Seen, states: States, zeroed: str | None
    ) -> tuple[Float[Tensor, "R D"], Float[Tensor, "R M 4"], States]:
        """One more token of each row: its state, the weights of every block, and the states behind it."""
        x = self.dropout(self.embedding(tokens))
        size, weights, new = len(states) // len(self.blocks), [], []
        state = x
        for number, block in enumerate(self._blocks()):
            own = states[number * size : (number + 1) * size]
            state, weight, own = block(x, seen, number, own, self.memory, zeroed)
            weights.append(weight)
            new += own
            x = x + state
        return self.dropout(state), torch.stack(weights, 1), new


@check_ranges
class ModularCaptioner(HeadedCaptioner):
    """Regions or image tokens, four modules, and a controller that weighs them at each word.

    `controller=lstm` with two blocks is CNM, `self_attention` with one block and a memory CVLNM. Cached features in a
    batch replace its pixels; their number may vary from image to image (docs/data.md, Region features).

    Deliberate differences: (1) all three visual outputs reach the controller (`ModularBlock`); (2) attention is masked
    before its softmax, not after; (3) the memory is a parameter like any other: saved, sharded, and given its own
    learning rate by `optimizer.lr_multipliers={"*memory": FACTOR}`.

    Args:
        tokenizer: Object, hub name or folder.
        image_encoder: Pixels to tokens (`capkit.models.encoders.image`); null if batches carry cached features.
        feature_width: Width of cached features, needed without `image_encoder`.
        attribute_width: Width of the features of `data.attribute_features`, which the attribute module then sees in
            place of the others; null: all modules see the same.
        width: Of words, modules and states.
        attention_width: Of additive attention.
        blocks: Blocks that a word passes.
        controller: "lstm", "self_attention" or "uniform", which weighs all modules alike.
        num_heads: Of the attention between regions and of `self_attention`.
        relation_layers: Transformer layers between regions, in front of the relation module.
        memory: [slots, width] of a memory that every word asks; null: none. It begins at random in [0, .01).
        memory_file: An .npy file of this shape that the memory begins with instead.
        zero_module: A module that says nothing, to see what it was for; null: all speak.
        max_length: Maximum number of tokens, prompt included.
        prompt: Text that every caption starts with; it is not learned.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_encoder: nn.Module | None = None,
        feature_width: PositiveInt | None = None,
        width: PositiveInt = 1000,
        attention_width: PositiveInt = 512,
        blocks: PositiveInt = 2,
        controller: str = "lstm",
        num_heads: PositiveInt = 8,
        relation_layers: NonNegativeInt = 2,
        memory: Sequence[PositiveInt] | None = None,
        memory_file: str | None = None,
        zero_module: str | None = None,
        dropout: DropoutRate = 0.5,
        max_length: PositiveInt = 64,
        prompt: str = "",
        attribute_width: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer = resolve_tokenizer(tokenizer)
        self.prompt, self.max_length, self.width = prompt, max_length, width
        self.zero_module: str | None = None
        if zero_module is not None:
            silence(self, zero_module)
        self.vocab_size = len(self.tokenizer)
        self.image_encoder = image_encoder
        region_width = encoder_width(image_encoder, feature_width)
        for name, size in (("width", width), ("the features' width", region_width)):
            if size % num_heads:
                raise UsageError(f"model.num_heads={num_heads}: expected a divisor of {name}, {size}; give another one")
        self.feature_width, self.attribute_width = region_width, attribute_width
        self.regions = RegionModules(region_width, width, relation_layers, num_heads, dropout, attribute_width)
        slots = _memory(memory, memory_file)
        self.decoder = ModularDecoder(
            self.vocab_size,
            width,
            attention_width,
            blocks,
            controller,
            num_heads,
            slots,
            dropout,
        )
        self.head = nn.Linear(width, self.vocab_size)
        self._add_conditions(None, width)

    def encode(self, batch: CaptionBatch) -> Context:
        tokens, mask = image_tokens(batch, self.image_encoder, self.feature_width, self.attribute_width)
        regions = self.regions(tokens, mask, attributes_of(batch, self.attribute_width))
        return self._prompted(Context(regions, mask, list(batch.keys)), batch)

    def null_context(self, num_images: int, device: torch.device | str) -> Context:
        return null_context(num_images, 1, len(VISUAL) * self.width, self.head.weight.to(device))

    @property
    def _head(self) -> nn.Module:
        return self.head

    @property
    def _decoder(self) -> nn.Module:
        return self.decoder

    def _hidden(self, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L D"]:
        return self.with_weights(context, tokens)[0]

    def with_weights(
        self, context: Context, tokens: Int[Tensor, "B K L"]
    ) -> tuple[Float[Tensor, "B K L D"], Float[Tensor, "B K L M 4"]]:
        """Hidden states, and how much each module of each block said, in the order of `MODULES`, behind each token."""
        if tokens.shape[-1] > self.max_length:
            raise UsageError(
                f"captions must fit into the model's {self.max_length} positions; got {tokens.shape[-1]} tokens; "
                "raise model.max_length or lower the data's max_length"
            )
        hidden, weights = self.decoder(tokens.flatten(0, 1), context.states, context.mask, self.zero_module)
        return hidden.unflatten(0, tokens.shape[:2]), weights.unflatten(0, tokens.shape[:2])

    def weights_and_looks(
        self, context: Context, tokens: Int[Tensor, "B K L"]
    ) -> tuple[Float[Tensor, "B K T 4"], Float[Tensor, "B K T N"]]:
        """Of the last block, see `capkit.models.captioners.word_modules`."""
        shares: list[list[Tensor]] = [[] for _ in VISUAL]
        block: Any = self.decoder.blocks[-1]

        def keep(look: Any, arguments: Any, number: int) -> None:
            query, keys, _, mask = arguments
            shares[number].append(look.shares(query, keys, mask))

        hooks = [
            look.register_forward_pre_hook(lambda look, arguments, number=number: keep(look, arguments, number))
            for number, look in enumerate(block.look)
        ]
        try:
            weights = self.with_weights(context, tokens[..., :-1])[1][..., -1, :]
        finally:
            for hook in hooks:
                hook.remove()
        looked = torch.stack([torch.stack(steps, 2) for steps in shares], -1)  # (B K T N 3)
        visual = torch.stack([weights[..., MODULES.index(name)] for name in VISUAL], -1)
        visual = visual / visual.sum(-1, keepdim=True).clamp(min=torch.finfo(visual.dtype).tiny)
        return weights, (looked * visual[..., None, :]).sum(-1)

    def token_losses_and_weights(
        self,
        context: Context,
        tokens: Int[Tensor, "B K L"],
        mask: Bool[Tensor, "B K L"],
        label_smoothing: float,
        inputs: Int[Tensor, "B K T"] | None = None,
    ) -> tuple[Float[Tensor, "B K L-1"], Float[Tensor, "B K L-1 M 4"]]:
        """`token_losses`, and the weights with which each of these tokens was said.

        `inputs` are read in place of all tokens but the last.
        """
        hidden, weights = self.with_weights(context, tokens[..., :-1] if inputs is None else inputs)
        losses = chunked_token_losses(
            hidden, self._head, tokens[..., 1:], mask[..., 1:], self.vocab_size, label_smoothing
        )
        return losses, weights

    def start(self, context: Context, capacity: int) -> "_ModularCache":
        return _ModularCache(self.decoder.see(context.states, context.mask))

    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: "_ModularCache") -> Float[Tensor, "R V"]:
        if not cache.get_seq_length():
            cache.states = self.decoder.start(len(tokens), cache.seen.image)
        for place in range(tokens.shape[1]):
            state, _, states = self.decoder.step(tokens[:, place], cache.seen, cache.states, self.zero_module)
            cache.keep(states)
        return self.head(state)


def silence(model: nn.Module, module: str) -> None:
    """Let a module say nothing, to see what it is for. Raises UsageError for a model that has none of this name."""
    if not isinstance(model, ModularCaptioner):
        raise UsageError(
            f"model.zero_module={module}: expected a checkpoint of model=modular, got {type(model).__name__}; leave it "
            "out"
        )
    if module not in MODULES:
        raise UsageError(f"model.zero_module: there is no {module!r}; {did_you_mean(module, MODULES)}")
    model.zero_module = module


class _ModularCache(RecurrentCache):
    def __init__(self, seen: Seen) -> None:
        super().__init__([])
        self.seen = seen


def _memory(shape: Sequence[int] | None, file: str | None) -> Float[Tensor, "S M"] | None:
    """The memory's first values."""
    if shape is None:
        if file is not None:
            raise UsageError(f"model.memory_file={file}: expected model.memory=[SLOTS,WIDTH] too, got null; add it")
        return None
    if len(shape) != 2:
        raise UsageError(f"model.memory: expected [slots, width], got {list(shape)}; give two numbers")
    if file is None:
        return torch.rand(*shape) / 100
    try:
        values = np.load(existing_file(file, "model.memory_file"), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"model.memory_file={file}: expected an array of numpy, got {error}; save it anew") from error
    if values.shape != tuple(shape):
        raise UsageError(f"model.memory_file={file}: expected an array of shape {tuple(shape)}, got {values.shape}")
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise UsageError(f"model.memory_file={file}: expected finite numbers, got others ({values.dtype}); correct it")
    return torch.from_numpy(values).float()
