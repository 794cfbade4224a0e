"""Prompts of their own for captions: a text writer and a captioner with a prefix against one prompt at a time.

The reference is transformers' language model on one unpadded row of ids: prompt, then caption.
"""

import copy

import pytest
import torch
from prompted import (
    CAPTIONS,
    METHODS,
    PROMPTS,
    assert_adapters_alone_train,
    assert_decoding_is_teacher_forcing,
    assert_logprobs_and_gradients,
    assert_missing_captions_cost_nothing,
    assert_one_prompt_serves_all,
    assert_prompts_matter_and_padding_does_not,
    draw_weights,
)
from tiny_captioners import GPT2, LLAMA, VISION, tiny_tokenizer

from capkit.decoding.config import Decoding
from capkit.decoding.guide import Guide
from capkit.errors import UsageError
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.captioners.text_writer import TextWriter
from capkit.models.encoders.image import HFImageEncoder
from capkit.text.prompt_encoder import PromptEncoder, stack_prompts
from capkit.text.tokenizers import encode_captions
from capkit.types import CaptionBatch

LMS = {"gpt2": GPT2, "llama": LLAMA}


def writer(lm="llama", **settings):
    torch.manual_seed(1)
    return draw_weights(TextWriter(LMS[lm], tiny_tokenizer(), max_length=40, **settings), std=0.25)


def prefixed(lm):
    torch.manual_seed(1)
    encoder = HFImageEncoder(config={"model_type": "vit", **VISION})
    model = ClipPrefix(
        LMS[lm], tiny_tokenizer(), encoder, prefix_length=3, max_length=40, conditions={"length": "length"}
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.25)
    return model.eval()


def prompt_ids(model, prompts=PROMPTS):
    encode = PromptEncoder(model.tokenizer, 30)
    return [[encode(prompt) for prompt in of_image] for of_image in prompts]


def batch_for(model, prompts=PROMPTS, captions=CAPTIONS):
    tokens, mask, length = encode_captions(model.tokenizer, captions, "", 16)
    ids, real = stack_prompts(prompt_ids(model, prompts), model.tokenizer.pad_token_id)
    pixels = torch.randn(len(captions), 3, 32, 32, generator=torch.Generator().manual_seed(1))
    keys = [f"{number}" for number in range(len(captions))]
    conditions = {"length": torch.tensor([[2.0, 3.0]]).expand(len(captions), 2)}
    return CaptionBatch(keys, pixels, None, tokens, mask, length, prompts=ids, prompts_mask=real, conditions=conditions)


def one_by_one(model, batch, prompts=PROMPTS):
    """Log-probabilities of each caption's tokens, each row alone and without padding, by the language model itself."""
    rows = []
    for image, of_image in enumerate(prompt_ids(model, prompts)):
        for number, prompt in enumerate(of_image):
            real = batch.tokens[image, number][batch.mask[image, number]][1:]
            ids = torch.cat([torch.tensor(prompt), real])
            embeds, positions = model.lm.get_input_embeddings()(ids)[None], torch.arange(len(ids))[None]
            if isinstance(model, ClipPrefix):
                context = model.encode(batch[image : image + 1])
                prefix, conditions = context.states, context.conditions[:, number]
                embeds = torch.cat([prefix, conditions, embeds], 1)
                # conditions have the position of what follows them
                positions = torch.cat([torch.arange(3), torch.tensor([3]), 3 + torch.arange(len(ids))])[None]
            logits = model.lm(inputs_embeds=embeds, position_ids=positions).logits[0, -len(real) - 1 : -1]
            rows.append(logits.log_softmax(-1).gather(-1, real[:, None])[:, 0])
    return rows


@pytest.fixture(params=["writer-gpt2", "writer-llama", "prefix-gpt2", "prefix-llama"])
def model(request):
    kind, lm = request.param.split("-")
    return writer(lm) if kind == "writer" else prefixed(lm)


def test_logprobs_and_gradients_are_those_of_prompt_and_caption_one_by_one(model):
    batch = batch_for(model)
    assert_logprobs_and_gradients(model, batch, one_by_one(model, batch))


def test_another_prompt_gives_another_caption_and_padding_none(model):
    assert_prompts_matter_and_padding_does_not(model, batch_for)


WAYS = METHODS | {"first words": (Decoding(max_length=8, prompt="the star"), 1)}


