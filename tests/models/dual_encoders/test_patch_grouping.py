"""What a dual encoder gives objectives of several texts an image: slots, and pictures as their texts see them."""

import pytest
import torch

from capkit.models.dual_encoders.patch_grouping import PatchGrouping
from capkit.objectives.contrastive.grouped_patches import GroupedPatches
from capkit.objectives.contrastive.multi_positive import MultiPositive
from capkit.objectives.contrastive.pair_sum import PairSum
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.testing.models import HF_CONFIGS, batch_for, hf_two_tower, two_tower
from capkit.train.dual_encoder_module import DualEncoderModule

BUILDERS = {"two_tower": two_tower, **{name: (lambda name=name: hf_two_tower(name)) for name in HF_CONFIGS}}


@pytest.fixture(params=BUILDERS)
def model(request):
    return BUILDERS[request.param]().eval()


def test_images_and_patches_of_one_pass_are_those_of_two(model):
    batch = batch_for(model)
    images, patches = model.embed_images_and_patches(batch)
    assert torch.equal(images, model.embed_images(batch)) and torch.equal(patches, model.embed_patches(batch))


def test_a_text_sees_the_patches_of_its_own_picture(model):
    batch = batch_for(model)
    assert model(batch).extras.keys() == set()
    GroupedPatches(0.3).prepare(model)
    pairs = model(batch)
    assert pairs.extras["slots"].tolist() == [0, 1, 0, 0, 1]  # captions of the three pictures: 2, 1, 2
    patches = model.embed_patches(batch)
    for row, image in enumerate([0, 0, 1, 2, 2]):
        weights = PatchGrouping(0.3).weights(patches[image] @ pairs.texts[row])
        expected = torch.nn.functional.normalize(weights @ patches[image], dim=0)
        torch.testing.assert_close(pairs.extras["grouped"][row], expected, atol=1e-5, rtol=1e-5)


def test_patches_are_grouped_in_32_bits_under_autocast():
    generator = torch.Generator().manual_seed(0)
    texts = torch.nn.functional.normalize(torch.randn(4, 8, generator=generator), dim=-1)
    patches = torch.nn.functional.normalize(1 + 1e-3 * torch.randn(2, 6, 8, generator=generator), dim=-1)
    places = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), 2
    expected = PatchGrouping(0.3)(texts, patches, *places)
    with torch.autocast("cpu", torch.bfloat16):
        found = PatchGrouping(0.3)(texts, patches, *places)
    assert found.dtype == torch.float32 and found.equal(expected)


def test_the_image_tower_runs_once(model):
    calls = []
    tower = model.side("image")[0]
    tower.register_forward_hook(lambda *_: calls.append(1))
    GroupedPatches().prepare(model)
    model(batch_for(model))
    assert len(calls) == 1


def test_micro_batches_have_the_loss_and_gradient_of_the_whole():
    found = []
    for micro_batch_size in (None, 1, 2):
        torch.manual_seed(0)
        model = two_tower().eval()
        objective = PairSum({"captions": MultiPositive(), "grouping": GroupedPatches(0.2)})
        module = DualEncoderModule(model, objective, AdamW(lr=1e-3), Constant(), micro_batch_size)
        output = objective(module.embed(batch_for(model)), 0)
        output.loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append((output.loss.detach(), gradients))
    for loss, gradients in found[1:]:
        torch.testing.assert_close(loss, found[0][0])
        assert gradients.keys() == found[0][1].keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, found[0][1][name], atol=1e-6, rtol=1e-4, msg=name)
