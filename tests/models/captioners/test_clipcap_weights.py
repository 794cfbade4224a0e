"""Released ClipCap weights: files of its format at tiny size, against its forward pass computed from the state dict."""

import re

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch

PREFIX, FEATURES, WIDTH, TOKENS, LAYERS, HEADS = 3, 6, 16, 2, 2, 8  # the released transformer has 8 heads at any width
GPT2 = {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 48}
MASK = re.compile(r"\.attn\.(masked_)?bias$")
MAPPERS = {
    "mlp": {"mapper": "mlp"},
    "transformer": {"mapper": "transformer", "mapper_layers": LAYERS, "mapper_tokens": TOKENS},
}


def tokenizer():
    words = word_tokenizer(["a b c d e f ."])
    words.bos_token = words.pad_token = words.eos_token  # as GPT-2's
    return words


def released(mapper):
    """A state dict with the names and shapes of the released files, of random numbers."""
    torch.manual_seed(4)
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer()), **GPT2))
    state = {f"gpt.{name}": value for name, value in gpt.state_dict().items()}
    for layer in range(2):
        state[f"gpt.transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 48, 48).tril().to(torch.uint8)
        state[f"gpt.transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    size, shapes = PREFIX * WIDTH, {}
    if mapper == "mlp":
        shapes |= {"model.0.weight": (size // 2, FEATURES), "model.0.bias": (size // 2,)}
        shapes |= {"model.2.weight": (size, size // 2), "model.2.bias": (size,)}
    else:
        shapes |= {"linear.weight": (TOKENS * WIDTH, FEATURES), "linear.bias": (TOKENS * WIDTH,)}
        shapes["prefix_const"] = (PREFIX, WIDTH)
        for layer in range(LAYERS):
            of_layer = {
                **{f"norm{i}.{part}": (WIDTH,) for i in (1, 2) for part in ("weight", "bias")},
                "attn.to_queries.weight": (WIDTH, WIDTH),
                "attn.to_keys_values.weight": (2 * WIDTH, WIDTH),
                **{"attn.project.weight": (WIDTH, WIDTH), "attn.project.bias": (WIDTH,)},
                **{"mlp.fc1.weight": (2 * WIDTH, WIDTH), "mlp.fc1.bias": (2 * WIDTH,)},
                **{"mlp.fc2.weight": (WIDTH, 2 * WIDTH), "mlp.fc2.bias": (WIDTH,)},
            }
            shapes |= {f"transformer.layers.{layer}.{name}": shape for name, shape in of_layer.items()}
    return state | {f"clip_project.{name}": 0.4 * torch.randn(shape) for name, shape in shapes.items()}


def prefix_of(state, features):
    """The mapping network's output for one picture's feature, attention by attention."""
    part = {name.removeprefix("clip_project."): value.double() for name, value in state.items()}

    def linear(name, x):
        return x @ part[f"{name}.weight"].T + part.get(f"{name}.bias", 0.0)

    if "model.0.weight" in part:
        return linear("model.2", torch.tanh(linear("model.0", features))).reshape(PREFIX, WIDTH)

    def norm(name, x):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * part[f"{name}.weight"] + part[f"{name}.bias"]

    x = torch.cat([linear("linear", features).reshape(TOKENS, WIDTH), part["prefix_const"]])
    for layer in range(LAYERS):
        name, width = f"transformer.layers.{layer}", WIDTH // HEADS
        y = norm(f"{name}.norm1", x)
        queries = linear(f"{name}.attn.to_queries", y)
        keys, values = linear(f"{name}.attn.to_keys_values", y).split(WIDTH, -1)
        heads = []
        for head in range(HEADS):
            at = slice(head * width, (head + 1) * width)
            weights = (queries[:, at] @ keys[:, at].T / width**0.5).softmax(-1)
            heads.append(weights @ values[:, at])
        x = x + linear(f"{name}.attn.project", torch.cat(heads, -1))
        x = x + linear(f"{name}.mlp.fc2", linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", x)).relu())
    return x[TOKENS:]


def next_words(state, prefix, words):
    """Logits after the prefix and after each word: the last embedding of the prefix predicts the first word."""
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer()), **GPT2)).double().eval()
    weights = {name.removeprefix("gpt."): value for name, value in state.items() if name.startswith("gpt.")}
    gpt.load_state_dict({name: value for name, value in weights.items() if not MASK.search(name)})
    embeds = torch.cat([prefix, gpt.transformer.wte.weight[words]])
    return gpt(inputs_embeds=embeds[None]).logits[0, PREFIX - 1 :]


def loaded(path, kind, state=None, **settings):
    torch.save(released(kind) if state is None else state, path)
    arguments = {"lm": {"model_type": "gpt2", **GPT2}, "tokenizer": tokenizer(), "feature_width": FEATURES}
    arguments |= {"prefix_length": PREFIX, "max_length": 24, **MAPPERS[kind]}
    return ClipPrefix(**(arguments | {"bos_after_prefix": False, "clipcap_weights": str(path)} | settings)).eval()


def batch(model, words):
    features = torch.randn(2, 1, FEATURES, generator=torch.Generator().manual_seed(7))
    tokens = torch.tensor([[[model.tokenizer.bos_token_id, *words]]] * 2)
    return CaptionBatch(["x", "y"], None, features, tokens, torch.ones_like(tokens, dtype=torch.bool))


@pytest.mark.parametrize("mapper", MAPPERS)
def test_prefix_and_logits_are_the_released_models(mapper, tmp_path):
    model, state, words = loaded(tmp_path / "weights.pt", mapper), released(mapper), [4, 6, 5, 9]
    given = batch(model, words)
    context = model.encode(given)
    logits = model(context, given.tokens, given.mask)
    for picture in range(2):
        prefix = prefix_of(state, given.features[picture, 0].double())
        torch.testing.assert_close(context.states[picture].double(), prefix, atol=1e-5, rtol=1e-4)
        expected = next_words(state, prefix, words)
        torch.testing.assert_close(logits[picture, 0].double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mapper", MAPPERS)
def test_greedy_captions_are_the_released_models(mapper, tmp_path):
    """Word by word, until the first "."."""
    model, state = loaded(tmp_path / "weights.pt", mapper), released(mapper)
    given = batch(model, [])
    samples = model.generate(model.encode(given), Decoding(max_length=9, stop="."))
    for picture in range(2):
        prefix, words = prefix_of(state, given.features[picture, 0].double()), []
        stops = {model.tokenizer.eos_token_id, model.tokenizer.convert_tokens_to_ids(".")}
        while len(words) < 9 and not stops & set(words):
            words.append(int(next_words(state, prefix, words)[-1].argmax()))
        written = samples.tokens[picture, 0][samples.mask[picture, 0]].tolist()[1:]
        assert written[: len(words)] == words
        assert len(written) <= len(words) + 1


def test_bos_between_prefix_and_caption_gives_other_logits(tmp_path):
    """The control: the released weights must not be read with a BOS."""
    without, with_bos = (loaded(tmp_path / f"{b}.pt", "mlp", bos_after_prefix=b) for b in (False, True))
    given = batch(without, [4, 6])
    one, other = (model(model.encode(given), given.tokens, given.mask) for model in (without, with_bos))
    assert one.shape == other.shape
    assert not torch.allclose(one, other, atol=1e-2)


def test_loaded_weights_are_trained(tmp_path):
    model = loaded(tmp_path / "weights.pt", "transformer")
    given = batch(model, [4, 6, 5])
    model.token_losses(model.encode(given), given.tokens, given.mask, 0.0).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        (lambda s: s, {"mapper": "transformer", "mapper_layers": 1}, r"missing: mapper\.layers\.layers\.0.*set mapper"),
        (lambda s: s, {"prefix_length": 4}, r"of another shape: mapper\.layers\.0\.bias \(24,\) for \(32,\)"),
        (lambda s: s, {"lm": {"model_type": "gpt2", **GPT2, "n_layer": 1}}, r"unknown: lm\.transformer\.h\.1"),
        (lambda s: {n: v for n, v in s.items() if "model.2" not in n}, {}, r"missing: mapper\.layers\.2\.bias"),
        (
            lambda s: s | {"clip_project.extra": torch.ones(1)},
            {},
            "'clip_project.extra', which ClipCap's models",
        ),
        (
            lambda s: {n.removeprefix("clip_project."): v for n, v in s.items()},
            {},
            "expected a state dict with clip",
        ),
        (lambda s: [1, 2], {}, "expected a state dict with clip_project"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(change, settings, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        loaded(tmp_path / "weights.pt", "mlp", change(released("mlp")), **settings)


def test_a_file_that_is_none_or_no_checkpoint_is_named(tmp_path):
    model = {"feature_width": FEATURES, "lm": {"model_type": "gpt2", **GPT2}, "tokenizer": tokenizer()}
    (tmp_path / "text.pt").write_text("weights")
    for name, words in (("absent.pt", "no file .*absent"), ("text.pt", "cannot be read")):
        with pytest.raises(UsageError, match=words):
            ClipPrefix(**model, max_length=24, clipcap_weights=str(tmp_path / name))
