"""A tiny model of open_clip with random weights, in a folder as its hub models are. open_clip says what is expected.
Without the package only its absence is tested.
"""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch

from capkit.errors import UsageError
from capkit.models.dual_encoders.open_clip_two_tower import OpenClipTwoTower
from capkit.models.tuning.policy import Tuning
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch

TEXTS = ["a red circle", "one", "a blue square left of a red circle"]
needs_open_clip = pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="needs capkit[openclip]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import open_clip
    from transformers import XLMRobertaConfig

    folder = tmp_path_factory.mktemp("xlmr_vit")
    tokenizer = word_tokenizer(TEXTS)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    XLMRobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=40, **sizes, **ids).save_pretrained(
        folder / "text"
    )
    text = {"hf_model_name": str(folder / "text"), "hf_tokenizer_name": str(folder), "hf_pooler_type": "mean_pooler"}
    vision = {"image_size": 32, "layers": 2, "width": 24, "head_width": 12, "patch_size": 16}
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}}
    config["preprocess_cfg"] = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    torch.save(network.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    import open_clip

    return open_clip.create_model(f"local-dir:{folder}", require_pretrained=True).eval()


@needs_open_clip
def test_texts_and_images_are_embedded_as_open_clip_does(folder, theirs):
    ours = OpenClipTwoTower(f"local-dir:{folder}").eval()
    tokens, mask = ours.tokenize(TEXTS)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours.encode_text(TEXTS), theirs.encode_text(tokens, normalize=True))
        torch.testing.assert_close(ours.encode_image(pixels), theirs.encode_image(pixels, normalize=True))
        assert float(ours.logit_scale) == pytest.approx(float(theirs.logit_scale.exp()), rel=1e-6)
    assert mask.sum(1).tolist() == [5, 3, 10], "words, and the ends"


@needs_open_clip
def test_pictures_are_preprocessed_as_open_clip_does(folder):
    from open_clip import create_model_and_transforms
    from PIL import Image

    ours, theirs = OpenClipTwoTower(f"local-dir:{folder}"), create_model_and_transforms(f"local-dir:{folder}")[2]
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    assert torch.equal(ours.preprocess([picture])[0], theirs(Image.fromarray(picture)))
    assert "0.4, 0.5, 0.6" in ours.about_preprocessing()["mean"]


@needs_open_clip
def test_the_last_layers_of_the_text_tower_are_tuned(folder):
    model = OpenClipTwoTower(
        f"local-dir:{folder}", tune_image=Tuning("frozen"), tune_text=Tuning("last_n", n=1)
    ).train()
    batch = CaptionBatch(["0"], pixels=torch.randn(1, 3, 32, 32))
    batch.tokens, batch.mask, _ = model.encode([["a red circle"]])
    pairs = model(batch)
    (pairs.texts * torch.randn(16)).sum().backward()
    trained = {
        name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.requires_grad
    }
    last = {name.partition(".layer.")[2][:2] for name in trained if name.startswith("text_tower")}
    assert last == {"2."} and {name for name in trained if not name.startswith("text_tower")} == {
        "text_projection.0.weight", "text_projection.2.weight",
    }  # fmt: skip
    patches = model.embed_patches(batch)
    assert patches.shape == (1, 4, 16) and not patches.requires_grad
    torch.testing.assert_close(patches.norm(dim=-1), torch.ones(1, 4))


@needs_open_clip
def test_missing_weights_and_other_towers_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="could not load"):
        OpenClipTwoTower(f"local-dir:{tmp_path}")
    (tmp_path / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    with pytest.raises(UsageError, match="could not load"):
        OpenClipTwoTower(f"local-dir:{tmp_path}")
    with pytest.raises(UsageError, match=r"could not load.*no-such-tag"):
        OpenClipTwoTower("xlm-roberta-large-ViT-H-14", pretrained="no-such-tag")


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UsageError, match=r"not installed.*pip install 'capkit\[openclip\]'"):
        OpenClipTwoTower("xlm-roberta-large-ViT-H-14", pretrained="frozen_laion5b_s13b_b90k")
