"""What is told in one message: a disk that takes nothing, wherever it is met."""

import errno
import os
import resource
import shutil
import traceback
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from capkit import cli
from capkit.errors import Diverged, RunFailure, UsageError, check_choice, exit_status, known_error
from capkit.run.folder import RunFolder
from capkit.utils.files import add_to_file, write_atomically


def disk_error(number, path=None):
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_message_that_says_what_to_do(number):
    known = known_error(disk_error(number, "runs/a/x"))
    assert isinstance(known, RunFailure) and exit_status(known) == 1
    assert str(known).startswith(f"runs/a/x cannot be written: {os.strerror(number)}; make room")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_takes_no_files_is_wrong_input(number):
    known = known_error(disk_error(number, "runs/a/x"))
    assert isinstance(known, UsageError) and exit_status(known) == 2 and os.strerror(number) in str(known)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files_are_one_message_that_says_what_to_do(number):
    known = known_error(disk_error(number))
    assert isinstance(known, RunFailure) and exit_status(known) == 1
    assert str(known).startswith(
        f"a file or a pipe cannot be opened: {os.strerror(number)}; allow more (ulimit -n 65536)"
    )


def test_a_library_that_wraps_it_or_tells_it_in_words_hides_nothing():
    try:
        try:
            raise disk_error(errno.ENOSPC, "x")
        except OSError as error:
            raise RuntimeError("writing failed") from error
    except RuntimeError as error:
        assert "No space left" in str(known_error(error))
    told = known_error(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert "No space left on device; make room" in str(told)


@pytest.mark.parametrize(
    "error", [disk_error(errno.ENOENT, "x"), disk_error(errno.EACCES), KeyError("x"), OSError("x")]
)
def test_a_defect_of_ours_stays_one(error):
    assert known_error(error) is None


@pytest.mark.parametrize("write", [write_atomically, add_to_file])
def test_the_file_is_named_that_the_disk_had_no_room_for(write, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError) as error:
            write(tmp_path / "x.json", "x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"{tmp_path / 'x.json'} cannot be written: File too large" in str(known_error(error.value))


def test_a_run_whose_disk_is_full_from_the_start_ends_with_one_message(tmp_path, monkeypatch, capsys):
    def task(config):
        RunFolder(tmp_path / "run").open({"seed": 0})

    def no_room(descriptor):
        raise disk_error(errno.ENOSPC)

    monkeypatch.setattr("capkit.config.running.run_task", task)
    monkeypatch.setattr(os, "fsync", no_room)
    assert cli.main([f"run_dir={tmp_path / 'run'}"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"error: {tmp_path}/run/config.yaml cannot be written: No space" in told


def test_a_working_directory_that_was_deleted_is_told(tmp_path, monkeypatch, capsys):
    here, gone = Path.cwd(), tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    try:
        shutil.rmtree(gone)
        assert cli.main(["dry_run=true"]) == 2
    finally:
        os.chdir(here)
    assert capsys.readouterr().err == "error: the working directory no longer exists; cd to one that does\n"


class Wrong(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise UsageError(f"item {index}:\nexpected a: b, got c; leave it out")


def test_an_error_of_a_loaders_worker_has_no_traceback():
    with pytest.raises(UsageError) as caught:
        next(iter(DataLoader(Wrong(), num_workers=1)))
    assert "Traceback" in str(caught.value)
    assert str(known_error(caught.value)) == "item 0:\nexpected a: b, got c; leave it out"


@pytest.mark.parametrize("kind", [UsageError, Diverged])
def test_a_notebook_shows_what_a_message_tells_below_the_users_own_lines_alone(kind):
    """`_render_traceback_` is what IPython calls."""
    within = {"Error": kind}
    code = "def refuse():\n    raise Error('expected 1, got 2; give 1')\n"
    exec(compile(code, str(Path(cli.__file__).with_name("of_capkit.py")), "exec"), within)
    with pytest.raises(kind) as caught:
        within["refuse"]()
    assert len(traceback.extract_tb(caught.value.__traceback__)) == 2
    here, message = caught.value._render_traceback_()
    assert message == f"{kind.__name__}: expected 1, got 2; give 1"
    assert here.startswith(f'  File "{__file__}", line ') and 'within["refuse"]()' in here


def test_a_wrong_choice_is_told_with_all_choices_and_the_nearest():
    check_choice("objective.reduction", "mean", ("mean", "sum"))
    with pytest.raises(UsageError, match=r"^expected form to be one of mean, sum; got 'maen'; did you mean 'mean'\?$"):
        check_choice("form", "maen", ("mean", "sum"))
    with pytest.raises(UsageError, match=r"got None; give one of them$"):
        check_choice("form", None, ("mean", "sum"))


@pytest.mark.parametrize("how", ["(pid(s) 7) exited unexpectedly", "(pid 7) is killed by signal: Killed. "])
def test_a_data_worker_that_was_killed_is_one_message_that_says_what_to_do(how):
    known = known_error(RuntimeError(f"DataLoader worker {how}"))
    assert isinstance(known, RunFailure) and exit_status(known) == 1
    assert str(known).startswith(f"DataLoader worker {how.strip('. ')}: ") and "data.num_workers" in str(known)
    assert known_error(RuntimeError("about a DataLoader worker (pid 7)")) is None
