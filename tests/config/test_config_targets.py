"""What a checkpoint may name, and what becomes of one whose data are damaged: one error, before anything is built."""

import copy
import random
import re
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from capkit.checkpoint.loading import build_stored, checkpoint_extras, model_from_checkpoint, read_checkpoint
from capkit.config.instantiate import build
from capkit.config.targets import MODELS, RUN_PARTS
from capkit.errors import UsageError
from capkit.models.weights import trainable_state
from capkit.text.tokenizers import word_tokenizer

CONFIGS = Path(__file__).parents[2] / "configs" / "model"
MODEL = {
    "_target_": "capkit.models.captioners.encoder_decoder.EncoderDecoder", "width": 8, "num_layers": 1, "num_heads": 2,
    "image_encoder": {"_target_": "capkit.models.encoders.image.SmallCNN", "image_size": 32, "width": 8},
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(0)
    model = build(copy.deepcopy(MODEL), tokenizer=word_tokenizer(["a red ball"]))
    state = {f"model.{name}": value for name, value in trainable_state(model).items()}
    extras = checkpoint_extras(OmegaConf.create({"seed": 0, "model": MODEL}), model)
    return {"state_dict": state, "global_step": 3, "capkit": extras}


@pytest.fixture
def never_built(monkeypatch):
    """Fails where anything is instantiated."""
    monkeypatch.setattr("capkit.checkpoint.loading.build", lambda *_, **__: pytest.fail("it was built"))


def with_encoder(node):
    return {**MODEL, "image_encoder": node}


HOSTILE = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "torch.hub.load",
    "capkit.cli.main",
    "capkit.testing.distributed.run_distributed",
    "capkit.tasks.fit.run",
    "capkit.checkpoint.files.remove_checkpoint",
    "capkit.checkpoint.loading.read_checkpoint",
    "capkit.models.encoders.image.torch.hub.load",  # through what a module of ours imports
    "capkit.models.captioners.hf_captioner.AutoConfig.from_pretrained",
    "capkit.models.captioners.hf_captioner.AutoConfig",
    "capkit.models.pretrained.load_pretrained",  # a function
    "capkit.models.captioners.encoder_decoder.EncoderDecoder.generate",  # a method
    "capkit.models.captioners.encoder_decoder.EncoderDecoder.__init__.__globals__",
    "capkit.models.captioners.encoder_decoder",
    "capkit.modelsx.encoder_decoder.EncoderDecoder",
    "capkit.models..EncoderDecoder",
    "capkit.models.",
    "capkit.data.sources.manifest.Manifest",
    "capkit.llm.chat_server.ChatServer",
    "capkit.",
    "",
    None,
    7,
    ["os.system"],
    {"_target_": "os.system"},
]


@pytest.mark.parametrize("target", HOSTILE, ids=str)
def test_a_target_that_is_not_on_the_list_is_refused_wherever_it_stands(target, checkpoint, never_built):
    node = {"_target_": target, "command": "false"}
    places = (
        node,
        with_encoder(node),
        with_encoder([{"x": [node]}]),
        with_encoder({**MODEL["image_encoder"], "width": node}),
        with_encoder({"_target_": MODEL["image_encoder"]["_target_"], "_args_": [node]}),
        with_encoder({**node, "_partial_": True}),
        with_encoder((node,)),
    )
    for model in places:
        broken = {**checkpoint, "capkit": {**checkpoint["capkit"], "config": {"seed": 0, "model": model}}}
        with pytest.raises(UsageError, match=r"expected a class of capkit\.models.*it is not run|_args_ is set"):
            model_from_checkpoint(broken)


@pytest.mark.parametrize(
    ("node", "told"),
    [
        (with_encoder({**MODEL["image_encoder"], "depth": 3}), r"SmallCNN takes no 'depth' \(model.image_encoder"),
        ({**MODEL, "width": "wide"}, r"model\.width: expected an integer of at least 1, got 'wide'"),
        ({**MODEL, "width": "${oc.env:HOME}"}, r"model\.width: expected a value, got the reference '\${oc.env:HOME}'"),
        ({**MODEL, "width": "???"}, "expected a value"),
        ({**MODEL, "width": torch.ones(2)}, r"model\.width: expected plain data, got a Tensor"),
        ({**MODEL, "_recursive_": False}, r"model\._recursive_ is set"),
    ],
)
def test_arguments_that_the_class_does_not_take_are_told_before_it_is_built(node, told, never_built):
    with pytest.raises(UsageError, match=told):
        build_stored(node, "model")


def test_a_config_without_end_is_told(never_built):
    node = {}
    for _ in range(5000):
        node = {"x": node}
    with pytest.raises(UsageError, match="goes deeper than 64 levels"):
        build_stored(node, "model")


