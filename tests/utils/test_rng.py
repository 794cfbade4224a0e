import numpy as np
import torch

from capkit.utils import rng


def test_numpy_and_torch_draw_the_same_numbers():
    ids = np.array([rng.stable_hash("a", i) for i in range(1000)])
    for position in (0, 1, 77):
        in_torch = rng.uniform(torch.from_numpy(ids), position)
        np.testing.assert_array_equal(rng.uniform(ids, position), in_torch.numpy())


def test_draws_are_uniform_and_uncorrelated_over_positions():
    ids = np.array([rng.stable_hash("image", i) for i in range(20_000)])
    first, second = rng.uniform(ids, 0), rng.uniform(ids, 1)
    counts = np.histogram(first, bins=20, range=(0, 1))[0]
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 43.8  # 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_consecutive_ids_give_unrelated_draws():
    draws = rng.uniform(np.arange(20_000), 0)
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.03


def test_key_id_is_stable_and_separates_its_parts():
    assert rng.stable_hash("ab", "c") != rng.stable_hash("a", "bc")
    assert rng.stable_hash(1, "x") == rng.stable_hash(1, "x") < 2**63


def test_generator_depends_on_its_keys_alone():
    assert rng.generator(0, "a").integers(1 << 30) == rng.generator(0, "a").integers(1 << 30)
    assert rng.generator(0, "a").integers(1 << 30) != rng.generator(0, "b").integers(1 << 30)


def test_positions_in_a_tensor_give_what_each_gives():
    ids = torch.tensor([[0, 5], [2**62, 2**63 - 1]])
    together = rng.uniform(ids, torch.arange(40)[:, None, None])
    assert torch.equal(together, torch.stack([rng.uniform(ids, position) for position in range(40)]))
    assert len(together.unique()) == together.numel()
