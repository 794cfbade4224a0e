"""The names that dashboards ask for are those that runs log: asked of a run and of the metrics themselves."""

import re
from pathlib import Path

import torch
import yaml
from rl_steps import OBJECTIVES, loader, module_of, trainer_of

from capkit.metrics.bags import Bags
from capkit.metrics.clip_score import ClipScore
from capkit.metrics.coco.collected import Bleu, Cider, RougeL
from capkit.metrics.diversity import Diversity
from capkit.metrics.retrieval import Retrieval
from capkit.run.folder import RunFolder
from capkit.run.metric_names import POLICY, REWARD, TRAIN, VALIDATION, of_term
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.metrics.facts import Facts
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import make_scene
from capkit.train.callbacks.recorder import Recorder


class Judge:
    """Pictures and texts are vectors already."""

    name, prompt, max_length = "judge", "", 77

    def encode_text(self, texts):
        return torch.nn.functional.one_hot(torch.tensor([len(text) % 5 for text in texts]), 5).float()

    def encode_image(self, pixels):
        return pixels

    def preprocess(self, images):
        raise AssertionError("not asked for")

    def is_cut(self, texts):
        return [False for _ in texts]

    def to(self, device):
        return self


def logged_by(objective, folder):
    recorder = Recorder(every_steps=1)
    folder = RunFolder(folder)
    folder.path.mkdir()
    recorder.attach(folder)
    trainer_of("auto", 1, [recorder]).fit(module_of(OBJECTIVES[objective]()), loader(1))
    return {name for row in folder.rows() for name in row if "/" in name}


def test_every_name_of_training_is_logged_and_no_other_number_is(tmp_path):
    found = set().union(*(logged_by(name, tmp_path / name) for name in ("greedy", "running_mean", "ppo_k2")))
    assert found == {*TRAIN, *REWARD, *POLICY, *of_term("overlap")}


def test_every_name_of_validation_is_a_metrics():
    scene = make_scene(WorldOptions(), 0, "test", 0)
    facts = {"scene": scene.to_dict(), "stated_facts": list(caption(scene, "human").facts)}
    captions, references = ["a red square", "a blue circle"], [["a red square"], ["the green circle"]]
    metadata = [{"key": str(i), "image_embedding": [1.0, 0, 0, 0, float(i)], **facts} for i in range(2)]
    metrics = [Bleu(), RougeL(), Cider(), Diversity(), ClipScore(Judge()), Retrieval(Judge()), Facts()]
    found = {f"val/{name}" for metric in metrics for name in metric.score(captions, references, metadata)}
    pictures = [{"key": str(i), "image_embedding": [1.0, 0, 0, 0, float(i)]} for i in range(7)]
    for size in (3, 5, 7):
        bag = [{**picture, "bag": "alike"} for picture in pictures[:size]]
        found |= {f"val/{name}" for name in Bags(Judge()).score(["a"] * size, [["a"]] * size, bag)}
    assert set(VALIDATION) <= found


def test_the_page_on_monitors_explains_every_number_of_the_policy_and_the_reward():
    page = (Path(__file__).parents[2] / "docs" / "monitors.md").read_text(encoding="utf-8")
    assert [name for name in (*POLICY, *REWARD) if f"`{name}`" not in page] == []


def test_the_page_on_monitors_shows_the_limits_of_the_config():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "monitors.md").read_text(encoding="utf-8")
    config = yaml.safe_load((root / "configs" / "callback" / "degeneration.yaml").read_text(encoding="utf-8"))
    (shown,) = re.findall(r"```yaml\n(limits:.*?)```", page, re.DOTALL)
    assert yaml.safe_load(shown)["limits"] == config["limits"]
    assert f"`on_degeneration={config['on_degeneration']}`" in page