@pytest.mark.parametrize(("decoding", "num_samples"), WAYS.values(), ids=WAYS)
def test_decoding_equals_teacher_forcing_whatever_else_is_in_the_batch(model, decoding, num_samples):
    given = decoding.prompt.split()
    texts = assert_decoding_is_teacher_forcing(model, batch_for(model), decoding, num_samples, len(given))
    assert all(text.split()[: len(given)] == given for of_image in texts for text in of_image)


@pytest.mark.parametrize("lm", LMS)
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}], ids=["greedy", "beam"])
def test_a_writer_writes_what_generate_of_transformers_writes_of_each_prompt_alone(lm, settings):
    model = writer(lm)
    method = {"method": "beam", **settings} if settings else {}
    written = model.generate(model.encode(batch_for(model)), Decoding(**method, max_length=8))
    for image, of_image in enumerate(prompt_ids(model)):
        for number, prompt in enumerate(of_image):
            ids = torch.tensor([prompt])
            out = model.lm.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, **settings
            )
            text = model.tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True)
            assert written.texts[image][number] == text.strip()


def test_samples_of_a_prompt_of_an_image_share_it(model):
    batch = batch_for(model)
    batch.conditions = {}
    one = assert_one_prompt_serves_all(model, batch)
    greedy = model.generate(one, Decoding("sample", max_length=8), 2, with_greedy=True)
    assert [texts[2:] for texts in greedy.texts] == model.generate(one, Decoding(max_length=8)).texts


def test_a_missing_caption_of_an_image_is_no_number_that_spreads(model):
    assert_missing_captions_cost_nothing(model, batch_for)


def test_guidance_of_a_prefix_keeps_the_prompts_and_a_writer_has_none():
    model = prefixed("gpt2")
    context = model.encode(batch_for(model))
    plain, same, other = (
        model.generate(context, Decoding(max_length=8, guide=guide)).texts for guide in (None, Guide(1.0), Guide(3.0))
    )
    assert plain == same != other
    model = writer()
    with pytest.raises(UsageError, match="reads text alone; set decoding=greedy"):
        model.generate(model.encode(batch_for(model)), Decoding(max_length=8, guide=Guide(2.0)))
    with pytest.raises(UsageError, match="no picture to do without"):
        model.null_context(2, "cpu")


def test_adapters_alone_train_and_the_first_answers_are_the_base_models():
    plain = writer()
    assert_adapters_alone_train(plain, writer(lora={"rank": 2}), batch_for(plain))


def test_what_does_not_fit_or_cannot_be_read_is_told():
    model = writer()
    batch = batch_for(model)
    with pytest.raises(UsageError, match="expected one with each caption, got none; take data=answers"):
        model.encode(CaptionBatch(["a"], tokens=batch.tokens[:1], mask=batch.mask[:1]))
    long = copy.copy(batch)
    long.prompts = torch.nn.functional.pad(batch.prompts, (30, 0))
    long.prompts_mask = torch.nn.functional.pad(batch.prompts_mask, (30, 0))
    with pytest.raises(UsageError, match="=40 tokens; got"):
        model.logprobs(model.encode(long), batch.tokens, batch.mask)
    with pytest.raises(UsageError, match="prompt and caption must fit the model's 40 positions; got"):
        model.generate(model.encode(long), Decoding(max_length=20))
    with pytest.raises(UsageError, match="48 positions; got max_length=64"):
        TextWriter(GPT2, tiny_tokenizer(), max_length=64)
    bloom = {"model_type": "bloom", "hidden_size": 16, "n_layer": 1, "n_head": 2}
    with pytest.raises(UsageError, match="bloom counts its own"):
        TextWriter(bloom, tiny_tokenizer(), max_length=24)
    without = ClipPrefix(GPT2, tiny_tokenizer(), feature_width=8, max_length=24, bos_after_prefix=False)
    batch.pixels, batch.features = None, torch.zeros(3, 1, 8)
    with pytest.raises(UsageError, match="expected captions without prompts, which ClipPrefix does not read"):
        without.encode(batch)


def test_as_many_captions_as_prompts_are_wanted():
    model = writer()
    batch = batch_for(model)
    with pytest.raises(UsageError, match="got 9 captions and 6 prompts of 3 images"):
        model.logprobs(model.encode(batch), batch.tokens[:, [0, 1, 1]], batch.mask[:, [0, 1, 1]])
