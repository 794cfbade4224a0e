"""`capkit cross`: what each of its cells is, told from the composed config alone."""

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from capkit.config.arguments import parse
from capkit.config.cells import hand_over, slug
from capkit.config.check import compose_checked
from capkit.config.datasets import datasets_override, evaluate_words
from capkit.errors import UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with pictures, and two runs of different transforms, metrics and decoding."""
    folder = tmp_path_factory.mktemp("cells")
    (folder / "photos").mkdir()
    (folder / "captions.json").write_text("{}")
    leave_run(folder / "runs/first", "data.transform.resize=pad", "decoding=beam", "metric=[cider,facts]")
    leave_run(folder / "runs/second", "data.transform.resize=crop", "decoding=greedy", "metric=[bleu]")
    return folder


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def leave_run(folder, *words):
    config = OmegaConf.to_container(compose_checked(parse(list(words))).config, resolve=True)
    (folder / "checkpoints" / "step-00000040.ckpt").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def compose(*words):
    composed = compose_checked(parse(list(words)))
    hand_over(composed)
    return OmegaConf.to_container(composed.config, resolve=True)


def cells(data, *words, runs="[runs/first,runs/second]"):
    return compose("cross", f"runs={runs}", f"data={data}", *words)["cells"]


def refusal(*words):
    with pytest.raises(UsageError) as caught:
        compose("cross", *words)
    return str(caught.value)


FOLDER = "folder train.images=photos train.captions=captions.json"


COMMON = ("data.eval_batch_size=5", "split=val", "seed=3")


@pytest.fixture(scope="module")
def matrix(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return cells(f"[{FOLDER}]", *COMMON)


def test_cells_are_listed_by_run_and_by_what_was_written(matrix):
    assert {run: list(row) for run, row in matrix.items()} == {"first": [FOLDER], "second": [FOLDER]}


def test_a_cell_is_what_evaluate_would_be_with_metrics_and_decoding_of_the_first_run(matrix):
    cell = matrix["second"][FOLDER]
    photos = ["data=folder", "data.train.images=photos", "data.train.captions=captions.json"]
    alone = compose("evaluate", "ckpt=runs/second", *photos, *COMMON)
    assert {key for key in alone if cell[key] != alone[key]} == {"metric", "decoding"}
    assert list(cell["metric"]) == ["cider", "facts"] and cell["decoding"]["num_beams"] == 5
    assert cell["data"]["transform"]["resize"] == "crop"  # of the model that it was built for
    assert set(cell) == set(alone)  # nothing of the matrix, so that a run added later changes no cell


def test_what_is_typed_holds_for_all_cells_and_what_stands_in_one_entry_on_top():
    words = ["metric=[rouge]", "decoding=sample", "data.eval_batch_size=5"]
    found = cells("[sceneworld eval_batch_size=2, sceneworld]", *words, runs="[runs/second]")["second"]
    assert [cell["data"]["eval_batch_size"] for cell in found.values()] == [2, 5]
    for cell in found.values():
        assert list(cell["metric"]) == ["rouge"] and cell["decoding"]["method"] == "sample"


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("sceneworld", ["sceneworld"]),
        ("[coco  data.test.count=5,b]", ["coco data.test.count=5", "b"]),
        ("['a test.count=5', \"b\"]", ["a test.count=5", "b"]),
        ("[a transform.augment=[flip,crop], b]", ["a transform.augment=[flip,crop]", "b"]),
        ("[a x='1, 2' y={z: [3, 4]}]", ["a x='1, 2' y={z: [3, 4]}"]),
    ],
)
def test_how_data_sets_are_written(typed, read):
    override = OverridesParser.create().parse_override(datasets_override(typed))
    assert (override.key_or_group, override.value()) == ("datasets", read)


def test_words_of_a_data_set_are_overrides_of_its_config():
    words = evaluate_words("coco  test.count=5 data.test.x='1, 2' transform.augment=[flip, crop]", ["coco"])
    assert list(words) == [
        "data=coco",
        "data.test.count=5",
        "data.test.x='1, 2'",
        "data.transform.augment=[flip, crop]",
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data=[sceneworld]"], "needs runs"),
        (["runs=[runs/first]"], "needs datasets"),
        (["runs=[runs/first]", "data=[scenewrld]"], "there is no data 'scenewrld'; did you mean"),
        (["runs=[runs/first]", "data=[sceneworld small]"], "expected KEY=VALUE behind the name, got 'small'"),
        (["runs=[runs/first]", "data=[sceneworld, sceneworld]"], "expected different data sets"),
        (["runs=[runs/first,runs/first/checkpoints/step-00000040.ckpt]", "data=[sceneworld]"], "of different names"),
        (["runs=[]", "data=[sceneworld]"], "one at least; got none"),
        (["runs=[runs/first,runs/third]", "data=[sceneworld]"], "third on sceneworld: ckpt=runs/third: no such file"),
        (["runs=[runs/first]", "data=[sceneworld test.cuont=3]"], "unknown key 'data.test.cuont'"),
        (
            ["runs=[runs/first]", "data=[sceneworld test.count=-3]"],
            "first on sceneworld test.count=-3: data.test.count",
        ),
        (["runs=[runs/first]", "data=[sceneworld]", "confidence=95"], "confidence"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_loaded(words, told):
    assert told in refusal(*words)


def test_folders_are_named_after_what_was_written():
    assert slug("sceneworld_pt train.dialect=native") == "sceneworld_pt_train.dialect=native"
    assert slug("folder train.images=/data/ä b") == "folder_train.images=_data_ä_b"


def test_other_tasks_take_one_data_set():
    with pytest.raises(UsageError, match="expected the name of one data, got 2 names"):
        compose("evaluate", "ckpt=runs/first", "data=[sceneworld,folder]")
