"""Wrong configs are refused with the fix. The parts of these tests live in a package and config folder made here."""

import ast
import string
import sys
import tomllib
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from capkit.config.annotations import fits, wanted
from capkit.config.arguments import parse
from capkit.config.check import check, compose_checked, problems
from capkit.config.compose import compose_config
from capkit.config.quoting import quote_value
from capkit.config.refusals import missing_choice
from capkit.config.rules import RULES
from capkit.config.settings import Settings
from capkit.config.signatures import signature
from capkit.errors import UsageError

PARTS = """
from dataclasses import dataclass, field
from typing import ClassVar, Literal, overload
from dummy_base import Base, kept as renamed

def run(cfg): ...

class Widget(Base):
    '''Its constructor is the base's.'''

class Captioner:
    def __init__(self, width: int = 8, rate: float = 0.1, kind: Literal["a", "b"] = "a", root: str | None = None,
                 sizes: list[int] = (), part: Widget | None = None, *, deep: bool = False): ...
    @classmethod
    def from_file(cls, path: str): ...

@dataclass
class Options(renamed):
    later: int = 0
    table: ClassVar[dict] = {}
    derived: int = field(init=False, default=3)

class Open:
    def __init__(self, known: int = 1, **kwargs): ...

Alias = Captioner
"""
BASE = """
from dataclasses import dataclass
class Base:
    def __init__(self, size: int, depth: "int | None" = None): ...
@dataclass
class kept:
    first: float = 1.0
"""
YAMLS = {
    "task/dummy.yaml": "# @package _global_\ntask: {_target_: dummy_parts.run}\ndummy_input: ???\npredictions: null\n",
    "model/dummy.yaml": "_target_: dummy_parts.Captioner\nwidth: 4\n",
    "model/nested.yaml": "_target_: dummy_parts.Captioner\npart: {_target_: dummy_parts.Widget, size: 3}\n",
    "metric/dummy.yaml": "# @package metric.dummy\n_target_: dummy_parts.Widget\nsize: 1\n",
    "experiment/typo.yaml": "# @package _global_\nmodel: {widht: 3}\n",
    "experiment/stray.yaml": "# @package _global_\nsede: 3\n",
    "experiment/lost.yaml": "# @package _global_\ndefaults: [{override /model: dumy}]\n",
    "experiment/sound.yaml": "# @package _global_\ndefaults: [{override /model: dummy}]\nmodel: {rate: 0.5}\nseed: 7\n",
    "experiment/broken.yaml": "# @package _global_\nmodel: {a: [\n",
}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A config folder of its own, whose train.yaml is small, and the package that it names."""
    root = tmp_path_factory.mktemp("parts")
    (root / "dummy_parts.py").write_text(PARTS)
    (root / "dummy_base.py").write_text(BASE)
    configs = root / "configs"
    for name, text in YAMLS.items():
        (configs / name).parent.mkdir(parents=True, exist_ok=True)
        (configs / name).write_text(text)
    (configs / "train.yaml").write_text(
        "defaults: [_self_, {task: dummy}, {model: dummy}, {metric: []}, {experiment: null}]\n"
        "name: x\nseed: 0\nrun_dir: null\nresume: auto\ninit_from: null\nmicro_batch_size: null\ndry_run: false\n"
        "metric: {}\nhydra: {run: {dir: .}, output_subdir: null}\n"
    )
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(root))
    for module in ("check", "compose", "arguments", "locations"):
        if hasattr(sys.modules[f"capkit.config.{module}"], "config_dir"):
            patch.setattr(f"capkit.config.{module}.config_dir", lambda: configs)
    yield configs
    patch.undo()


def compose(*words, given=("dummy_input=1",)):
    return compose_checked(parse([*words, *given])).config


def refusal(*words, given=("dummy_input=1",)):
    with pytest.raises(UsageError) as caught:
        compose(*words, given=given)
    return str(caught.value)


# --- what is accepted


def test_an_argument_that_the_yaml_leaves_out_can_be_set():
    assert compose("model.deep=true", "model.rate=2").model == {
        "_target_": "dummy_parts.Captioner", "width": 4, "deep": True, "rate": 2,
    }  # fmt: skip


def test_a_first_bare_word_is_the_task():
    assert parse(["dummy", "seed=1"]).overrides == ["task=dummy", "seed=1"]
    assert parse(["-m", "dummy"]).overrides == ["task=dummy"]


def test_pick_any_groups_take_a_list_and_keep_names():
    config = compose("metric=[dummy]", "metric.dummy.depth=2")
    assert config.metric.dummy == {"_target_": "dummy_parts.Widget", "size": 1, "depth": 2}


def test_an_experiment_is_applied_and_a_typed_value_wins():
    config = compose("experiment=sound", "seed=8")
    assert (config.model.rate, config.seed) == (0.5, 8)


def test_a_null_part_can_be_replaced_by_an_object():
    assert compose("model.part={_target_: dummy_parts.Widget, size: 2}").model.part.size == 2


def test_a_dict_adds_arguments_to_a_part_and_keeps_the_others():
    part = "model.part={_target_: dummy_parts.Widget, size: 2}"
    assert compose(part, "model.part={depth: 3}").model.part == {
        "_target_": "dummy_parts.Widget", "size": 2, "depth": 3,
    }  # fmt: skip
    assert "unknown key 'model.part.depht'" in refusal(part, "model.part={depht: 3}")


def test_an_open_constructor_takes_any_name():
    assert compose("model._target_=dummy_parts.Open", "~model.width", "model.anything=1").model.anything == 1


@pytest.mark.parametrize("word", ["metric=null", "metric=NULL", "experiment=null", "metric=[]", "-m metric=null,dummy"])
def test_null_is_none_for_a_group_that_may_be_empty(word):
    assert not compose(*word.split()).metric


# --- what is refused


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["sed=1"], ["unknown key 'sed'", "command line", "'seed'"]),
        (["model.widht=1"], ["unknown key 'model.widht'", "did you mean 'model.width'"]),
        (["model=nested", "model.part.siez=1"], ["'model.part.siez'", "did you mean 'model.part.size'"]),
        (["width=1"], ["unknown key 'width'", "'model.width'"]),
        (["metric.dummy.size=1"], ["choose it first: metric=[dummy]"]),
        (["metric=[dumy]"], ["no metric 'dumy'", "'dummy'"]),
        (["task.x=1"], ["unknown key 'task.x'"]),
        (["model=dumy"], ["no model 'dumy'", "'dummy'", "nested"]),
        (["modle=dummy"], ["unknown key 'modle'", "'model'"]),
        (["experiment=nope"], ["no experiment 'nope'", "sound"]),
        (["experiment=typo"], ["'model.widht'", "typo.yaml", "'model.width'"]),
        (["experiment=stray"], ["'sede'", "stray.yaml", "'seed'"]),
        (["experiment=lost"], ["no model 'dumy'", "experiment/lost.yaml", "'dummy'"]),
        (["experiment=broken"], ["not valid YAML", "broken.yaml"]),
        (["model.width=wide"], ["model.width on the command line", "expected int", "the text 'wide'"]),
        (["model.width=1.5"], ["expected int", "1.5"]),
        (["model.width=true"], ["expected int", "the flag true"]),
        (["model.kind=c"], ["expected a or b", "'c'"]),
        (["model.deep=1"], ["expected bool"]),
        (["model.sizes=[1,x]"], ["expected list[int]"]),
        (["seed=x"], ["seed", "expected an integer of at least 0"]),
        (["dry_run=maybe"], ["expected bool"]),
        (["seed=${nope}"], ["nope", "not found"]),
        (["model._target_=dummy_nopackage.X"], ["dummy_nopackage", "install"]),
        (["model._target_=capkit.errors.UsageErorr"], ["UsageErorr", "'UsageError'"]),
        (["model._target_=capkit.erors.UsageError"], ["'erors'", "'errors'"]),
        (["seed=1,2"], ["add -m"]),
        (["-m", "seed=1,2,x"], ["seed", "expected an integer", "'x'"]),
        (["-m", "model.width=1,2", "sed=1"], ["'sed'"]),
        (["model.sizes=[1,2"], ["close every bracket"]),
        (["a..b=1"], ["joined by dots"]),
        (["dummy", "photos"], ["expected key=value", "photos"]),
        (["dumy"], ["got 'dumy'", "'dummy'"]),
        (["dummy", "task=dummy"], ["one task"]),
        (["--multirn"], ["unknown flag", "'--multirun'"]),
        (["--config-dir", "/no/such"], ["--config-dir"]),
        (["predictions=/no/such/file.json"], ["predictions=/no/such/file.json", "no such file"]),
        (["model.root=/no/such"], ["model.root=/no/such"]),
        (["resume=/no/such.ckpt"], ["resume=/no/such.ckpt"]),
        (["~nothing"], ["nothing"]),
        (["model=null"], ["expected the name of one model, got null", "choose from dummy"]),
        (["model=[]"], ["expected the name of one model, got 0 names"]),
        (["model=[dummy,nested]"], ["got 2 names"]),
        (["model=5"], ["there is no model '5'"]),
        (["model=../task/dummy"], ["there is no model"]),
        (["model={a: 1}"], ["expected a name, got a dict"]),
        (["~model"], ["expected one model, got none"]),
        (["metric=[1]"], ["there is no metric '1'"]),
        (["metric=[[dummy]]"], ["there is no metric"]),
        (["model=nested", "model.part=word"], ["model.part on the command line: expected Widget", "the text 'word'"]),
        (["model.part=5"], ["expected Widget", "got 5", "model.part={_target_: CLASS, KEY: VALUE}"]),
        (["metric=[dummy]", "metric.dummy=1"], ["metric.dummy", "expected a part or null, got 1"]),
        (["-m", "model=null,dummy"], ["expected the name of one model, got null"]),
        (["model.rate=${model}"], ["model.rate", "Interpolation to parent node"]),
        (["model=nested", "model.width=${model.part}"], ["expected int, got {'_target_'"]),
        (["model.rate=${seed}${seed}"], ["expected float, got the text '00'"]),
        (["model.width=${model.rate}", "model.rate=${model.width}"], ["Recursive interpolation"]),
        (["model.width=${oc.env:NO_SUCH_VARIABLE}"], ["'NO_SUCH_VARIABLE' not found"]),
        (["model.width=${"], ["close every bracket"]),
        (["seed=nan"], ["seed", "expected a finite number", "got nan"]),
        (["model.rate=1e999"], ["model.rate", "expected a finite number", "got inf"]),
        (["model.sizes=[1,-inf]"], ["model.sizes.1", "got -inf"]),
        (["seed=99999999999999999999999999"], ["seed", "got an integer beyond 64 bits"]),
        (["seed=" + "9" * 5000], ["seed", "expected an integer of at least 0"]),
        (["seed=" + "[" * 2000 + "]" * 2000], ["at most 32 deep"]),
        (["seed=" + "{a: " * 200 + "1" + "}" * 200], ["at most 32 deep"]),
        (["name=\udcff"], ["in UTF-8"]),
        (["init_from=" + "a" * 300], ["names of at most 255 bytes"]),
        (["model._target_=null"], ["expected the path of a class, got null"]),
        (["model._target_=5"], ["expected the path of a class, got 5"]),
        (["~model._target_"], ["cannot be removed"]),
        (["~seed"], ["cannot be removed"]),
        (["model._target_=dummy_parts.Widget", "~model.width", "model.size=1", "~model.size"], ["needs size"]),
        (["-m", "seed=range(0,1e9)"], ["at most 1000 runs"]),
        (["-m", "seed=glob(*)"], ["a pattern that matches names of a group"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value[0], str) and len(value) < 3 else "",
)
def test_wrong_command_lines_are_refused_with_the_fix(words, parts):
    message = refusal(*words)
    assert [part for part in parts if part not in message] == [], message


def test_a_value_the_task_needs_is_asked_for():
    assert "needs dummy_input; add dummy_input=..." in refusal(given=())


def test_a_key_of_another_task_names_that_task(folder):
    (folder / "task" / "other.yaml").write_text("# @package _global_\ntask: {_target_: dummy_parts.run}\nshots: 1\n")
    assert "belongs to task other" in refusal("shots=2")


def test_a_reference_to_a_needed_value_is_not_asked_for_twice(folder):
    (folder / "model" / "needy.yaml").write_text(
        "_target_: dummy_parts.Captioner\nwidth: ???\npart: {_target_: dummy_parts.Widget, size: '${..width}'}\n"
    )
    assert "needs model.width;" in refusal("model=needy")
    assert compose("model=needy", "model.width=3").model.part.size == 3


def test_a_missing_file_is_told_once(folder):
    (folder / "model" / "twice.yaml").write_text(
        "_target_: dummy_parts.Captioner\nroot: /no/such\npart: {_target_: dummy_parts.Open, root: '${..root}'}\n"
    )
    assert refusal("model=twice").count("no such file") == 1


def test_a_changed_kind_of_part_names_both_files(folder):
    (folder / "experiment" / "other_kind.yaml").write_text(
        "# @package _global_\nmodel: {_target_: dummy_parts.Widget, size: 1}\n"
    )
    message = refusal("experiment=other_kind")
    assert "'model.width'" in message and "model/dummy.yaml" in message and "other_kind.yaml" in message


def test_all_problems_are_told_at_once():
    assert len(refusal("model.width=x", "seed=y").splitlines()) == 2


def test_a_near_file_name_is_proposed(tmp_path):
    (tmp_path / "results.json").touch()
    assert f"did you mean '{tmp_path}/results.json'" in refusal(f"predictions={tmp_path}/result.json")


def test_a_config_dir_adds_choices(tmp_path):
    (tmp_path / "my configs" / "model").mkdir(parents=True)
    (tmp_path / "my configs" / "model" / "mine.yaml").write_text("_target_: dummy_parts.Captioner\nwidth: 99\n")
    assert compose("--config-dir", str(tmp_path / "my configs"), "model=mine").model.width == 99


# --- paths as typed

ODD = string.ascii_letters + string.digits + " ()[]{}=,:;'\"$\\&#!@%^*+-_.~äß漢"
PATH = st.text(ODD, min_size=1, max_size=24).filter(lambda text: text not in ("auto", "~"))


def is_name(text):
    return text.strip(".") and not text.startswith("~") and text.lower() not in ("null", "true", "false")


def read_back(key, value):
    """What the config holds after an override went through Hydra's own parser and OmegaConf."""
    config = OmegaConf.create({key: None})
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(f"{key}={quote_value(key, value)}")
    ConfigLoaderImpl._apply_overrides_to_config([override], config)
    return config[key]


