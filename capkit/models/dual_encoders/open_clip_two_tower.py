"""Dual encoders of the package open_clip whose text tower is a model of transformers, such as XLM-R ViT-H/14.

B images, M captions, P patches, L text tokens, W width of the text tower, D of the joint space.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.models.dual_encoders.logit_scale import LogitScale
from capkit.models.dual_encoders.text_towers.tokenize import Subwords
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.open_clip import load_network, package, preprocess, schema_name, telling_failures
from capkit.models.tuning.frozen import trains
from capkit.models.tuning.policy import Tuning
from capkit.types import CaptionBatch
from capkit.utils.ranges import PositiveFloat, PositiveInt, check_ranges
from capkit.utils.tensors import unit


@check_ranges
class OpenClipTwoTower(TrainableDualEncoder):
    """A trained dual encoder of open_clip: a vision transformer, and a text tower of transformers.

    open_clip's models with CLIP's own text transformer are not read here: transformers has them (`HFTwoTower`).

    Raises UsageError if open_clip is not installed, if weights cannot be loaded, or for other towers.

    Args:
        name: A model of open_clip ("xlm-roberta-large-ViT-H-14"), "hf-hub:OWNER/MODEL" or "local-dir:FOLDER".
        pretrained: open_clip's tag of the weights, or a file; null for the weights of a hub model or folder.
        tokenizer: null: the model's own.
        max_length: Longest caption in tokens; open_clip trained with 77.
        max_logit_scale: Upper limit of the learned multiplier of cosines.
        tune_image: Which weights of the image tower train; null: all.
        tune_text: Which weights of the text tower train; null: all.
        prompt: Put before every caption.
        batch_size: Texts per forward pass of `encode_text`.
    """

    def __init__(
        self,
        name: str,
        pretrained: str | None = None,
        tokenizer: Any = None,
        max_length: PositiveInt = 77,
        max_logit_scale: PositiveFloat = 100.0,
        tune_image: Tuning | None = None,
        tune_text: Tuning | None = None,
        prompt: str = "",
        batch_size: PositiveInt = 256,
    ) -> None:
        network, own_tokenizer = _load(name, pretrained)
        visual, text = _towers(network, name)
        tokenizer = tokenizer or own_tokenizer
        start = float(network.logit_scale.detach().exp())
        scale = LogitScale(start, max(max_logit_scale, start))
        super().__init__(Subwords(tokenizer, max_length), visual.proj.shape[1], scale, prompt, name, batch_size)
        # Its own projection is taken out of the tower, so that features before it can be had.
        width, joint = visual.proj.shape
        self.image_projection = nn.Linear(width, joint, bias=False)
        self.image_projection.weight = nn.Parameter(visual.proj.detach().T.contiguous())
        visual.output_tokens, visual.proj = True, None
        self.image_tower, self.text_tower, self.text_pooling = visual, text.transformer, text.pooler
        self.text_projection = text.proj
        self.tokenizer = tokenizer
        self.tune(tune_image, tune_text)

    @property
    def text_width(self) -> int:
        return int(self.text_tower.config.hidden_size)

    def side(self, side: str) -> list[nn.Module]:
        return [self.text_tower, self.text_projection] if side == "text" else [self.image_tower, self.image_projection]

    def about_features(self) -> dict[str, Any]:
        raise UsageError("a model of open_clip reads pixels, not cached features; set data.features=null")

    def about_preprocessing(self) -> Any:
        return {name: str(value) for name, value in sorted(self.image_tower.preprocess_cfg.items())}

    def pool_images(self, batch: CaptionBatch) -> Float[Tensor, "B W"]:
        return self._seen(batch)[0]

    def embed_images(self, batch: CaptionBatch) -> Float[Tensor, "B D"]:
        return unit(self.image_projection(self.pool_images(batch)))

    def embed_patches(self, batch: CaptionBatch) -> Float[Tensor, "B P D"]:
        return unit(self.image_projection(self._seen(batch)[1]))

    def embed_images_and_patches(self, batch: CaptionBatch) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B P D"]]:
        pooled, patches = self._seen(batch)
        return unit(self.image_projection(pooled)), unit(self.image_projection(patches))

    def _seen(self, batch: CaptionBatch) -> tuple[Float[Tensor, "B W"], Float[Tensor, "B P W"]]:
        """The class token and the patches, normed, before the projection."""
        if batch.pixels is None:
            raise UsageError("a model of open_clip expected pixels; got a batch without; set data.features=null")
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains(self.image_tower)):
            return self.image_tower(batch.pixels)

    def pool_texts(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M W"]:
        output = self.text_tower(input_ids=tokens, attention_mask=mask.long())
        return self.text_pooling(output, mask.long())

    def project_texts(self, pooled: Float[Tensor, "M W"]) -> Float[Tensor, "M D"]:
        return unit(self.text_projection(pooled))

    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "B 3 H W"]:
        return preprocess(self.image_tower, images)


def _load(name: str, pretrained: str | None) -> tuple[Any, Any]:
    """The network with its weights, and the tokenizer of transformers."""
    network = load_network(name, pretrained)
    with telling_failures(f"load the tokenizer of {name!r}", "give the name or folder of a model that brings one"):
        tokenizer: Any = package(name).get_tokenizer(schema_name(name))
    return network, getattr(tokenizer, "tokenizer", None)


def _towers(network: Any, name: str) -> tuple[Any, Any]:
    from open_clip.hf_model import HFTextEncoder
    from open_clip.transformer import VisionTransformer

    visual, text = network.visual, getattr(network, "text", None)
    if not isinstance(text, HFTextEncoder):
        raise UsageError(
            f"OpenClipTwoTower reads models with a text tower of transformers; {name!r} has CLIP's own; use HFTwoTower "
            "with the name of its weights for transformers"
        )
    if not isinstance(visual, VisionTransformer) or visual.proj is None or visual.pool_type != "tok":
        raise UsageError(
            f"OpenClipTwoTower reads vision transformers with a class token and a projection; {name!r} has a "
            f"{type(visual).__name__}"
        )
    return visual, text
