import logging
import warnings

import pytest

from capkit.utils.quiet import quiet_libraries


@pytest.fixture(autouse=True)
def quiet():
    """As in a run; filters and what shows warnings are pytest's again afterwards."""
    logger = logging.getLogger("transformers")
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    before = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")}
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        quiet_libraries()
        yield handler
    logger.removeHandler(handler)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(
    ("message", "is_shown"),
    [
        ("The attention mask is not set and cannot be inferred from input because pad token is same as eos", False),
        ("Setting `pad_token_id` to `eos_token_id`:0 for open-end generation.", False),
        ("The following generation flags are not valid and may be ignored: ['temperature']", False),
        ("Some weights of BertModel were not initialized from the model checkpoint", True),
        ("Token indices sequence length is longer than the specified maximum sequence length", True),
    ],
)
def test_advice_about_calls_that_are_meant_is_left_out_and_what_a_user_can_act_on_stays(quiet, message, is_shown):
    for level in (logging.WARNING, logging.ERROR):
        record = logging.LogRecord("transformers.generation", level, __file__, 1, message, None, None)
        assert bool(quiet.filter(record)) == (is_shown or level == logging.ERROR)


@pytest.mark.parametrize(
    ("message", "is_shown"),
    [
        ("Can't initialize NVML", False),
        ("The 'train_dataloader' does not have many workers which may be a bottleneck.", False),
        ("step 3 does not fit into memory", True),
    ],
)
def test_warnings_about_what_is_not_there_are_left_out(message, is_shown):
    with warnings.catch_warnings(record=True) as shown:
        warnings.warn(message, stacklevel=1)
    assert bool(shown) == is_shown


def test_weights_are_loaded_without_a_bar_of_their_own_and_gpus_are_not_listed():
    from transformers.utils import logging as transformers_logging

    assert not transformers_logging.is_progress_bar_enabled()
    assert not logging.getLogger("lightning.pytorch.utilities.rank_zero").isEnabledFor(logging.INFO)
