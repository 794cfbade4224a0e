"""A rater whose text encoder looks at the picture: BLIP's matching model with a scalar head.

B images; N pictures and M captions of a call; L tokens, P patches, W width of the image encoder.
"""

import json
from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, BlipForImageTextRetrieval

from capkit.errors import UsageError
from capkit.models.dual_encoders.text_towers.tokenize import Subwords
from capkit.models.given_config import inner_settings, network_of
from capkit.models.pretrained import build_config, load_pretrained
from capkit.models.raters.base import freeze_lower, scalar_head
from capkit.models.raters.pixel_rater import PixelRater
from capkit.models.tuning.lora import LoRA
from capkit.text.tokenizers import load_tokenizer
from capkit.types import CaptionBatch
from capkit.utils.ranges import PositiveInt, Probability, check_ranges

_PARTS = ("image_encoder", "text_encoder")


@check_ranges
class BlipRater(PixelRater):
    """BLIP's image encoder and image-grounded text encoder (Li et al. 2022, arXiv 2201.12086), and an MLP on [CLS].

    As ImageReward (arXiv 2304.05977) builds its reward model. The matching head and both projections of the checkpoint
    are dropped.

    Args:
        name: Hub name or folder of a BlipForImageTextRetrieval; or give `config`.
        config: `vision_config` and `text_config` of a model with random weights; the vocabulary is the tokenizer's,
            unless `text_config` has a `vocab_size`.
        tokenizer: Hub name or folder, "word" (built from the training captions), or null for the model's own.
        pretrained: If false, `name` gives the architecture only.
        max_length: Longest caption in tokens; null: the model's limit.
        hidden_width: Of the head's one hidden layer.
        frozen_share: Share of the lower layers of both encoders that are frozen.
        lora: Adapter settings by encoder, such as {text_encoder: {rank: 8}}, whose own weights are then frozen; null:
            none.
        transform: The data's ImageTransform, which prepares the pictures that are scored.
        prompt: Put before every caption.
        batch_size: Captions of one forward pass where texts are scored.
    """

    def __init__(
        self,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        tokenizer: Any = None,
        pretrained: bool = True,
        max_length: PositiveInt | None = None,
        hidden_width: PositiveInt = 256,
        frozen_share: Probability = 0.7,
        lora: Mapping[str, Any] | None = None,
        transform: Any = None,
        prompt: str = "",
        batch_size: PositiveInt = 64,
    ) -> None:
        if (name is None) == (config is None):
            raise UsageError(f"BlipRater expected a name or a config, got {name=}, {config=}; set one of them")
        if transform is None:
            raise UsageError(
                "BlipRater expected the transform of its pictures, got null; set model.transform=${data.transform}"
            )
        if tokenizer is None and name is None:
            raise UsageError(
                "BlipRater expected a tokenizer beside a config, got null; give model.tokenizer, e.g. word"
            )
        source = name if tokenizer is None else tokenizer
        own: Any = load_tokenizer(source) if isinstance(source, str) else source
        network = _network(name, config, pretrained, own)
        limit = int(network.config.text_config.max_position_embeddings)
        super().__init__(Subwords(own, min(max_length or limit, limit)), prompt, name or "blip", batch_size)
        self._tokenizer, self._transform = own, transform
        self.image_encoder: Any = network.vision_model
        self.text_encoder: Any = network.text_encoder
        if unknown := set(lora or ()) - set(_PARTS):
            raise UsageError(f"model.lora: expected parts {' and '.join(_PARTS)}, got {min(unknown)!r}")
        for part in _PARTS:
            if lora and part in lora:
                LoRA.from_mapping(lora[part]).add_to(getattr(self, part))
            else:
                freeze_lower(getattr(self, part), float(frozen_share), "model.frozen_share")
        self._head = scalar_head(network.config.text_config.hidden_size, hidden_width)

    def exported_arguments(self) -> dict[str, Any]:
        """What an export says in the place of `name`: the settings of both networks, whose weights it holds."""
        vision, text = (json.loads(part.config.to_json_string()) for part in (self.image_encoder, self.text_encoder))
        return {"name": None, "config": {"vision_config": vision, "text_config": text}}

    @property
    def tokenizer_key(self) -> str | None:
        return "tokenizer"

    @property
    def head(self) -> nn.Sequential:
        return self._head

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    def see(self, batch: CaptionBatch) -> Float[Tensor, "N P W"]:
        return self.image_encoder(pixel_values=self.pixels_of(batch)).last_hidden_state

    def score(
        self, seen: Float[Tensor, "M P W"], tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]
    ) -> Float[Tensor, " M"]:
        states = self.text_encoder(
            input_ids=tokens, attention_mask=mask.long(), encoder_hidden_states=seen
        ).last_hidden_state
        return self._head(states[:, 0])[:, 0]


def _network(name: str | None, config: Mapping[str, Any] | None, pretrained: bool, tokenizer: Any) -> Any:
    if name is not None and pretrained:
        network = load_pretrained(BlipForImageTextRetrieval, name, "rater")
    elif name is not None:
        network = BlipForImageTextRetrieval(load_pretrained(AutoConfig, name, "rater"))
    else:
        settings = {"model_type": "blip", **(config or {})}
        settings["text_config"] = {"vocab_size": len(tokenizer), **inner_settings(settings, "text_config", "rater")}
        network = network_of(BlipForImageTextRetrieval, build_config(settings, "rater"), "rater")
    embedded = network.config.text_config.vocab_size
    if len(tokenizer) > embedded:
        raise UsageError(
            f"the tokenizer has {len(tokenizer)} tokens and the rater embeds {embedded}; use the model's own "
            "tokenizer (tokenizer=null)"
        )
    return network