@given(PATH)
@settings(max_examples=300, deadline=None)
@example("/data/my photos (1)")
@example("runs/epoch=3,step=4.ckpt")
@example('it\'s "quoted"')
@example("a\\${b c}")
@example("${seed x}\\")
@example("[a]b")
@example("2024")
@example("a,b")
@example("back\\slash\\")
@example("$HOME")
def test_a_path_reaches_the_config_as_typed(tmp_path_factory, path):
    full = f"/nowhere/{path}"
    interpolated = full.count("${") and full.count("}")
    if not interpolated:
        assert read_back("ckpt", full) == full


@given(st.text(ODD, min_size=1, max_size=12).filter(is_name))
@settings(max_examples=100, deadline=None)
@example("${seed}")
@example("[a,b]")
@example("'quoted'")
@example("???")
def test_an_existing_path_is_taken_literally_whatever_its_name(path):
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        before = Path.cwd()
        os.chdir(root)
        try:
            Path(path).mkdir()
            assert Path(read_back("images", path)).resolve() == Path(path).resolve()
        finally:
            os.chdir(before)


@pytest.mark.parametrize(
    ("key", "typed", "value"),
    [
        ("resume", "false", False), ("resume", "auto", "auto"), ("ckpt", "null", None), ("ckpt", "'a b'", "a b"),
        ("run_dir", "2024", "2024"), ("images", "[a,b]", ["a", "b"]), ("ckpt", "~/x y", str(Path.home() / "x y")),
        ("seed", "3", 3), ("rate", "1e-3", 1e-3), ("sizes", "[1,2]", [1, 2]), ("table", "{a: 1}", {"a": 1}),
        ("prompt", "a photo of: (1) it's", "a photo of: (1) it's"), ("prompt", "'a, b'", "a, b"),
    ],
)  # fmt: skip
def test_other_values_keep_their_meaning(key, typed, value):
    assert read_back(key, typed) == value


