import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.utils.embedding_cache import EmbeddingStore
from capkit.utils.store import check_about, digest, fingerprint

ABOUT = {"side": "text", "weights": "abc", "prompt": "a photo of"}


def rows_of(numbers, width=3):
    return np.array([[number + place / 10 for place in range(width)] for number in numbers], np.float32)


def keys_of(numbers):
    return [digest(str(number).encode()) for number in numbers]


def store(root, about=ABOUT):
    return EmbeddingStore(root, about)


def test_rows_come_back_by_key_from_this_store_and_from_another_process_that_opens_it(tmp_path):
    first = store(tmp_path)
    first.add(keys_of([1, 2]), rows_of([1, 2]))
    first.add(keys_of([3]), rows_of([3]))
    for opened in (first, store(tmp_path), pickle.loads(pickle.dumps(first))):
        np.testing.assert_array_equal(opened[keys_of([3, 1, 3])], rows_of([3, 1, 3]))
        assert len(opened) == 3 and keys_of([2])[0] in opened and keys_of([4])[0] not in opened


def test_the_files_are_a_numpy_array_and_the_words_that_the_folder_is_named_after(tmp_path):
    made = store(tmp_path)
    made.add(keys_of(range(5)), rows_of(range(5)))
    folder = tmp_path / f"text-{fingerprint(ABOUT)}"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    np.testing.assert_array_equal(np.load(folder / "rows.npy"), rows_of(range(5)))
    assert json.loads((folder / "about.json").read_text()) == ABOUT
    assert sorted(path.name for path in folder.iterdir()) == ["about.json", "keys.bin", "rows.npy"]


def test_rows_are_read_through_a_memory_map(tmp_path):
    store(tmp_path).add(keys_of([1]), rows_of([1]))
    assert isinstance(store(tmp_path)._rows, np.memmap)


def test_a_known_key_keeps_its_row_and_a_key_given_twice_takes_the_first(tmp_path):
    made = store(tmp_path)
    made.add(keys_of([1, 2, 1]), rows_of([1, 2, 9]))
    made.add(keys_of([2, 3]), rows_of([7, 3]))
    np.testing.assert_array_equal(made[keys_of([1, 2, 3])], rows_of([1, 2, 3]))
    assert len(made) == 3


def test_missing_keys_come_once_in_order_and_without_those_another_process_added(tmp_path):
    one, other = store(tmp_path), store(tmp_path)
    other.add(keys_of([2]), rows_of([2]))
    assert one.missing(keys_of([3, 2, 1, 3])) == keys_of([3, 1])
    np.testing.assert_array_equal(one[keys_of([2])], rows_of([2]))


@pytest.mark.parametrize("change", [{"weights": "abd"}, {"prompt": ""}, {"side": "image"}, {"extra": 1}])
def test_whatever_differs_gets_a_store_of_its_own(tmp_path, change):
    store(tmp_path).add(keys_of([1]), rows_of([1]))
    assert len(store(tmp_path, ABOUT | change)) == 0


def test_the_fingerprint_does_not_depend_on_the_order_of_entries():
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})


def test_digests_tell_parts_apart():
    assert len({digest(b"ab", b"c"), digest(b"a", b"bc"), digest(b"abc"), digest(b"abc", b"")}) == 4


def test_a_store_moved_under_another_name_is_refused_with_what_differs(tmp_path):
    mine = store(tmp_path).folder
    other = ABOUT | {"weights": "xyz"}
    theirs = store(tmp_path, other)
    theirs.add(keys_of([1]), rows_of([1]))
    mine.joinpath("about.json").unlink()
    mine.rmdir()
    theirs.folder.rename(mine)
    with pytest.raises(UsageError, match=r"weights is 'xyz', wanted 'abc'; delete the folder"):
        store(tmp_path)


def test_check_about_names_every_difference_on_both_sides():
    with pytest.raises(UsageError) as caught:
        check_about({"a": 1, "only": 2, "same": 0}, {"a": 3, "lacks": 4, "same": 0}, "features X", "make them anew")
    assert str(caught.value) == (
        "features X was made with something else: a is 1, wanted 3; lacks is '(absent)', wanted 4; "
        "only is 2, wanted '(absent)'; make them anew"
    )
    check_about({"a": 1}, {"a": 1}, "features X", "make them anew")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: os.truncate(f / "rows.npy", os.path.getsize(f / "rows.npy") - 1), "damaged rows.npy"),
        (lambda f: os.truncate(f / "rows.npy", 0), "damaged rows.npy"),
        (lambda f: (f / "rows.npy").unlink(), "damaged rows.npy"),
        (lambda f: np.save(f / "rows.npy", rows_of(range(2))), r"shape \(2, 3\) and type float32 for 4 keys"),
        (lambda f: np.save(f / "rows.npy", rows_of(range(4)).astype(np.float64)), "type float64"),
        (lambda f: (f / "about.json").write_text('{"si'), "damaged about.json"),
        (lambda f: (f / "about.json").write_bytes(b"\x80\xff garbage"), "damaged about.json"),
        (lambda f: (f / "about.json").write_text("[1]"), "damaged about.json"),
        (lambda f: (f / "about.json").write_text("null"), "damaged about.json"),
        (lambda f: (f / "about.json").write_bytes(b""), "damaged about.json"),
        (lambda f: (f / "about.json").unlink(), "no about.json"),
        (lambda f: (f / "rows.npy").write_bytes(os.urandom(400)), "damaged rows.npy"),
        (lambda f: (f / "keys.bin").write_bytes(keys_of([1])[0] * 4), "names a row twice"),
    ],
)
def test_a_damaged_store_is_refused(tmp_path, damage, reason):
    made = store(tmp_path)
    made.add(keys_of(range(4)), rows_of(range(4)))
    damage(made.folder)
    with pytest.raises(UsageError, match=f"{reason}.*delete the folder"):
        store(tmp_path)


