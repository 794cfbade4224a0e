"""Chat vision-language models of transformers (Qwen-VL, SmolVLM, LLaVA, PaliGemma, InternVL) as captioners.

B images, K captions per image, R = B x K rows, L tokens (T new ones), N image tokens, F = ids in front of the picture
and N, S places of a row, E width of a picture's features, W width of the language model, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AddedToken, AutoConfig, AutoModelForImageTextToText, Cache

from capkit.decoding.cache import PreallocatedCache
from capkit.errors import UsageError, did_you_mean
from capkit.models.captioners.base import null_context, resolve_tokenizer
from capkit.models.captioners.chat_families import PARTS, check_logits, family_of, picture_side
from capkit.models.captioners.chat_pictures import Pictures, freeze_unread
from capkit.models.captioners.chat_processors import load_processor, new_processor, squared, with_tokenizer
from capkit.models.captioners.chat_reading import ChatReader
from capkit.models.captioners.chat_rows import ChatRows
from capkit.models.captioners.chat_template import ChatPromptEncoder, ChatTemplate, paligemma_template, plain_template
from capkit.models.captioners.headed import HeadedCaptioner
from capkit.models.captioners.kernels import check_kernel
from capkit.models.captioners.missing_images import stop_gradients_at_zeros
from capkit.models.dual_encoders.text_towers.base import pool
from capkit.models.encoders.image_tokens import image_features
from capkit.models.given_config import inner_settings, network_of
from capkit.models.pretrained import build_config, load_pretrained
from capkit.models.quantized import four_bit_settings
from capkit.models.tuning.frozen import eval_frozen
from capkit.models.tuning.lora import LoRA, only_adapters_train
from capkit.types import CaptionBatch, Context
from capkit.upstream.peft import BaseTunerLayer
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class ChatVLM(HeadedCaptioner):
    """A chat model that reads pictures, asked for a caption in its chat template.

    A row is: the template's ids, the picture's tokens, the rest of the template with the question, the caption.
    Captions may answer prompts of their own (`CaptionBatch.prompts`) in the place of the question.

    Deliberate differences from the processors of transformers: (1) every picture is one square of `image_size` pixels,
    as the data's transform makes it, so that all have the same number of tokens: no tiles (SmolVLM, InternVL), no sides
    of their own (Qwen-VL); LLaVA-OneVision's one tile is the picture itself; (2) pixels come normalised by .5 and .5,
    from which the model goes on to its own mean and deviation; (3) a caption begins without the space that some
    templates (SmolVLM's) put in front of an answer.

    Args:
        name: Hub name or folder, with its processor; or give `config`.
        config: `model_type` and that type's nested settings, for random weights. The vocabulary size and the picture's
            token come from the tokenizer, and so does the chat template; without one the plainest is used.
        pretrained: If false, a name gives architecture and processor only.
        tokenizer: Object, hub name or folder; null: the processor's.
        question: What a picture is asked, as a user's message; captions with prompts of their own answer those.
        system: A system message; null: none, or the template's own.
        chat_template: Jinja text in the place of the processor's template.
        image_size: Side of a picture in pixels; null: the one that the model has, or about 448 for Qwen-VL.
        max_length: Most tokens behind the picture: the rest of the template, the question and the caption.
        freeze: Of "vision", "projector" and "language", what does not train.
        lora: Rank, alpha, dropout and targets of adapters; all else is frozen, and what `freeze` names gets none.
        four_bit: Hold the frozen weights in 4 bits (QLoRA, Dettmers et al. 2023); needs `lora` and bitsandbytes.
        share_pictures: Read a picture and its question once for all captions of it in passes over given captions
            (`SharedRows`); false: once for each. Both give the same numbers.
    """

    takes_prompts = True
    image_encoder: Pictures

    def __init__(
        self,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        pretrained: bool = True,
        tokenizer: Any = None,
        question: str = "Describe this image.",
        system: str | None = None,
        chat_template: str | None = None,
        image_size: PositiveInt | None = None,
        max_length: PositiveInt = 256,
        freeze: Sequence[str] = ("vision",),
        lora: Mapping[str, Any] | None = None,
        four_bit: bool = False,
        share_pictures: bool = True,
    ):
        super().__init__()
        _check_choices(name, config, pretrained, freeze, lora, four_bit)
        quantization = four_bit_settings() if four_bit else None
        full = load_pretrained(AutoConfig, name, "captioner") if name else build_config(config or {}, "captioner")
        self._family = family_of(full)
        self._read_processor: Any = None if name is None else load_processor(name)
        self.tokenizer = resolve_tokenizer(tokenizer, name)
        if name is None:
            full = _sized(config or {}, self.tokenizer, self._family.tokens)
        check_logits(full)
        self.image_size = picture_side(full, image_size)
        if full.model_type == "llava_onevision":
            full.image_grid_pinpoints = [[self.image_size, self.image_size]]
        self.prompt, self.question, self.max_length, self.share_pictures = "", question, max_length, share_pictures
        self._set_template(full, name, chat_template, system)
        self.num_image_tokens = self._family.num_tokens(full, self.image_size)
        self._check_sizes(full)
        if name is None or not pretrained:
            self.model: Any = network_of(AutoModelForImageTextToText.from_config, full, "captioner")
        else:
            self.model = load_pretrained(AutoModelForImageTextToText, name, "captioner", full, quantization)
        check_kernel(self._language)
        self.vocab_size, self.other_ends = self._head.out_features, self._ends_beside_eos()
        self.width = self._language.get_input_embeddings().embedding_dim
        self._add_pictures()
        self._freeze(freeze, lora)
        stop_gradients_at_zeros(self._language)
        self._add_conditions(None, self.width)

    def _set_template(self, config: Any, name: str | None, chat_template: str | None, system: str | None) -> None:
        tokenizer = self.tokenizer
        image_token = getattr(self._read_processor, "image_token", self._family.tokens[0])
        if (found := tokenizer.convert_tokens_to_ids(image_token)) != config.image_token_id:
            raise UsageError(
                f"model.tokenizer: expected one with {image_token} as token {config.image_token_id}, where the model "
                f"has pictures, got {found}; use the model's own tokenizer (tokenizer=null)"
            )
        of_processor = getattr(self._read_processor, "chat_template", None)
        template = chat_template or of_processor or tokenizer.chat_template
        if template is None and config.model_type == "paligemma":
            template = paligemma_template(image_token, tokenizer.bos_token)
        elif template is None and name is not None:
            raise UsageError(
                f"model.name={name}: expected a processor with a chat template, got none, as of a "
                "model that was not trained to answer; take its -Instruct or -hf form, or give model.chat_template"
            )
        tokenizer.chat_template = template or plain_template(image_token, tokenizer.bos_token)
        around, special = self._family.around, self._family.adds_special_tokens
        self._template = ChatTemplate(tokenizer, image_token, around, system, special)
        self._front, self._behind = self._template.ids(self.question)
        tokenizer.eos_token = self._template.end() or tokenizer.eos_token  # Idefics3's tokenizer has another

    def _check_sizes(self, config: Any) -> None:
        text = config.get_text_config()
        if len(self.tokenizer) > text.vocab_size:
            raise UsageError(
                f"the tokenizer has {len(self.tokenizer)} tokens and the model embeds {text.vocab_size}; "
                "use the model's own tokenizer (tokenizer=null)"
            )
        places = getattr(text, "max_position_embeddings", None)
        before = len(self._front) + self.num_image_tokens
        if places is not None and before + self.max_length > places:
            raise UsageError(
                f"the picture and what follows must fit into the language model's {places} positions; got "
                f"{before} of the picture ({self.num_image_tokens} tokens) and what is in front, and model.max_length="
                f"{self.max_length}; lower model.max_length{'' if self._family.side(config) else ' or image_size'}"
            )
        window = getattr(text, "sliding_window", None)
        if window is not None and before + self.max_length > window:
            raise UsageError(
                f"model=chat_vlm: expected rows within the {window} places that the language model's layers look back "
                f"(sliding_window), got {before} of the picture and what is in front, and model.max_length="
                f"{self.max_length}; lower model.max_length, or take a model whose layers attend to all places"
            )
        if self.max_length <= len(self._behind):
            raise UsageError(
                f"model.max_length={self.max_length}: expected room for a caption behind the question's "
                f"{len(self._behind)} tokens; raise it (the picture's {self.num_image_tokens} tokens do not count)"
            )

    def _ends_beside_eos(self) -> tuple[int, ...]:
        """Special tokens at which the published model's generation ends too (Qwen2.5-VL's `<|endoftext|>`)."""
        listed, tokenizer = self.model.generation_config.eos_token_id, self.tokenizer
        added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        special = (added | set(tokenizer.all_special_ids)) - {tokenizer.eos_token_id}
        return tuple(sorted(special & set(listed if isinstance(listed, list) else [listed])))

    def _add_pictures(self) -> None:
        mean, std = self._family.mean, self._family.std
        if self._read_processor is not None:
            images = self._read_processor.image_processor
            mean, std = images.image_mean, images.image_std
        # Not a submodule: its weights are the model's, which would have two names each.
        self.__dict__["image_encoder"] = Pictures(self.model.model, self._family, mean, std)

    def _freeze(self, freeze: Sequence[str], lora: Mapping[str, Any] | None) -> None:
        for name, parameter in self.model.model.named_parameters():
            if self._family.part_of(name) in freeze:
                parameter.requires_grad_(False)
        if "language" in freeze:
            self._head.requires_grad_(False)
        freeze_unread(self.image_encoder, self.image_size)
        if lora is not None:
            LoRA.from_mapping(lora).add_to(self.model, only=self._adaptable(freeze))
        self.train()

    def _adaptable(self, freeze: Sequence[str]) -> list[str]:
        """Names, within the model, of the modules of parts that are not frozen; without the head."""
        inner = ((name, self._family.part_of(f"{name}.")) for name, _ in self.model.model.named_modules())
        return [f"model.{name}" for name, part in inner if part not in freeze]

    @property
    def has_adapters(self) -> bool:
        return any(isinstance(module, BaseTunerLayer) for module in self.model.modules())

    @property
    def answer_length(self) -> int:
        """Most tokens of a caption, BOS and EOS included: the question's last token stands in the place of BOS."""
        return self.max_length - len(self._behind) + 1

    def freeze_head(self) -> None:
        """Freeze the language model's head, for a model that reads hidden states; not weights that embed tokens too."""
        if self._head.weight is not self._language.get_input_embeddings().weight:
            self._head.requires_grad_(False)

    @property
    def processor(self) -> Any:
        """transformers' processor that reads a square picture as this captioner does, for an export."""
        if self._read_processor is None:
            return new_processor(self.model.config, self.tokenizer, self.image_size)
        return squared(with_tokenizer(self._read_processor, self.tokenizer), self.image_size)

    def prompt_encoder(self, most: int, cut: bool) -> ChatPromptEncoder:
        """What turns a prompt into the ids behind the picture."""
        return ChatPromptEncoder(self.tokenizer, most, cut, self._template, self.question)

    @property
    def asked_ids(self) -> list[int]:
        """What the language model reads of a picture and the question, one id for each of the picture's tokens."""
        return [*self._front, *[self.model.config.image_token_id] * self.num_image_tokens, *self._behind]

    def asked(self, picture: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        """The question's messages in the form of chat APIs, with this part as the picture; and whether the tokenizer
        adds its special tokens to what the template writes.
        """
        return self._template.messages(self.question, picture), self._template.is_completed(self.question)

    @property
    def serves_adapters(self) -> bool:
        """Whether nothing but adapters of the language model trains."""
        trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        parts = {self._family.part_of(name.removeprefix("model.model.")) for name in trained}
        return only_adapters_train(self) and parts == {"language"}

    def train(self, mode: bool = True) -> "ChatVLM":
        super().train(mode)
        eval_frozen(self.model)
        return self

    @property
    def _language(self) -> Any:
        return getattr(self.model.model, self._family.language)

    @property
    def _head(self) -> nn.Linear:
        return self.model.lm_head

    @property
    def _decoder(self) -> nn.Module:
        return self._language

    def encode(self, batch: CaptionBatch) -> Context:
        """The pictures' tokens; the prompts of the batch, or the question where it has none."""
        states = image_features(batch, self.image_encoder)
        if states.shape[1] != self.num_image_tokens:
            raise UsageError(
                f"expected {self.num_image_tokens} tokens of a picture of {self.image_size} pixels, got "
                f"{states.shape[1]}; give data.transform.size={self.image_size}"
            )
        return self._asked(self._prompted(Context(states, None, list(batch.keys)), batch))

    def _asked(self, context: Context) -> Context:
        if context.prompts is not None:
            return context
        question = torch.tensor(self._behind, device=context.states.device)
        return replace(context, prompts=question.expand(len(context.states), 1, -1))

    def null_context(self, num_images: int, device: torch.device | str) -> Context:
        like = self._language.get_input_embeddings().weight.to(device)
        return self._asked(null_context(num_images, self.num_image_tokens, self._features_width, like=like))

    @property
    def _features_width(self) -> int:
        layers = getattr(self.model.config.vision_config, "deepstack_visual_indexes", ())
        return self.width * (1 + len(layers))

    @property
    def _rows(self) -> ChatRows:
        return ChatRows(self._family, len(self._front), self.num_image_tokens)

    @property
    def _reader(self) -> ChatReader:
        return ChatReader(self._language, self._front, self._rows)

    def _hidden(self, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L W"]:
        if self.share_pictures:
            return self._reader.read_together(context, tokens)
        return self._reader.read(context, tokens.flatten(0, 1), None, 0).unflatten(0, tokens.shape[:2])

    def last_states(
        self, features: Float[Tensor, "R N E"], tokens: Int[Tensor, "R L"], mask: Bool[Tensor, "R L"]
    ) -> Float[Tensor, "R W"]:
        """The language model's last hidden state at the end of each caption, which answers the question of its picture.

        `features` are of `image_encoder`, a row a caption.
        """
        context = self._asked(Context(features, None, [""] * len(features)))
        return pool(self._hidden(context, tokens[:, None])[:, 0], mask, "eos")

    def start(self, context: Context, capacity: int) -> Cache:
        return PreallocatedCache(self._rows.front + context.prompt_places + capacity)

    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache) -> Float[Tensor, "R V"]:
        return self._head(self._reader.read(context, tokens, cache, cache.get_seq_length())[:, -1])


def _check_choices(
    name: str | None,
    config: Mapping[str, Any] | None,
    pretrained: bool,
    freeze: Sequence[str],
    lora: Mapping[str, Any] | None,
    four_bit: bool,
) -> None:
    if (name is None) == (config is None):
        raise UsageError(f"model=chat_vlm: expected a name or a config, got {name=}, {config=}; set the other to null")
    for part in freeze:
        if part not in PARTS:
            raise UsageError(f"model.freeze: expected {', '.join(PARTS)}, got {part!r}; {did_you_mean(part, PARTS)}")
    if set(freeze) == set(PARTS):
        raise UsageError(f"model.freeze={list(freeze)}: expected a part that trains, got all frozen; leave one out")
    if four_bit and (lora is None or name is None or not pretrained):
        raise UsageError(
            "model.four_bit=true holds frozen weights in 4 bits: expected model.lora, model.name and "
            f"model.pretrained=true, got {lora=}, {name=}, {pretrained=}; give all three, or four_bit=false"
        )


def _sized(config: Mapping[str, Any], tokenizer: Any, tokens: Sequence[str]) -> Any:
    """The config with the tokenizer's vocabulary and special ids, and `tokens`, which the tokenizer may have to get."""
    new = [AddedToken(token, normalized=False, special=True) for token in tokens if token not in tokenizer.get_vocab()]
    tokenizer.add_tokens(new, special_tokens=True)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    text = {**inner_settings(config, "text_config", "captioner"), "vocab_size": len(tokenizer), **ids}
    own = {"image_token_id": tokenizer.convert_tokens_to_ids(tokens[0]), **ids}
    return build_config({**config, **own, "text_config": text}, "captioner")