def test_a_path_key_sweeps_over_commas_only_under_multirun():
    assert quote_value("ckpt", "a=1.ckpt,b (2).ckpt", multirun=True) == "'a=1.ckpt','b (2).ckpt'"
    assert quote_value("ckpt", "a=1.ckpt,b (2).ckpt") == "'a=1.ckpt,b (2).ckpt'"


# --- signatures from source


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("dummy_parts.Widget", ["size", "depth"]),
        ("dummy_parts.Alias", ["width", "rate", "kind", "root", "sizes", "part", "deep"]),
        ("dummy_parts.Captioner.from_file", ["path"]),
        ("dummy_parts.Options", ["first", "later"]),
        ("dummy_parts.Base", ["size", "depth"]),
        ("dummy_parts.run", ["cfg"]),
        ("torch.nn.Linear", ["in_features", "out_features", "bias", "device", "dtype"]),
        ("torch.nn.Module", []),
        ("torch.nn.ReLU", ["inplace"]),
    ],
)
def test_signatures_are_read_through_imports_aliases_and_bases(target, names):
    found = signature(target)
    assert found is not None and list(found.arguments) == names


@pytest.mark.parametrize("target", ["torch.optim.AdamW", "torch.utils.data.DataLoader", "argparse.ArgumentParser"])
def test_signatures_agree_with_python_itself(target):
    import importlib
    import inspect

    module, _, name = target.rpartition(".")
    found = signature(target)
    assert found is not None
    assert list(found.arguments) == list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)