def test_a_store_that_is_emptied_under_a_reader_is_refused(tmp_path):
    made = store(tmp_path)
    made.add(keys_of([1, 2]), rows_of([1, 2]))
    os.truncate(made.folder / "keys.bin", 16)
    with pytest.raises(UsageError, match="shrank from 2 rows to 1"):
        made.refresh()


def test_rows_of_another_width_and_rows_that_are_not_finite_are_refused(tmp_path):
    made = store(tmp_path)
    made.add(keys_of([1]), rows_of([1]))
    with pytest.raises(UsageError, match="width 3 and was offered width 4"):
        made.add(keys_of([2]), rows_of([2], width=4))
    with pytest.raises(UsageError, match="not finite"):
        made.add(keys_of([2]), rows_of([np.nan]))
    assert len(store(tmp_path)) == 1


@pytest.mark.parametrize("lost", ["half a key", "all keys of an addition", "header and keys"])
def test_an_addition_that_was_cut_off_is_as_if_it_had_not_begun(tmp_path, lost):
    made = store(tmp_path)
    made.add(keys_of([1, 2]), rows_of([1, 2]))
    header = (made.folder / "rows.npy").read_bytes()[:128]
    made.add(keys_of([3, 4]), rows_of([3, 4]))
    os.truncate(made.folder / "keys.bin", 40 if lost == "half a key" else 32)
    if lost == "header and keys":
        with (made.folder / "rows.npy").open("r+b") as file:
            file.write(header)
    opened = store(tmp_path)
    assert opened.missing(keys_of([1, 2, 3, 4])) == keys_of([3, 4])
    opened.add(keys_of([5, 6, 7]), rows_of([5, 6, 7]))
    np.testing.assert_array_equal(store(tmp_path)[keys_of([1, 2, 5, 6, 7])], rows_of([1, 2, 5, 6, 7]))


WRITER = """
    import sys
    import numpy as np
    from capkit.utils.embedding_cache import EmbeddingStore
    from capkit.utils.store import digest
    store = EmbeddingStore(sys.argv[1], {"side": "text", "weights": "abc", "prompt": "a photo of"})
    number = 0
    while True:
        numbers = range(number, number + 50)
        store.add([digest(str(n).encode()) for n in numbers], np.array([[n, -n] for n in numbers], np.float32))
        number += 50
        print(number, flush=True)
"""


@pytest.mark.parametrize("delay_ms", [0, 3, 7, 13])
def test_a_kill_in_the_middle_loses_nothing_that_was_committed(tmp_path, delay_ms):
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    committed = int([process.stdout.readline() for _ in range(5)][-1])
    time.sleep(delay_ms / 1000)
    process.send_signal(signal.SIGKILL)
    committed = max([committed, *(int(line) for line in process.stdout.read().splitlines(keepends=True))])
    assert process.wait() == -signal.SIGKILL
    survived = store(tmp_path)
    assert committed <= len(survived) <= committed + 50
    numbers = list(range(committed))
    np.testing.assert_array_equal(survived[keys_of(numbers)], [[n, -n] for n in numbers])
    survived.add(keys_of([-1]), np.array([[5, 6]], np.float32))
    np.testing.assert_array_equal(store(tmp_path)[keys_of([-1, 0])], [[5, 6], [0, 0]])


def write_numbers(root, numbers):
    made = store(root)
    for start in range(0, len(numbers), 7):
        part = numbers[start : start + 7]
        made.add(keys_of(part), rows_of(part))


@pytest.mark.integration
def test_processes_that_write_the_same_and_other_rows_at_once_do_no_harm(tmp_path):
    numbers = [list(range(0, 300)), list(range(150, 450)), list(range(449, 99, -1))]
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_numbers, args=(tmp_path, part)) for part in numbers]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    opened = store(tmp_path)
    assert len(opened) == 450
    np.testing.assert_array_equal(opened[keys_of(range(450))], rows_of(range(450)))
    assert (opened.folder / "keys.bin").stat().st_size == 450 * 16


def test_a_folder_that_cannot_be_used_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be used.*give a folder that can be written"):
        store(tmp_path / "file")
