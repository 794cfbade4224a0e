"""Sweeps whose values Optuna chooses, one run after the other; its study is a file in the sweep's folder."""

import fcntl
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from capkit.errors import RunFailure, UsageError
from capkit.run.folder import RunFolder
from capkit.utils.console import say
from capkit.utils.ranges import PositiveInt, Seed, check_ranges

STUDY = "optuna.journal"
Value = str | int | float
_FALLING = ("loss", "perplexity")  # what names of such numbers end in
_SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "gp": "GPSampler", "cmaes": "CmaEsSampler"}


@check_ranges
class Optuna:
    """Chooses the values of a sweep by the numbers of the runs before (Akiba et al. 2019, arXiv 1907.10902).

    Args:
        metric: a number that runs log during validation, such as val/cider: its last value. Numbers of the test split
            are refused, since values chosen by them would be fitted to it.
        direction: whether it should be large or small; a loss or perplexity is never maximized.
        num_trials: runs in all, those before a resume included.
        sampler: tpe (Bergstra et al. 2011), random, gp or cmaes (which needs the package cmaes).
        seed: of the sampler.

    The same command again goes on: a run that was interrupted is continued, finished ones are kept. A run that fails
    (a loss that is no number, say) counts as a failed trial, and the next begins.
    """

    def __init__(
        self,
        metric: str = "val/cider",
        direction: Literal["maximize", "minimize"] = "maximize",
        num_trials: PositiveInt = 20,
        sampler: Literal["tpe", "random", "gp", "cmaes"] = "tpe",
        seed: Seed = 0,
    ) -> None:
        if metric.split("/")[0] == "test":
            raise UsageError(
                f"sweeper.metric={metric}: expected a number of validation, got one of the test split: the values "
                f"chosen by it would be fitted to that; give val/{metric.rpartition('/')[2]}"
            )
        if direction == "maximize" and metric.rpartition("/")[2].endswith(_FALLING):
            raise UsageError(
                f"sweeper.metric={metric}: expected a number that is to grow, got one that falls as a run gets better; "
                "give sweeper.direction=minimize too"
            )
        if importlib.util.find_spec("optuna") is None:
            raise UsageError("sweeper=optuna needs optuna, which is not installed; pip install 'capkit[sweeps]'")
        self.metric, self.direction, self.num_trials = metric, direction, num_trials
        self.sampler, self.seed = sampler, seed

    def run(
        self,
        space: Mapping[str, Any],
        run_trial: Callable[[Mapping[str, Value], Path], None],
        folder: Path,
        fixed: Sequence[str] = (),
    ) -> None:
        """Run trials until there are `num_trials`, each in FOLDER/NUMBER; prints the best.

        `space` gives the key of each swept value its distribution (`distribution`), `fixed` is what all runs are given.
        Raises UsageError where another process runs this sweep, or an earlier one of the folder had other values,
        another aim or other settings: one study would compare what cannot be compared.
        """
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(f"expected {folder} to be free, got another process's sweep; wait for it") from error
            backend = JournalFileBackend(str(folder / STUDY))
            study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name="sweep",
                direction=self.direction,
                load_if_exists=True,
            )
            # Of the trials before: the same seed would draw again what was drawn.
            seed = self.seed + len(study.trials)
            study.sampler = getattr(optuna.samplers, _SAMPLERS[self.sampler])(seed=seed)
            self._check_same(study, space, fixed)
            self._run(study, space, run_trial, folder)
            self._tell_best(study)

    def _check_same(self, study: Any, space: Mapping[str, Any], fixed: Sequence[str]) -> None:
        now = {
            "metric": self.metric,
            "direction": self.direction,
            "space": {key: repr(one) for key, one in space.items()},
            "fixed": sorted(fixed),
        }
        before = study.user_attrs.get("capkit")
        if before not in (None, now):
            raise UsageError(
                f"expected the sweep that this folder holds, got another one ({'; '.join(_changes(before, now))}); "
                "give what it was given, or another run_dir"
            )
        study.set_user_attr("capkit", now)

    def _run(self, study: Any, space: Mapping[str, Any], run_trial: Callable[..., None], folder: Path) -> None:
        from optuna.trial import TrialState

        waiting = [trial for trial in study.trials if trial.state == TrialState.RUNNING]
        for trial in [trial for trial in waiting if set(trial.params) != set(space)]:
            waiting.remove(trial)  # killed while its values were drawn: it never began
            study.tell(trial.number, state=TrialState.FAIL)
        while waiting or len(study.trials) < self.num_trials:
            if waiting:
                number, values = (trial := waiting.pop(0)).number, trial.params
            else:
                asked = study.ask(dict(space))
                number, values = asked.number, asked.params
            say(f"trial {number}: {', '.join(f'{key}={value}' for key, value in values.items())}")
            try:
                run_trial(values, folder / str(number))
                found = self._value(folder / str(number))
            except RunFailure as error:
                say(f"trial {number} failed: {error}")
                study.tell(number, state=TrialState.FAIL)
            else:
                study.tell(number, found)
                say(f"trial {number}: {self.metric} {found:.4f}")

    def _value(self, folder: Path) -> float:
        rows = [row for row in RunFolder(folder).current_rows() if self.metric in row]
        if not rows:
            raise UsageError(
                f"sweeper.metric={self.metric}: expected a number that runs log, got none in {folder}; give one of "
                "its metrics.jsonl"
            )
        value = float(rows[-1][self.metric])
        if not math.isfinite(value):
            raise RunFailure(f"{self.metric} is {value}")
        return value

    def _tell_best(self, study: Any) -> None:
        try:
            best = study.best_trial
        except ValueError:
            raise RunFailure("no trial of the sweep ended with a number") from None
        values = " ".join(f"{key}={value}" for key, value in best.params.items())
        say(f"best: trial {best.number}, {self.metric} {best.value:.4f}: {values}")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, list):
            gone, come = (" ".join(sorted(set(a) - set(b))) for a, b in ((old or [], value), (value, old or [])))
            old, value = gone or "nothing", come or "nothing"
        if old != value:
            yield f"{key}: {value} in place of {old}"


def distribution(
    values: Sequence[Value] | None, ends: tuple[int | float, int | float] | None = None, log: bool = False
) -> Any:
    """Optuna's distribution of listed values, or between two ends (whole numbers between whole ones)."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if ends is None:
        return CategoricalDistribution(list(values or ()))
    low, high = ends
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)
