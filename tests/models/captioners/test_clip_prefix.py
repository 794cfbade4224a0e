import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.models.captioners.clip_prefix import ClipPrefix, MLPMapper, TransformerMapper
from capkit.models.tuning.lora import adapters_off
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.types import CaptionBatch

GPT2 = {"model_type": "gpt2", "n_embd": 20, "n_layer": 2, "n_head": 2, "n_positions": 48}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": 48,
}


def gpt2_like_tokenizer():
    """As GPT-2's: one token is BOS, EOS and padding, and token 0 is a real word."""
    tokenizer = word_tokenizer(["a b c d e f ."])
    tokenizer.bos_token = tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def model(**settings):
    torch.manual_seed(0)
    arguments = {"lm": GPT2, "tokenizer": gpt2_like_tokenizer(), "feature_width": 6, "prefix_length": 3}
    return ClipPrefix(**(arguments | {"max_length": 24} | settings))


def make_batch(tokenizer, captions, num_tokens=4):
    tokens, mask, prompt_length = encode_captions(tokenizer, captions, "", 16)
    features = torch.randn(len(captions), num_tokens, 6, generator=torch.Generator().manual_seed(2))
    return CaptionBatch([str(i) for i in range(len(captions))], None, features, tokens, mask, prompt_length)


def test_logits_equal_the_language_model_on_prefix_and_caption_embeddings():
    m = model().eval()
    batch = make_batch(m.tokenizer, [["a b", "c"], ["f e d c", "."]])
    context = m.encode(batch)
    logits = m(context, batch.tokens, batch.mask)
    for b in range(2):
        for k in range(2):
            words = batch.tokens[b, k][batch.mask[b, k]]
            embeds = torch.cat([context.states[b], m.lm.transformer.wte(words)])[None]
            expected = m.lm(inputs_embeds=embeds).logits[0, 3:]
            torch.testing.assert_close(logits[b, k, : len(words)], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("lm", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_eager_attention_attends_where_the_others_do(lm):
    """It adds its mask to scores: True and False would let a token see those behind it."""
    m = model(lm=lm).eval()
    batch = make_batch(m.tokenizer, [["a b", "c"], ["f e d c", "."]])
    context = m.encode(batch)
    usual = m(context, batch.tokens, batch.mask)
    m.lm.set_attn_implementation("eager")
    torch.testing.assert_close(m(context, batch.tokens, batch.mask), usual)


def test_mlp_mapper_is_tanh_between_two_layers_of_the_mean():
    mapper, features = MLPMapper(6, 3, 8), torch.randn(2, 5, 6)
    first, _, second = mapper.layers
    assert first.out_features == 12  # half of 3 x 8
    expected = second(torch.tanh(first(features.mean(1)))).reshape(2, 3, 8)
    torch.testing.assert_close(mapper(features), expected)


def test_transformer_mapper_gives_its_queries_outputs():
    mapper, features = TransformerMapper(6, 3, 8, 1, 2, num_tokens=2), torch.randn(2, 5, 6)
    assert mapper(features).shape == (2, 3, 8)
    changed = features.clone()
    changed[0, 4] += 1
    assert not torch.allclose(mapper(features)[0], mapper(changed)[0])
    torch.testing.assert_close(mapper(features)[1], mapper(changed)[1])


@pytest.mark.parametrize("normalize", ["l2", "layer"])
def test_normalised_features_do_not_carry_their_scale(normalize):
    m = model(normalize=normalize).eval()
    features = torch.randn(2, 4, 6)
    one, other = (m.encode(CaptionBatch(["x", "y"], features=f)).states for f in (features, 10 * features))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    plain = model().eval()
    one, other = (plain.encode(CaptionBatch(["x", "y"], features=f)).states for f in (features, 10 * features))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("mapper", ["mlp", "transformer"])
def test_gradient_reaches_the_mapper_through_a_frozen_language_model(mapper):
    m = model(freeze_lm=True, mapper=mapper, mapper_layers=1, mapper_heads=2)
    m.train()
    batch = make_batch(m.tokenizer, [["a b"], ["c d e"]])
    m.token_losses(m.encode(batch), batch.tokens, batch.mask, 0.0).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in m.mapper.parameters())
    assert all(p.grad is None for p in m.lm.parameters())
    assert not any(module.training for module in m.lm.modules())
    assert m.mapper.training


def test_lora_trains_adapters_alone_and_starts_at_the_pretrained_model():
    plain = model(lm=LLAMA).eval()
    m = model(lm=LLAMA, lora={"rank": 2, "alpha": 4, "targets": ["q_proj", "down_proj"]}).eval()
    trainable = {n for n, p in m.lm.named_parameters() if p.requires_grad}
    assert len(trainable) == 4
    assert all("lora_" in name for name in trainable)
    batch = make_batch(m.tokenizer, [["a b"], ["c d e"]])
    m.mapper.load_state_dict(plain.mapper.state_dict())
    with adapters_off(m.lm):
        reference = m.logprobs(m.encode(batch), batch.tokens, batch.mask)
    adapted = m.logprobs(m.encode(batch), batch.tokens, batch.mask)
    torch.testing.assert_close(adapted, reference)  # B starts at zero
    for name, parameter in m.lm.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    assert not torch.allclose(m.logprobs(m.encode(batch), batch.tokens, batch.mask), reference)
    with adapters_off(m.lm):
        torch.testing.assert_close(m.logprobs(m.encode(batch), batch.tokens, batch.mask), reference)


def test_eos_and_token_zero_are_learned_where_eos_is_also_padding():
    tokenizer = gpt2_like_tokenizer()
    m = model(tokenizer=tokenizer)
    batch = make_batch(tokenizer, [["a b c."], ["f e"], ["b a"]])
    batch.tokens[2, 0, 1] = 0  # a word for GPT-2 ("!")
    optimizer = torch.optim.Adam(m.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        m.token_losses(m.encode(batch), batch.tokens, batch.mask, 0.0).sum().backward()
        optimizer.step()
    samples = m.generate(m.encode(batch), Decoding(max_length=10))
    assert samples.ended.all()
    assert samples.tokens[samples.mask].tolist() == batch.tokens[batch.mask].tolist()


def test_language_model_loads_from_a_folder_with_its_tokenizer(tmp_path):
    tokenizer = gpt2_like_tokenizer()
    sizes = {key: value for key, value in GPT2.items() if key != "model_type"}
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).eval()
    lm.bfloat16().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    m = model(lm=str(tmp_path), tokenizer=None).eval()
    assert m.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert {p.dtype for p in m.parameters()} == {torch.float32}
    torch.testing.assert_close(m.lm.transformer.wte.weight, lm.transformer.wte.weight.float())
    fresh = model(lm=str(tmp_path), tokenizer=None, pretrained=False)
    assert not torch.equal(fresh.lm.transformer.wte.weight, m.lm.transformer.wte.weight)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mapper": "mlpp"}, "mlp or transformer"),
        ({"normalize": "yes"}, "none, l2 or layer"),
        ({"feature_width": None}, "image_encoder"),
        ({"freeze_lm": True, "lora": {}}, "set one of them"),
        ({"lora": {"rnk": 2}}, "did you mean 'rank'"),
        ({"lora": {"targets": ["nothing"]}}, "match nothing"),
        ({"max_length": 46}, "48 positions"),
        ({"lm": "/nowhere/at/all"}, "language model '/nowhere/at/all'"),
        ({"lm": {"n_embd": 20}}, "model_type"),
        ({"lm": {**GPT2, "vocab_size": 5}}, "embeds only 5"),
    ],
)
def test_wrong_arguments_are_usage_errors(wrong, words):
    with pytest.raises(UsageError, match=words):
        model(**wrong)
