"""A step of reinforcement learning as a user writes it with transformers: the other side of section step.

It is `generate` twice, `batch_decode`, CLIP's text tower over all captions, CIDEr-D as pycocoevalcap has it, and a
forward pass with each picture repeated.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, CLIPVisionModel, GPT2LMHeadModel, VisionEncoderDecoderModel

from benchmarks.speed import vocabulary
from benchmarks.speed.plain_cider import PlainCiderD
from benchmarks.speed.rollout import PREFIX, Size
from benchmarks.speed.step_setting import NUM_DOCUMENTS, Judge, Row, pictures_of


def plain_loop(row: Row, size: Size, judge: Judge, device: str) -> Callable[[], Any]:
    """One step as a user writes it with transformers."""
    torch.manual_seed(0)
    tokenizer = vocabulary.tokenizer_of(size.vocabulary)
    parts, inputs_of = (_encoder_decoder if row.model == "encoder_decoder" else _clip_cap)(row, size, tokenizer, device)
    model: Any = parts[0]
    weights = [weight for part in parts for weight in part.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-9)
    references = vocabulary.references_of(size.vocabulary, row.images)
    cider = PlainCiderD(vocabulary.references_of(size.vocabulary, min(NUM_DOCUMENTS, 100 * row.images)))
    network, reader = judge.encoder.model, judge.encoder.tokenizer
    with torch.no_grad():
        shown = judge.encoder.preprocess(list(pictures_of(row, size).values()))
        pictures = judge.encoder.encode_image(shown)
    settings: dict[str, Any] = {
        "max_new_tokens": row.length, "pad_token_id": tokenizer.pad_token_id, "top_k": 0,
        "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
    }  # fmt: skip

    def rewards_of(texts: list[str], per_image: int) -> Tensor:
        encoded = reader(texts, padding=True, truncation=True, max_length=77, return_tensors="pt").to(device)
        features = network.get_text_features(**encoded)
        features = features if isinstance(features, Tensor) else features.pooler_output
        features = nn.functional.normalize(features.float(), dim=-1)
        if row.self_retrieval:
            logits = 100 * features @ pictures.T
            own = torch.arange(row.images, device=device).repeat_interleave(per_image)
            return logits.log_softmax(-1).gather(1, own[:, None])[:, 0]
        clip = 2.5 * (features * pictures.repeat_interleave(per_image, 0)).sum(-1).clamp(min=0)
        scores = [cider.score(text, references[number // per_image]) for number, text in enumerate(texts)]
        return clip + torch.tensor(scores, device=device)

    def step() -> Any:
        with torch.autocast(device, torch.bfloat16):
            with torch.no_grad():
                model.eval()
                given = inputs_of(1)
                written = model.generate(**given, do_sample=True, num_return_sequences=row.samples, **settings)
                rewards = rewards_of(tokenizer.batch_decode(written, skip_special_tokens=True), row.samples)
                baseline: Any = 0.0
                if not row.self_retrieval:
                    best = model.generate(**given, do_sample=False, **settings)
                    baseline = rewards_of(tokenizer.batch_decode(best, skip_special_tokens=True), 1)
                    baseline = baseline.repeat_interleave(row.samples)
            model.train()
            new = written[:, -row.length :]
            logits = model(**inputs_of(row.samples, new)).logits[:, -row.length - 1 : -1]
            logprobs = logits.float().log_softmax(-1).gather(-1, new[..., None])[..., 0]
            mask = new != tokenizer.pad_token_id
            loss = -((rewards - baseline)[:, None] * logprobs * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        return loss.item()

    return step


Inputs = Callable[..., dict[str, Any]]


def _encoder_decoder(row: Row, size: Size, tokenizer: Any, device: str) -> tuple[list[Any], Inputs]:
    decoder = AutoConfig.for_model(**size.gpt2, is_decoder=True, add_cross_attention=True)
    vision = AutoConfig.for_model("vit", **size.vision)
    config = AutoConfig.for_model("vision-encoder-decoder", encoder=vision.to_dict(), decoder=decoder.to_dict())
    config.decoder_start_token_id = tokenizer.bos_token_id
    with torch.device(device):
        model: Any = VisionEncoderDecoderModel(config)
    model.generation_config.decoder_start_token_id = tokenizer.bos_token_id
    language = model.decoder.transformer
    vocabulary.favour_common_words(tokenizer, size.vocabulary, language.ln_f, language.wte.weight)
    pixels = torch.randn(row.images, 3, size.image, size.image, device=device)

    def inputs_of(repeats: int, new: Tensor | None = None) -> dict[str, Any]:
        given = {"pixel_values": pixels.repeat_interleave(repeats, 0) if new is not None else pixels}
        if new is not None:
            start = torch.full((len(new), 1), tokenizer.bos_token_id, device=device)
            given["decoder_input_ids"] = torch.cat([start, new, start], 1)[:, : row.length + 1]
        return given

    return [model], inputs_of


def _clip_cap(row: Row, size: Size, tokenizer: Any, device: str) -> tuple[list[Any], Inputs]:
    clip = AutoConfig.for_model("clip_vision_model", **{**size.vision, "patch_size": 2 * size.patch})
    with torch.device(device):
        model: Any = GPT2LMHeadModel(AutoConfig.for_model(**size.gpt2))
        encoder = CLIPVisionModel(clip).eval().requires_grad_(False)
    language = model.transformer
    vocabulary.favour_common_words(tokenizer, size.vocabulary, language.ln_f, language.wte.weight)
    mapper = nn.Sequential(
        nn.Linear(size.width, PREFIX * size.width // 2), nn.Tanh(),
        nn.Linear(PREFIX * size.width // 2, PREFIX * size.width),
    ).to(device)  # fmt: skip
    pixels = torch.randn(row.images, 3, size.image, size.image, device=device)

    def inputs_of(repeats: int, new: Tensor | None = None) -> dict[str, Any]:
        prefix = mapper(encoder(pixel_values=pixels).pooler_output).unflatten(-1, (PREFIX, -1))
        embed = model.get_input_embeddings()
        start = torch.full((row.images, 1), tokenizer.bos_token_id, device=device)
        given = torch.cat([prefix.to(embed.weight.dtype), embed(start)], 1)
        if new is not None:
            given = torch.cat([given.repeat_interleave(repeats, 0), embed(new)], 1)
        return {"inputs_embeds": given}

    return [model, mapper], inputs_of
