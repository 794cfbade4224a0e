"""The learner's pass with shared pictures gives what a row for each caption gives, for fewer operations."""

from benchmarks.chat_update import check, main


def test_shared_pictures_give_the_same_logprobs_and_gradients():
    assert check() < 1e-4


def test_shared_pictures_take_fewer_operations_and_keep_less():
    found = main(["--size", "tiny", "--samples", "4", "--length", "6", "--rounds", "1"])
    assert found["shared"].tflop < 0.6 * found["rows"].tflop
    assert found["shared"].kept_mib < 0.6 * found["rows"].kept_mib
