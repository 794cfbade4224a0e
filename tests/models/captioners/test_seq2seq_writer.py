"""A sequence-to-sequence writer against transformers' own T5 on one prompt and answer at a time, without padding."""

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
from tiny_captioners import LLAMA, tiny_tokenizer

from capkit.decoding.config import Decoding
from capkit.decoding.guide import Guide
from capkit.errors import UsageError
from capkit.models.captioners.seq2seq_writer import Seq2SeqWriter
from capkit.text.prompt_encoder import PromptEncoder, stack_prompts
from capkit.text.tokenizers import encode_captions
from capkit.types import CaptionBatch

T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
FLAN = {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0}
KINDS = {"t5": T5, "flan": T5 | FLAN, "mt5": T5 | FLAN | {"model_type": "mt5"}}


def writer(kind="t5", **settings):
    torch.manual_seed(1)
    return draw_weights(Seq2SeqWriter(KINDS[kind], tiny_tokenizer(), max_length=40, **settings), std=1.0)


@pytest.fixture(params=KINDS)
def model(request):
    return writer(request.param)


def ids_of(model, prompts=PROMPTS):
    encode = model.prompt_encoder(30, False)
    return [[encode(prompt) for prompt in of_image] for of_image in prompts]


def batch_for(model, prompts=PROMPTS, captions=CAPTIONS):
    tokens, mask, length = encode_captions(model.tokenizer, captions, "", 16)
    ids, real = stack_prompts(ids_of(model, prompts), model.tokenizer.pad_token_id)
    return CaptionBatch(list("abc"), tokens=tokens, mask=mask, prompt_length=length, prompts=ids, prompts_mask=real)


def one_by_one(model, batch):
    """Log-probabilities of each answer's tokens by the whole network of transformers."""
    rows = []
    for image, of_image in enumerate(ids_of(model)):
        for number, prompt in enumerate(of_image):
            real = batch.tokens[image, number][batch.mask[image, number]]
            start = torch.tensor([model.lm.config.decoder_start_token_id])
            given = {"input_ids": torch.tensor([prompt]), "decoder_input_ids": torch.cat([start, real[1:-1]])[None]}
            logits = model.lm(**given).logits[0]
            rows.append(logits.log_softmax(-1).gather(-1, real[1:, None])[:, 0])
    return rows


def test_a_prompt_is_read_as_it_is_and_not_by_a_chat_template():
    tokenizer = tiny_tokenizer()
    words = tokenizer("a red circle")["input_ids"]
    assert writer().prompt_encoder(9, False)("a red circle") == words
    assert PromptEncoder(tokenizer, 9)("a red circle") == [*words, tokenizer.bos_token_id]
    assert writer().tokenizer.chat_template is None


def test_a_head_of_its_own_is_not_the_embedding():
    """As T5 1.1 and FLAN-T5 have one; transformers 5.24 ties the two of a network that it builds from a config."""
    tied, *others = (writer(kind).lm for kind in KINDS)
    assert tied.lm_head.weight is tied.shared.weight
    assert all(own.lm_head.weight is not own.shared.weight for own in others)


def test_logprobs_and_gradients_are_those_of_prompt_and_answer_one_by_one(model):
    batch = batch_for(model)
    assert_logprobs_and_gradients(model, batch, one_by_one(model, batch))


def test_another_prompt_gives_another_answer_and_padding_none(model):
    assert_prompts_matter_and_padding_does_not(model, batch_for)


@pytest.mark.parametrize(("decoding", "num_samples"), METHODS.values(), ids=METHODS)
def test_decoding_equals_teacher_forcing_whatever_else_is_in_the_batch(model, decoding, num_samples):
    assert_decoding_is_teacher_forcing(model, batch_for(model), decoding, num_samples)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}], ids=["greedy", "beam"])
def test_it_writes_what_generate_of_transformers_writes_of_each_prompt_alone(model, settings):
    method = {"method": "beam", **settings} if settings else {}
    written = model.generate(model.encode(batch_for(model)), Decoding(**method, max_length=8))
    for image, of_image in enumerate(ids_of(model)):
        for number, prompt in enumerate(of_image):
            out = model.lm.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, **settings)
            text = model.tokenizer.decode(out[0, 1:], skip_special_tokens=True)
            assert written.texts[image][number] == text.strip()


def test_a_prompt_of_a_record_serves_all_of_its_answers(model):
    assert_one_prompt_serves_all(model, batch_for(model))


def test_a_missing_answer_of_a_record_is_no_number_that_spreads(model):
    assert_missing_captions_cost_nothing(model, batch_for)


def test_adapters_alone_train_and_the_first_answers_are_the_base_models():
    plain = writer()
    assert_adapters_alone_train(plain, writer(lora={"rank": 2}), batch_for(plain))


def test_what_it_cannot_do_is_told():
    model = writer()
    batch = batch_for(model)
    with pytest.raises(UsageError, match="reads text alone; set decoding=greedy"):
        model.generate(model.encode(batch), Decoding(max_length=8, guide=Guide(2.0)))
    with pytest.raises(UsageError, match="no picture to do without"):
        model.null_context(2, "cpu")
    with pytest.raises(UsageError, match="expected one with each caption, got none"):
        model.encode(CaptionBatch(["a"], tokens=batch.tokens[:1], mask=batch.mask[:1]))
    for other in (LLAMA, {"model_type": "bart"}):
        with pytest.raises(UsageError, match=f"of type t5 or mt5 .*, got {other['model_type']}; take"):
            Seq2SeqWriter(other, tiny_tokenizer(), max_length=40)