def targets(node):
    if isinstance(node, dict):
        yield from ([node] if "_target_" in node else [])
        for value in node.values():
            yield from targets(value)


def test_what_our_own_models_name_is_on_the_list():
    named = [node["_target_"] for path in CONFIGS.glob("*.yaml") for node in targets(yaml.safe_load(path.read_text()))]
    assert len(set(named)) > 15
    for target in named:
        assert target in MODELS


def test_what_our_own_metrics_name_may_be_taken_from_a_run():
    """Metrics that are rewards too have their parts in the reward's file. `custom` names code: no run may."""
    named = set()
    for path in (CONFIGS.parent / "metric").glob("*.yaml"):
        if path.stem == "custom":
            continue
        text = path.read_text()
        named |= {node["_target_"] for node in targets(yaml.safe_load(text))}
        for reward in re.findall(r"/reward/(\w+)@_here_", text):
            held = yaml.safe_load((CONFIGS.parent / "reward" / f"{reward}.yaml").read_text())
            named |= {node["_target_"] for node in targets(held)} - {"capkit.scorers.reward.RewardTerm"}
    assert "capkit.scorers.as_metric.ScorerMetric" in named and len(named) > 15
    for target in named:
        assert target in RUN_PARTS


@pytest.mark.parametrize("group", ["data", "decoding", "evaluator"])
def test_what_our_own_data_and_evaluators_name_may_be_taken_from_a_run(group):
    """Those of the group's files, and those that experiments set."""
    configs = [yaml.safe_load(path.read_text()) for path in (CONFIGS.parent / group).glob("*.yaml")]
    for path in (CONFIGS.parent / "experiment").glob("*.yaml"):
        configs.append(yaml.safe_load(path.read_text()).get(group))
    named = {node["_target_"] for config in configs for node in targets(config)}
    assert named
    assert not [target for target in named if target not in RUN_PARTS]


def without(data, *keys):
    data = copy.deepcopy(data)
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return data


def having(data, value, *keys):
    data = copy.deepcopy(data)
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return data


@pytest.mark.parametrize(
    "keys",
    [
        ("config",), ("config", "model"), ("config", "seed"), ("tokenizer",), ("tokenizer", "backend"),
        ("tokenizer", "special_tokens"), ("tokenizer", "clean_up_spaces"), ("tokenizer_key",), ("frozen_fingerprint",),
        ("config", "model", "image_encoder"),
    ],
    ids=".".join,
)  # fmt: skip
def test_an_entry_that_is_missing_or_of_another_type_is_one_error_that_says_which(keys, checkpoint):
    extras = checkpoint["capkit"]
    changed = [without(extras, *keys), *(having(extras, value, *keys) for value in (None, 10**30, "x", [1], {"a": 1}))]
    for data in changed:
        try:
            model_from_checkpoint({**checkpoint, "capkit": data})
        except UsageError as error:
            assert "checkpoint" in str(error) or "expected model.image_encoder" in str(error)
        else:
            # The one value that is read as another right one: cleaning up is a flag.
            assert keys == ("tokenizer", "clean_up_spaces")


def test_special_tokens_are_tokens_and_no_other_arguments(checkpoint):
    data = having(checkpoint["capkit"], "/etc/passwd", "tokenizer", "special_tokens", "tokenizer_file")
    with pytest.raises(UsageError, match="special_tokens: expected tokens by name, got tokenizer_file"):
        model_from_checkpoint({**checkpoint, "capkit": data})


@pytest.mark.parametrize("weights", [None, [1], {"model.x": 3}, {"model.x": None}])
def test_weights_that_are_none_are_told_with_the_file(weights, checkpoint, tmp_path):
    torch.save({**checkpoint, "state_dict": weights}, tmp_path / "x.ckpt")
    with pytest.raises(UsageError, match=r"x\.ckpt is broken: expected only tensors in its state_dict"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_any_flipped_bit_of_a_checkpoint_of_one_file_is_refused_or_changes_nothing(checkpoint, tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save(checkpoint, path)
    whole, draw, refused = path.read_bytes(), random.Random(0), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile tells of names that stand twice
        for _ in range(200):
            place = draw.randrange(len(whole))
            flipped = bytes([whole[place] ^ 1 << draw.randrange(8)])
            path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
            try:
                found = read_checkpoint(path)
            except UsageError as error:
                assert "damaged" in str(error)
                refused += 1
                continue
            assert found["capkit"] == checkpoint["capkit"] and found["global_step"] == 3
            assert found["state_dict"].keys() == checkpoint["state_dict"].keys()
            assert all(
                torch.equal(found["state_dict"][name], value) for name, value in checkpoint["state_dict"].items()
            )
    assert refused > 100
