"""The likelihood of a modular captioner: by hand, against a loop, forward and gradient."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from capkit.errors import UsageError
from capkit.models.captioners.modular import ModularCaptioner
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.modular import ModularLikelihood
from capkit.optim.schedules import Constant, Linear
from capkit.text.tokenizers import CaptionEncoder, word_tokenizer
from capkit.text.word_classes import MODULES, WordClasses
from capkit.types import CaptionBatch

CAPTIONS = [["a red circle", "red"], ["a square is left of a circle"]]
TAGS = {"a": "DET", "red": "ADJ", "circle": "NOUN", "square": "NOUN", "is": "AUX", "left": "ADV", "of": "ADP"}


def build(**arguments):
    torch.manual_seed(0)
    sizes = {"feature_width": 4, "width": 8, "attention_width": 4, "num_heads": 2, "relation_layers": 0}
    model = ModularCaptioner(word_tokenizer(["a red circle is left of a square"]), **sizes, dropout=0.0, **arguments)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.5)
    return model


def batch_for(model):
    encode = CaptionEncoder(model.tokenizer, "", 16)
    tokens, mask, length = encode([CAPTIONS[0], [*CAPTIONS[1], ""]])
    mask[1, 1] = False
    tagged = [[(text, tuple(TAGS[word] for word in text.split()), "en") for text in texts] for texts in CAPTIONS]
    classes = WordClasses().of_tokens(encode, tagged, tokens.shape[-1])
    features = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    return CaptionBatch(["0", "1"], None, features, tokens, mask, length, word_classes=classes)


def naive(model, batch, weight, blocks):
    """Token by token, from logits and weights; the sum, and how many targets there are."""
    hidden, weights = model.with_weights(model.encode(batch), batch.tokens)
    logprobs = model.head(hidden).log_softmax(-1)
    total, count = torch.zeros(()), 0
    for image in range(2):
        for k in range(2):
            for place in range(1, batch.tokens.shape[-1]):
                if not batch.mask[image, k, place]:
                    continue
                count += 1
                before = image, k, place - 1
                total = total - logprobs[before][batch.tokens[image, k, place]]
                own = weights[before][:, batch.word_classes[image, k, place]]
                total = total - weight * (own[-1].log() if blocks == "last" else own.log().mean())
    return total, count


@pytest.mark.parametrize("blocks", ["last", "all"])
@pytest.mark.parametrize("kind", ["lstm", "self_attention"])
def test_it_is_the_loop_over_tokens_forward_and_gradient(blocks, kind):
    model = build(blocks=2, controller=kind)
    batch = batch_for(model)
    output = ModularLikelihood(0.7, blocks=blocks)(model, batch, 0)
    expected, count = naive(model, batch, 0.7, blocks)
    torch.testing.assert_close(output.loss_sum, expected)
    assert int(output.num_targets) == count == 4 + 2 + 8
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(loss, parameters, retain_graph=True) for loss in (output.loss_sum, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_by_hand():
    """Two targets of cross-entropy 1 and 2; their modules, object and function, have weights .5 and .25."""
    weights = torch.tensor([[[[[0.2, 0.5, 0.2, 0.1]], [[0.25, 0.25, 0.3, 0.2]]]]])

    class Model:
        def encode(self, batch):
            return SimpleNamespace()

        def token_losses_and_weights(self, context, tokens, mask, label_smoothing, inputs):
            return torch.tensor([[[1.0, 2.0]]]), weights

    tokens = torch.ones(1, 1, 3, dtype=torch.long)
    batch = CaptionBatch(["0"], tokens=tokens, mask=tokens.bool(), word_classes=torch.tensor([[[-1, 1, 0]]]))
    output = ModularLikelihood(2.0)(Model(), batch, 0)
    assert float(output.loss_sum) == pytest.approx(3 + 2 * (0.693147 + 1.386294), abs=1e-5)
    assert int(output.num_targets) == 2 and float(output.logs["controller_accuracy"]) == 0.5
    shares = {name: float(value) for name, value in output.logs.items() if name.startswith("modules/")}
    expected = {"object": [0.1, 0.25, 0.1, 0.05], "function": [0.125, 0.125, 0.15, 0.1]}  # half of the targets each
    for name in MODULES:
        assert [shares[f"modules/{name}/{module}"] for module in MODULES] == pytest.approx(expected.get(name, [0] * 4))


def test_more_padding_and_another_order_of_captions_change_nothing():
    model = build()
    batch = batch_for(model)
    loss = ModularLikelihood()
    plain = loss(model, batch, 0)
    expected = plain.loss_sum
    fills = {"tokens": 0, "mask": False, "word_classes": -1}
    wider = {name: torch.nn.functional.pad(getattr(batch, name), (0, 3), value=fill) for name, fill in fills.items()}
    padded = loss(model, replace(batch, **wider), 0)
    torch.testing.assert_close(padded.loss_sum, expected)
    assert sum(map(float, list(plain.logs.values())[1:])) == pytest.approx(1)
    for name, value in plain.logs.items():
        torch.testing.assert_close(padded.logs[name], value)
    assert replace(batch, **wider).trim().word_classes.equal(batch.word_classes)
    turned = replace(batch, **{name: getattr(batch, name).flip(1) for name in fills})
    torch.testing.assert_close(loss(model, turned, 0).loss_sum, expected)
    parts = sum(loss(model, batch[row : row + 1], 0).loss_sum for row in range(2))
    torch.testing.assert_close(parts, expected)


def test_the_weight_may_be_a_schedule_and_validation_is_the_cross_entropy():
    model = build()
    batch = batch_for(model)
    plain = CrossEntropy()(model, batch, 0).loss_sum
    torch.testing.assert_close(ModularLikelihood(0.0)(model, batch, 0).loss_sum, plain)
    falling = ModularLikelihood(Linear(2.0, 0.0), total_steps=10)
    halfway, expected = falling(model, batch, 5).loss_sum, ModularLikelihood(1.0)(model, batch, 0).loss_sum
    torch.testing.assert_close(halfway, expected)
    with torch.no_grad():
        torch.testing.assert_close(ModularLikelihood(3.0)(model, batch, 0).loss_sum, plain.detach())
    with pytest.raises(UsageError, match=r"needs objective\.total_steps, got none"):
        ModularLikelihood(Constant(1.0))


def test_what_it_needs_is_told():
    model = build()
    with pytest.raises(UsageError, match="expected the class of each word in every batch, got none"):
        ModularLikelihood()(model, replace(batch_for(model), word_classes=None), 0)
    with pytest.raises(UsageError, match="expected model=modular, got object"):
        ModularLikelihood()(object(), batch_for(model), 0)
