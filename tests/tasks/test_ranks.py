import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from capkit.tasks import ranks


def test_a_rank_tells_a_constructors_usage_error_without_a_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ranks, "build_noam", lambda cfg: instantiate(cfg.scheduler), raising=False)
    cfg = {"task": {"_target_": "capkit.tasks.ranks.build_noam"}}
    cfg["scheduler"] = {"_target_": "capkit.schedules.Noam", "warmup": 0}
    OmegaConf.save(OmegaConf.create(cfg), tmp_path / "config.yaml")
    for rank, told in (("0", "Noam needs a warm-up"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as ended:
            ranks.main(str(tmp_path / "config.yaml"))
        assert ended.value.code == 2
        assert told in (error := capsys.readouterr().err) and "Traceback" not in error


@pytest.mark.parametrize(
    ("devices", "batch_size", "expected"), [(1, 32, 1), (2, 32, 2), ([0, 1, 2], 33, 3), ("auto", 33, 1)]
)
def test_devices_are_counted_as_the_config_says(devices, batch_size, expected):
    trainer = OmegaConf.create({"accelerator": "cpu", "devices": devices})
    assert ranks.num_processes(trainer, batch_size) == expected
