"""A dual encoder pretrained on SceneWorld once, for every effect test that starts from one."""

from pathlib import Path

import pytest

from capkit.cli import main


@pytest.fixture(scope="session")
def sceneworld_clip(tmp_path_factory) -> Path:
    """The run folder of experiment=clip_pretrain_sceneworld, on one thread."""
    folder = tmp_path_factory.mktemp("sceneworld clip")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        judged = "evaluator=[retrieval,zero_shot_scenes,zero_shot_holdout,sts_scenes,composed_scenes]"
        words = ["trainer=cpu", "trainer.devices=1", "val_every=400", judged]
        assert main(["experiment=clip_pretrain_sceneworld", f"run_dir={folder / 'run'}", *words]) == 0
    return folder / "run"
