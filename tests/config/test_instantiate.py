"""What `build` tells of classes that libraries, users and nobody wrote."""

import re

import pytest
from hydra.errors import InstantiationException

from capkit.config.instantiate import build
from capkit.errors import UsageError


class Mine:
    """As a user's own class, with an error of its own."""

    def __init__(self):
        raise TypeError("a bug")


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ({"_target_": "torch.optim.Adam", "lr": 0.1}, r"expected what torch.*Adam takes, got TypeError: .*'params'"),
        (
            {"_target_": "lightning.pytorch.Trainer", "profiler": "word", "logger": False},
            "MisconfigurationException: .*profiler",
        ),
        ({"_target_": "math.sqrt", "split": "train"}, r"expected what math\.sqrt takes, got TypeError"),
        ({"_target_": "torch.optim.Adamm"}, "'torch.optim.Adamm': expected a class or function that can be imported"),
        ({"_target_": "nosuchpackage.Adam"}, "No module named 'nosuchpackage'"),
    ],
)
def test_what_a_library_refuses_is_told_with_the_setting(node, told):
    with pytest.raises(UsageError, match=told):
        build(node)
    with pytest.raises(UsageError, match=f"^inner: .*{told}"):
        build({"_target_": "builtins.dict", "inner": node})


def test_an_error_of_a_users_own_class_keeps_its_traceback():
    with pytest.raises(InstantiationException, match=re.escape("TypeError('a bug')")):
        build({"_target_": f"{__name__}.Mine"})