def test_what_source_cannot_tell_is_not_refused():
    assert signature("collections.OrderedDict") is None  # compiled
    assert signature("transformers.AutoModel.from_pretrained") is None  # made at run time


# --- annotations


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("int", [1], [True, 1.5, "1", None, [1]]),
        ("float", [1, 0.5], [True, "1"]),
        ("bool", [True], [1, "true"]),
        ("str | None", ["a", None], [1, ["a"]]),
        ("Optional[int]", [1, None], ["a"]),
        ("Union[int, list[int]]", [1, [1, 2]], ["a", ["a"]]),
        ("'int | None'", [1, None], ["a"]),
        ("Literal['x', 2]", ["x", 2], ["y", 3]),
        ("tuple[float, float]", [[0.9, 0.95]], ["a", 1]),
        ("dict[str, int]", [{"a": 1}], [{"a": "b"}, [1]]),
        ("Sequence[str]", [["a"]], ["a", [1]]),
        ("nn.Module | None", [None, {"_target_": "x"}, "anything"], []),
        ("PositiveInt | Schedule", [1, {"_target_": "capkit.optim.schedules.Linear"}], [0]),
        ("PositiveInt | Literal[-1]", [1, -1], [0, -2]),
        ("PositiveInt | None", [1, None], [{"_target_": "capkit.optim.schedules.Linear"}, 0]),
    ],
)
def test_values_are_compared_with_annotations(annotation, good, bad):
    expression = ast.parse(annotation, mode="eval").body
    assert [value for value in good if not fits(expression, value)] == []
    assert [value for value in bad if fits(expression, value)] == []


