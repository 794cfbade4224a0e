"""The parts of a captioner's conditions: vectors of images and captions, and of what is not given."""

import pytest
import torch

from capkit.errors import UsageError
from capkit.models.conditions.parts import ConditionPart, Conditions, build_kinds

SETTINGS = {"alignment": {"kind": "bins", "count": 4}, "length": {"kind": "length", "longest": 9}, "box": "box"}
VALUES = {
    "alignment": torch.tensor([0.0, torch.nan, 3.0]),
    "length": torch.tensor([[1.0, 2.0], [torch.nan, 5.0], [9.0, 9.0]]),
    "box": torch.tensor([0.1, 0.2, 0.6, 0.7]).expand(3, 2, 4),
}


@pytest.fixture
def conditions():
    torch.manual_seed(0)
    return Conditions(SETTINGS, 6)


def test_vectors_stand_in_the_order_of_the_config(conditions):
    vectors = conditions(VALUES, 3)
    assert vectors.shape == (3, 2, 3, 6)
    parts = conditions.parts
    torch.testing.assert_close(vectors[2, 0, 0], parts["alignment"].kind.embedding.weight[3])
    torch.testing.assert_close(vectors[1, 1, 1], parts["length"].kind.embedding.weight[5])
    torch.testing.assert_close(vectors[:1, 1, 2], parts["box"].kind(VALUES["box"][0, 1:])[:, 0])
    torch.testing.assert_close(vectors[1, :, 0], parts["alignment"].not_given.expand(2, -1))
    torch.testing.assert_close(vectors[1, 0, 1], parts["length"].not_given[0])


def test_what_is_missing_unknown_or_longer_than_learned_is_not_given(conditions):
    nothing = conditions({}, 2)
    none = torch.cat([part.not_given for part in conditions.parts.values()])
    torch.testing.assert_close(nothing, none.expand(2, 1, 3, 6))
    torch.testing.assert_close(conditions({"length": torch.tensor([10.0, 400.0])}, 2), nothing)
    torch.testing.assert_close(conditions({"box": torch.tensor([[0.1, torch.nan, 0.2, 0.3]] * 2)}, 2), nothing)
    torch.testing.assert_close(conditions({"label": torch.ones(2)}, 2), nothing)


def test_values_of_images_alone_have_one_row_an_image(conditions):
    assert conditions({"length": torch.tensor([1.0, 2.0])}, 2).shape == (2, 1, 3, 6)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"length": torch.ones(3)}, "conditions.length: expected values of 2 images"),
        ({"box": torch.ones(2, 3)}, "conditions.box: expected values of 2 images"),
        ({"length": torch.ones(2, 3), "alignment": torch.ones(2, 2)}, "of as many captions of an image each"),
    ],
)
def test_values_of_other_numbers_are_refused(conditions, values, said):
    with pytest.raises(UsageError, match=said):
        conditions(values, 2)


@pytest.mark.parametrize("given", [True, False])
def test_gradients_reach_what_was_read_and_every_parameter_has_one(conditions, given):
    values = VALUES if given else {}
    (conditions(values, 3) * torch.randn(6)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in conditions.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())  # a rank without values has the same buckets
    assert all(gradient.any() == given for name, gradient in gradients.items() if "kind" in name)
    assert gradients["parts.alignment.not_given"].any() and gradients["parts.length.not_given"].any()
    assert gradients["parts.box.not_given"].any() != given
    if given:
        touched = gradients["parts.length.kind.embedding.weight"].any(1)
        assert touched.nonzero().flatten().tolist() == [1, 2, 5, 9]


def test_a_part_is_its_kind_where_a_value_is_given():
    kind = build_kinds({"box": "box"}, 6)["box"]
    part, boxes = ConditionPart(kind, 6), torch.rand(5, 4)
    torch.testing.assert_close(part(boxes), kind(boxes))
