import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from capkit.decoding.config import Decoding
from capkit.errors import UsageError


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "grady"},
        {"max_length": 0},
        {"min_length": 32},
        {"min_length": -1},
        {"method": "sample", "temperature": 0.0},
        {"method": "sample", "top_k": -1},
        {"method": "sample", "top_p": 0.0},
        {"method": "sample", "top_p": 1.1},
        {"no_repeat_ngram_size": -1},
        {"method": "beam"},
        {"method": "beam", "num_beams": 0},
        {"method": "sample", "num_candidates": 1},
        {"num_candidates": 2},
        {"method": "beam", "num_beams": 3, "num_candidates": 4},
    ],
)
def test_values_out_of_range_are_usage_errors(wrong):
    with pytest.raises(UsageError):
        Decoding(**wrong)


@pytest.mark.parametrize(
    "ignored", [{"temperature": 0.5}, {"top_p": 0.9}, {"num_beams": 3}, {"method": "sample", "length_penalty": 0.0}]
)
def test_option_that_the_method_would_ignore_is_a_usage_error(ignored):
    with pytest.raises(UsageError, match="applies to method="):
        Decoding(**ignored)


def test_mistyped_method_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'greedy'"):
        Decoding(method="gredy")


@pytest.mark.parametrize("name", ["greedy", "beam", "sample"])
def test_config_builds_its_method(name):
    assert instantiate(OmegaConf.load(f"configs/decoding/{name}.yaml")).method == name
