"""Records of a run hold every default of a constructor."""

import json

from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.config.defaults import with_defaults
from capkit.config.instantiate import plain


def test_defaults_are_filled_in_at_every_depth_and_given_values_stay():
    node = {"data": {"_target_": "capkit.data.sources.mismatched.Mismatched", "share": 0.5, "source": [
        {"_target_": "capkit.optim.schedules.Noam"}, {"_target_": "capkit.optim.schedules.Noam", "warmup": 5},
    ]}}  # fmt: skip
    filled = with_defaults(node)["data"]
    assert filled["seed"] == 0 and filled["share"] == 0.5
    assert [schedule["warmup"] for schedule in filled["source"]] == [0.1, 5]
    assert "seed" not in node["data"]


def test_a_default_that_is_an_expression_is_worked_out():
    assert with_defaults({"_target_": "capkit.models.dual_encoders.text_towers.ngrams.NGrams"})["buckets"] == 2**16
    assert "red" in with_defaults({"_target_": "capkit.sceneworld.world.options.WorldOptions"})["colors"]


def test_what_has_no_readable_constructor_stays_as_it_is():
    nodes = [{"_target_": "capkit.gone.Part", "a": 1}, {"_target_": "no_such_package.Part"}, {"a": 1}, {}]
    assert with_defaults(nodes) == nodes
    assert with_defaults({"_target_": "lightning.pytorch.Trainer"}) == {"_target_": "lightning.pytorch.Trainer"}


def test_a_filled_config_is_plain_data_and_fills_no_further():
    filled = with_defaults(plain(compose_config(parse([])).config))
    assert with_defaults(json.loads(json.dumps(filled))) == json.loads(json.dumps(filled))
    assert filled["model"]["num_heads"] == 4 and filled["callback"]["watchdog"]["timeout_s"] == 120.0
