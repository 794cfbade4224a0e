"""Rules about settings of Lightning's trainer that the task gives it itself, so that a user's would be ignored."""

from capkit.config.settings import Settings

# What the task gives to Lightning's trainer itself, and where a user says it.
_OF_THE_TASK = {
    "callbacks": "callback=[NAME,...]",
    "logger": "logger=[NAME,...]",
    "val_check_interval": "val_every=STEPS",
    "check_val_every_n_epoch": "val_every=STEPS",
    "default_root_dir": "run_dir=DIR",
    "enable_checkpointing": "callback.checkpoints.KEY=VALUE",
    "enable_model_summary": "dry_run=true",
    "num_sanity_val_steps": "dry_run=true",
    "use_distributed_sampler": "nothing: a rank gets its share of each batch",
}


def trainer_holds_no_length(settings: Settings) -> str | None:
    for key in ("max_steps", "max_epochs"):
        length = (settings.config.get("trainer") or {}).get(key)
        if length is not None:
            return f"trainer.{key} would be ignored, since the task sets the trainer's length; write {key}={length}"
    return None


def trainer_holds_nothing_of_the_tasks(settings: Settings) -> str | None:
    trainer = settings.config.get("trainer") or {}
    given = next((key for key in _OF_THE_TASK if trainer.get(key) is not None), None)
    if given is None:
        return None
    return f"trainer.{given} would be ignored, since the task sets it; leave it out and give {_OF_THE_TASK[given]}"
