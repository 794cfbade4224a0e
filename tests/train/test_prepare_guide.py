"""What a checkpoint says of its training is held against the guide that is asked for."""

import warnings

import pytest

from capkit.decoding.config import Decoding
from capkit.decoding.guide import Guide
from capkit.train.guidance import prepare_guide


def checkpoint(**objective):
    return {"capkit": {"config": {"objective": objective}}}


@pytest.mark.parametrize("trained", [checkpoint(), checkpoint(image_dropout=0.0), {"capkit": {"config": {}}}])
def test_a_captioner_that_missed_no_image_is_guided_with_a_warning(trained):
    with pytest.warns(UserWarning, match=r"trained with every image.*objective\.image_dropout=0\.5"):
        prepare_guide(object(), trained, Decoding(guide=Guide(2.0)), "cpu")


@pytest.mark.parametrize(
    ("trained", "guide"), [(checkpoint(image_dropout=0.5), Guide(2.0)), (checkpoint(), None)], ids=["trained", "plain"]
)
def test_no_warning_where_there_is_nothing_to_warn_of(trained, guide):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_guide(object(), trained, Decoding(guide=guide), "cpu")
