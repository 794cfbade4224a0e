"""What section step measures: its rows, the judge, the captioner, and capkit's module."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from benchmarks.speed import vocabulary
from benchmarks.speed.rollout import PREFIX, Size
from capkit.decoding.config import Decoding
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.dual_encoders.hf_frozen import HFDualEncoder
from capkit.models.encoders.image import HFImageEncoder
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.scorers.cider import CiderD
from capkit.scorers.clip_score import ClipScore
from capkit.scorers.reward import Reward, RewardTerm
from capkit.scorers.self_retrieval import SelfRetrieval
from capkit.train.rl.module import RLModule
from capkit.types import CaptionBatch

NUM_DOCUMENTS = 5_000  # images of which CIDEr's document frequencies are counted


@dataclass(frozen=True)
class Row:
    """`self_retrieval`: its reward and no greedy caption; else CLIPScore and CIDEr-D against the greedy caption."""

    model: str
    images: int
    samples: int
    self_retrieval: bool = False
    new_pictures: bool = False  # that the judge has not seen, 640 x 480 JPEG, beside those it has
    length: int = 20

    @property
    def name(self) -> str:
        kind = "self-retrieval" if self.self_retrieval else "self-critical"
        pictures = ", new pictures" if self.new_pictures else ""
        return f"{kind} {self.model} {self.images} x {self.samples} x {self.length}{pictures}"


ROWS = [
    Row("encoder_decoder", 64, 5),
    Row("encoder_decoder", 64, 5, new_pictures=True),
    Row("clip_prefix", 100, 1, self_retrieval=True),
]


@dataclass(frozen=True)
class Judge:
    """CLIP ViT-B/32 in size, with random weights. Both sides share the network."""

    encoder: HFDualEncoder

    @classmethod
    def of(cls, size: Size, device: str) -> "Judge":
        torch.manual_seed(1)
        tokenizer = vocabulary.judge_tokenizer_of(size.vocabulary)
        text = {
            "hidden_size": 2 * size.width // 3 // 16 * 16, "num_hidden_layers": size.layers, "num_attention_heads": 8,
            "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id, "max_position_embeddings": 77,
        }  # fmt: skip
        text["intermediate_size"] = 4 * text["hidden_size"]
        vision = {**size.vision, "patch_size": 2 * size.patch}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=text["hidden_size"])
        with torch.device(device):
            network = CLIPModel(config)
        side = {"height": size.image, "width": size.image}
        reader = CLIPImageProcessor(size={"shortest_edge": size.image}, crop_size=side)
        return cls(HFDualEncoder(network, tokenizer, reader).to(device))


def pictures_of(row: Row, size: Size) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {str(i): draw.integers(0, 256, (size.image, size.image, 3), np.uint8) for i in range(row.images)}


def captioner_of(row: Row, size: Size) -> Any:
    torch.manual_seed(0)
    tokenizer = vocabulary.tokenizer_of(size.vocabulary)
    if row.model == "encoder_decoder":
        vision = HFImageEncoder(config={"model_type": "vit", **size.vision})
        model: Any = EncoderDecoder(tokenizer, vision, width=size.width, num_layers=size.layers, num_heads=size.heads)
        norm, embedding = model.decoder.norm, model.decoder.embedding.weight
    else:
        clip = {"model_type": "clip_vision_model", **size.vision, "patch_size": 2 * size.patch}
        encoder = HFImageEncoder(config=clip, output="pooled", frozen=True)
        model = ClipPrefix(size.gpt2, tokenizer, encoder, prefix_length=PREFIX)
        norm, embedding = model.lm.base_model.ln_f, model.lm.get_input_embeddings().weight
    vocabulary.favour_common_words(tokenizer, size.vocabulary, norm, embedding)
    return model


def module_of(row: Row, size: Size, judge: Judge, device: str, captioner: Any = None) -> tuple[RLModule, CaptionBatch]:
    """capkit's module, of `captioner` or the row's own, with its reward prepared; and a batch."""
    pictures = pictures_of(row, size)
    references = vocabulary.references_of(size.vocabulary, row.images)
    if row.self_retrieval:
        reward = Reward({"self_retrieval": RewardTerm(SelfRetrieval(judge.encoder))})
    else:
        cider = CiderD()
        reward = Reward({"clip_score": RewardTerm(ClipScore(judge.encoder)), "cider": RewardTerm(cider)})
    corpus = vocabulary.references_of(size.vocabulary, min(NUM_DOCUMENTS, 100 * row.images))
    reward.prepare(pictures.get, lambda: corpus, device)
    decoding = Decoding("sample", max_length=row.length)
    objective = SelfCritical(decoding, row.samples, baseline="none" if row.self_retrieval else "greedy")
    with torch.device(device):
        model = captioner or captioner_of(row, size)
    module = RLModule(model, objective, reward, AdamW(lr=1e-9), Constant(), Decoding())
    pixels = torch.randn(row.images, 3, size.image, size.image)
    batch = CaptionBatch(list(pictures), pixels=pixels, references=references, metadata=[{} for _ in pictures])
    return module, batch.to(device)