def test_annotations_are_told_in_words():
    assert wanted(ast.parse("Literal['a', 'b'] | None", mode="eval").body) == "a or b or null"


# --- combinations


def told(config, task="fit"):
    return [message for rule in RULES if (message := rule(Settings(config, task)))]


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"max_steps": 5, "max_epochs": 2}, "add max_steps=null or max_epochs=null"),
        ({"max_steps": None}, "expected max_steps or max_epochs"),
        ({"trainer": {"max_epochs": 3}}, "write max_epochs=3"),
        ({"trainer": {"gradient_clip_val": 0.5}}, "write optimizer.clip_norm=0.5"),
        ({"trainer": {"accumulate_grad_batches": 2}}, "micro_batch_size"),
        ({"data": {"batch_size": 6}, "trainer": {"devices": 4}}, "data.batch_size=8"),
        ({"data": {"batch_size": 6}, "trainer": {"devices": "2", "num_nodes": 2}}, "by 4 ranks"),
        ({"data": {"batch_size": 8}, "micro_batch_size": 5, "trainer": {"devices": 2}}, "or less"),
        ({"resume": "a.ckpt", "init_from": "b.ckpt"}, "give one"),
        ({"decoding": {"_target_": "capkit.decoding.config.Decoding", "method": "beam"}}, "num_beams"),
        ({"data": {"features": "cache", "transform": {"augment": {"_target_": "x"}}}}, "cannot be augmented"),
    ],
)
def test_impossible_combinations_are_told(config, part, monkeypatch):
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    messages = told(config if "max_steps" in config else {"max_steps": 1, **config})
    assert len(messages) == 1 and part in messages[0]


