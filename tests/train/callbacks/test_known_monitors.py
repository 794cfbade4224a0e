"""Early stopping by a number that is not logged is told with those that are."""

import pytest
from lightning.pytorch.callbacks import EarlyStopping
from scripted import Scripted, fit

from capkit.errors import UsageError
from capkit.train.callbacks.known_monitors import KnownMonitors

VALIDATIONS = {step: {"cider": 1.0, "clip_score": 0.5} for step in range(9)}


def run(**arguments):
    stop = EarlyStopping(check_on_train_epoch_end=False, patience=1, mode="max", **arguments)
    model = Scripted(validations=VALIDATIONS)
    fit(model, [KnownMonitors(), stop], max_steps=8, val_every=2)
    return int(model.weight)


def test_an_unknown_monitor_is_refused_at_the_first_validation_with_the_names_that_are_logged():
    with pytest.raises(
        UsageError, match=r"val/cidr is not logged; logged: val/cider, val/clip_score; did .*'val/cider'"
    ):
        run(monitor="val/cidr")


def test_a_known_monitor_stops_the_run_and_one_that_may_be_missing_does_not():
    assert run(monitor="val/cider") == 4  # one validation that was no better
    assert run(monitor="val/cidr", strict=False) == 8
