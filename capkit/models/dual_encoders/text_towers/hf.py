"""Text models of the transformers library as text towers: CLIP's text half, BERT, RoBERTa, MiniLM, XLM-R, GPT-2 ...

M texts, L tokens, W width.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, SiglipTextModel

from capkit.errors import UsageError, check_choice
from capkit.models.dual_encoders.text_towers.base import never_empty, pool
from capkit.models.dual_encoders.text_towers.tokenize import Subwords
from capkit.models.given_config import network_of
from capkit.models.pretrained import build_config, freeze_without_gradient, load_pretrained
from capkit.models.tuning.layers import after_blocks_of, blocks_of
from capkit.text.tokenizers import load_tokenizer
from capkit.utils.ranges import PositiveInt, check_ranges

POOLINGS = ("eos", "cls", "mean")


@check_ranges
class HFTextTower(nn.Module):
    """A text model by name or folder, or from a config dict with `model_type` (clip_text_model, bert, ...).

    Weights that the pooled output does not depend on (poolers, SigLIP's own head) are frozen: DDP would wait for their
    gradients. Raises UsageError for an unsuitable model, a tokenizer with more tokens than the model, or too large a
    `max_length`.

    Args:
        name: Hub name or folder; of a dual encoder (CLIP, SigLIP, ALIGN, Chinese-CLIP) the text half without its
            projection is used.
        config: Or settings with `model_type`; vocabulary size and special ids come from the tokenizer.
        tokenizer: Object, hub name or folder; null: the model's own.
        max_length: Longest text in tokens; null: the model's limit.
        pooling: "eos" (the last real token: CLIP, GPT-2), "cls" (the first: BERT, ALIGN) or "mean" (over real tokens:
            MiniLM and other sentence encoders).
        pretrained: If false, `name` gives the architecture only.
    """

    def __init__(
        self,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        tokenizer: Any = None,
        max_length: PositiveInt | None = None,
        pooling: str = "eos",
        pretrained: bool = True,
    ):
        super().__init__()
        if (name is None) == (config is None):
            raise UsageError(f"HFTextTower expected a name or a config, got {name=}, {config=}; set one of them")
        check_choice("HFTextTower.pooling", pooling, POOLINGS)
        self.tokenizer = _tokenizer(tokenizer, name)
        self.model = _from_config(config, self.tokenizer) if config is not None else _by_name(str(name), pretrained)
        _check_vocabulary(self.model, self.tokenizer)
        limit = num_positions(self.model)
        if max_length is not None and max_length > limit:
            raise UsageError(f"max_length must be at most the text model's {limit} positions; got {max_length}")
        reads_padding = name is not None and pretrained and self.model.config.model_type.startswith("siglip")
        self.tokenize = Subwords(self.tokenizer, max_length or limit, pad_to_max=reads_padding)
        self.pooling = pooling
        self.width: int = self.model.config.hidden_size
        self._freeze_unread()

    def forward(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M W"]:
        mask = never_empty(mask)
        states = self.model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        return pool(states, mask, self.pooling)

    def extra_repr(self) -> str:
        return f"pooling={self.pooling}"

    def blocks(self) -> list[nn.Module]:
        return blocks_of(self.model)

    def after_blocks(self) -> list[nn.Module]:
        return after_blocks_of(self.model)

    def _freeze_unread(self) -> None:
        training = self.training
        self.eval()  # no dropout: must not draw random numbers
        freeze_without_gradient(self.model, self(*self.tokenize(["a"])))
        self.train(training)


def num_positions(model: Any) -> int:
    """Maximum number of tokens of a text model. RoBERTa does not use its first positions, up to the padding id."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is None:
        raise UsageError(
            f"a text tower's model needs max_position_embeddings in its config; {type(model).__name__} has none; "
            "use CLIP's text model, BERT, RoBERTa, MiniLM, XLM-R or GPT-2"
        )
    offsets = [m.padding_idx + 1 for n, m in model.named_modules() if n.endswith("position_embeddings") and _padded(m)]
    return int(limit) - max([0, *offsets])


def _padded(module: nn.Module) -> bool:
    return getattr(module, "padding_idx", None) is not None


def _tokenizer(tokenizer: Any, name: str | None) -> Any:
    if tokenizer is None and name is None:
        raise UsageError("a text tower from a config needs a tokenizer: tokenizer=word, a name, a folder or an object")
    tokenizer = name if tokenizer is None else tokenizer
    return load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer


def _from_config(config: Mapping[str, Any], tokenizer: Any) -> Any:
    special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    built = build_config({"vocab_size": len(tokenizer), **special, **config}, "text tower")
    if built.model_type == "siglip_text_model":  # AutoModel cannot build it
        return network_of(SiglipTextModel, built, "text tower")
    if type(built) not in MODEL_MAPPING:
        raise UsageError(
            f"transformers cannot build a text model of model_type {built.model_type!r}; use clip_text_model, "
            "siglip_text_model, bert, roberta, xlm-roberta, gpt2 or another text model"
        )
    return network_of(AutoModel.from_config, built, "text tower")


def _by_name(name: str, pretrained: bool) -> Any:
    """Load the model and take its text half, if any. Loading the half by its own class can leave its weights random."""
    if pretrained:
        model = load_pretrained(AutoModel, name, "text tower")
    else:
        model = AutoModel.from_config(load_pretrained(AutoConfig, name, "text tower"))
    return getattr(model, "text_model", model)


def _check_vocabulary(model: Any, tokenizer: Any) -> None:
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        raise UsageError(
            f"the tokenizer has {len(tokenizer)} tokens but the text tower embeds only {embeddings}; "
            "use the model's own tokenizer (tokenizer=null)"
        )