def test_sound_combinations_pass(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = {
        "data": {"batch_size": 6}, "micro_batch_size": 3, "trainer": {"devices": 8}, "resume": "auto",
        "init_from": "b.ckpt", "decoding": {"_target_": "capkit.decoding.config.Decoding", "method": "greedy"},
    }  # fmt: skip
    assert told({"max_epochs": 1, **config}) == []


def test_a_rule_reads_a_default_from_the_constructor():
    config = {"model": {"_target_": "dummy_parts.Captioner"}}
    assert Settings(config, "fit").get("model.width") == 8
    assert Settings(config, "fit").get("model.nothing") is None


def test_a_launcher_whose_plugin_is_not_installed_names_the_pip_extra():
    error = MissingConfigException("", missing_cfg_file="hydra/launcher/submitit_slurm")
    assert "pip install 'capkit[slurm]'" in missing_choice(error, {}, ["launcher=slurm"], [])


def test_zero_without_deepspeed_is_refused_with_the_line_that_installs_it(monkeypatch):
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    asked = next(line for line in project["optional-dependencies"]["train"] if line.startswith("deepspeed"))
    trainer = OmegaConf.load(root / "configs/trainer/deepspeed_2_cpu.yaml")
    config = {"max_epochs": 1, "trainer": OmegaConf.to_container(trainer)}
    assert told(config) == []
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # as where it is not installed
    (message,) = told(config)
    assert f"pip install '{asked.split(';')[0]}'" in message


# --- a task of a user's own


@pytest.fixture
def own_task(tmp_path):
    """A folder of configs with a task that no file of capkit knows."""
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "rank.yaml").write_text(
        "# @package _global_\n# Ranks captions.\ntask:\n  _target_: capkit.tasks.score.run\n"
        "  keys: {top_k: PositiveInt | None, order: \"Literal['up', 'down']\"}\n"
        "top_k: 5 # captions that are shown\norder: up\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("top_k=3", ""),
        ("top_k=null", ""),
        ("top_k=0", "top_k on the command line: expected"),
        ("order=left", "order on the command line: expected"),
        ("top_q=3", "did you mean 'top_k'"),
    ],
)
def test_a_task_declares_its_own_keys(word, told, own_task):
    command = parse(["rank", "--config-dir", str(own_task), word])
    if told:
        with pytest.raises(UsageError, match=told):
            check(compose_config(command))
    else:
        composed = compose_config(command)
        assert problems(composed, with_inputs=False) == [] and "keys" not in composed.config.task


def test_the_type_of_a_tasks_key_must_be_readable(own_task):
    file = own_task / "task" / "rank.yaml"
    file.write_text(file.read_text().replace("PositiveInt | None", "PositiveInt or"))
    assert problems(compose_config(parse(["rank", "--config-dir", str(own_task)])), with_inputs=False) == [
        "task.keys.top_k: expected a type, such as `PositiveInt | None`, got 'PositiveInt or'"
    ]
