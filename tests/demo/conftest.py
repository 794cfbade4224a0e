import pytest
import torch

from capkit.data.transforms import ImageTransform
from capkit.decoding.config import Decoding
from capkit.loaded import LoadedCaptioner
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.encoders.image import SmallCNN
from capkit.text.tokenizers import word_tokenizer


@pytest.fixture
def captioner():
    """A tiny captioner with random weights, as `capkit.load` gives one: with attention to the picture, or a prefix."""

    def of(attends=True):
        torch.manual_seed(1)
        tokenizer = word_tokenizer(["a red circle is left of the blue square , near one small green star ."])
        encoder = SmallCNN(image_size=32, channels=(4, 8, 8), blocks=(0, 0, 1), width=12)
        lm = {"model_type": "gpt2", "n_embd": 20, "n_layer": 1, "n_head": 2, "n_positions": 48}
        if attends:
            model = EncoderDecoder(tokenizer, encoder, width=16, num_heads=2, max_length=24)
        else:
            model = ClipPrefix(tokenizer=tokenizer, image_encoder=encoder, lm=lm, prefix_length=3, max_length=24)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(std=0.25)
        transform = ImageTransform(32)

        def preprocess(images):
            return transform.normalize(torch.stack([transform(image) for image in images]))

        return LoadedCaptioner(model, preprocess, Decoding(max_length=12), {}, None, torch.device("cpu"))

    return of
