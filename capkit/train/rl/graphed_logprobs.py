"""Log-probabilities of samples with their gradient, encoding included, by captured CUDA graphs where they serve."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from capkit.models.captioners.head_losses import is_plain
from capkit.models.captioners.headed import HeadedCaptioner
from capkit.models.gradient_graphs import can_graph_gradient, gradient_by_graph
from capkit.types import CaptionBatch, Samples

LENGTH_MULTIPLE = 4  # of predicted tokens that graphs see: each length has graphs of its own


def can_graph_logprobs(model: Any, batch: CaptionBatch, samples: Samples) -> bool:
    """Whether one pair of graphs can hold encoding and teacher forcing: the captioner says so, nothing else is given.

    Restricted draws, conditions, prompts of captions, regions and heads with a bias or an adapter take other ways.
    """
    if not isinstance(model, HeadedCaptioner) or not model.is_graphable() or not is_plain(model._head):
        return False
    if samples.support is not None or model.conditions is not None:
        return False
    if any(part is not None for part in (batch.prompts, batch.features_mask, batch.attribute_features)):
        return False
    encoder = getattr(model, "image_encoder", None)
    can_encode = batch.features is not None or getattr(encoder, "is_graphable", lambda: False)()
    return can_encode and samples.tokens is not None and can_graph_gradient(model, samples.tokens.device)


def graphed_logprobs(model: Any, batch: CaptionBatch, samples: Samples, temperature: float) -> Float[Tensor, "B K M"]:
    """`model.logprobs(model.encode(batch), ...)` of the samples, at lengths that are made up to a multiple of 4."""
    assert samples.tokens is not None and samples.mask is not None
    length = samples.tokens.shape[-1] - 1
    more = max(0, min(-length % LENGTH_MULTIPLE, model.max_length - length))
    tokens, mask = (nn.functional.pad(value, (0, more)) for value in (samples.tokens, samples.mask))
    keys, prompt_length, has_features = list(batch.keys), batch.prompt_length, batch.features is not None

    def run(images: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        pixels, features = (None, images) if has_features else (images, None)
        part = CaptionBatch(keys, pixels, features, prompt_length=prompt_length)
        return model.logprobs(model.encode(part), tokens, mask, temperature)

    images = batch.features if has_features else batch.pixels
    assert images is not None
    settings = has_features, prompt_length, temperature
    return gradient_by_graph(model, run, settings, images, tokens, mask)[..., :length]
