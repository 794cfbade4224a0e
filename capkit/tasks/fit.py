"""task=fit: trains a captioner, captions the held-out split, scores it and writes the run folder."""

from omegaconf import DictConfig

from capkit.checkpoint.loading import checkpoint_extras
from capkit.distributed.launcher import start_ranks
from capkit.fault_tolerance.stop_signal import stoppable
from capkit.fault_tolerance.watchdog import ends_all_ranks
from capkit.run.folder import RunFolder
from capkit.train.build import applicable, build_model, build_parts, encoder_of, vocabulary_captions
from capkit.train.dry_run import print_plan
from capkit.train.evaluation import evaluate_split, finish
from capkit.train.header import print_header
from capkit.train.mle_module import MLEModule
from capkit.train.sanity import warn_of_captions
from capkit.train.session import open_run, tasks_on_captioner, train
from capkit.utils.console import phase


@ends_all_ranks
@stoppable()
def run(cfg: DictConfig) -> dict[str, float]:
    """Trains, evaluates on the test split and returns the final numbers, as in metrics.json."""
    if start_ranks(cfg):
        return RunFolder(cfg.run_dir).metrics() if cfg.run_dir else {}
    this = open_run(cfg, build_parts)
    trainer, data, folder = this.trainer, this.data, this.folder
    with phase("building the model"):
        model = build_model(cfg.model, lambda: vocabulary_captions(data, cfg.dry_run), cfg.seed)
    metrics = applicable(this.parts["metrics"], data.source("test").record(0).metadata)
    module = MLEModule(model, **{**this.parts, "metrics": metrics})
    this.extras.extras = checkpoint_extras(cfg, model)
    this.attach(encoder_of(model, data.max_length))
    print_header(trainer, module, data, folder.path)
    if cfg.dry_run:
        print_plan(module, data, str(trainer.precision))
        return {}
    started_at = this.start_from(module)
    if this.is_done(started_at):
        return folder.metrics()
    warn_of_captions(data, model)
    if this.resume is None and cfg.controls:
        evaluate_split(trainer, module, data, folder, "test", prefix="test/untrained", limit=cfg.controls)
    train(this, module, started_at)
    rows = evaluate_split(trainer, module, data, folder, "test", prefix="test", limit=cfg.eval_limit, controls=True)
    finish(cfg, trainer, folder, data, rows, "test", tasks_on_captioner(folder, data))
    this.require_saved()
    return folder.metrics()
