"""Shards give the records and pictures of the source that they were made of, whatever happened while they were made."""

import io
import itertools
import json
import os
import pickle
import resource
import signal
import tarfile
from collections import defaultdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from capkit.data.curricula.bag_files import hash_of_keys, write_bags
from capkit.data.curricula.bags import Bags
from capkit.data.datamodule import CaptionDataModule
from capkit.data.fingerprint import fingerprint
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record, Region
from capkit.data.shard_writer import index_tars, write_shards
from capkit.data.sources.manifest import Manifest
from capkit.data.sources.shards import Shards
from capkit.data.transforms import ImageTransform
from capkit.data.webdataset import member_name
from capkit.errors import RunFailure, UsageError, known_error

NUM = 11


def picture(number: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def row(number: int) -> dict:
    fields = {
        "captions": [f"number {number}", {"text": f"número {number}", "source": "m", "language": "pt-BR"}],
        "regions": [{"box": [0.1, 0.2, 0.5, 0.9], "text": "dog"}], "metadata": {"id": number, "of": {"a": [1, 2.5]}},
    }  # fmt: skip
    names = ["a.b.jpg", "/root/c", "x//y", "ü ☃/7", "z" * 300, f"p{number}"]
    return {"key": names[min(number, 5)], "image": f"{number}.{'png' if number % 3 == 2 else 'jpg'}", **fields}


def manifest(folder: Path, bad: tuple[int, ...] = ()) -> Manifest:
    folder.mkdir(exist_ok=True)
    for number in range(NUM):
        data = picture(number, "PNG" if number % 3 == 2 else "JPEG")
        (folder / row(number)["image"]).write_bytes(data[:200] if number in bad else data)
    (folder / "m.jsonl").write_text("\n".join(json.dumps(row(number)) for number in range(NUM)))
    return Manifest(str(folder / "m.jsonl"))


def write(source, out, split="train", workers=1, skipped=0, each=4):
    return write_shards({split: source}, out, each, workers, skipped)


def files(folder: Path) -> dict[str, bytes]:
    """All files but the list of what was skipped, whose order is that of the processes."""
    names = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "skipped.jsonl")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}


def without_image(record: Record) -> Record:
    return Record(record.key, None, record.captions, record.regions, record.bag, record.metadata)


@pytest.mark.parametrize("workers", [1, 2])
def test_records_pictures_and_order_are_the_sources(tmp_path, workers):
    source = manifest(tmp_path / "pictures")
    assert write(source, tmp_path / "out", workers=workers) == {"train": NUM}
    shards = Shards(str(tmp_path / "out"), "train")
    assert len(shards) == NUM and shards.fingerprint() == fingerprint(source)
    for index in (*range(NUM), 3, -1):
        wanted = source.record(range(NUM)[index])
        assert without_image(shards.record(index)) == without_image(wanted)
        assert shards.encoded(index) == (tmp_path / "pictures" / str(wanted.image)).read_bytes()
        np.testing.assert_array_equal(shards.image(index), source.image(range(NUM)[index]))
    assert fingerprint_of_rows(shards) == fingerprint(source)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "shards.json",
        "train",
        "train.jsonl",
        "train.npy",
    ]


def fingerprint_of_rows(source) -> str:
    """The hash of the records themselves, not the stored one."""

    class Plain:
        __len__, record, image = (getattr(type(source), name) for name in ("__len__", "record", "image"))
        _index, _file, _open = source._index, source._file, source._open

    return fingerprint(Plain())


def test_the_tars_are_webdatasets_and_the_records_a_manifest(tmp_path):
    """Read as webdataset does: members of equal names up to the first dot of the last part are one sample."""
    source = manifest(tmp_path / "pictures")
    write(source, tmp_path / "out")
    samples: dict[str, dict[str, bytes]] = defaultdict(dict)
    for path in sorted((tmp_path / "out/train").iterdir()):
        with tarfile.open(path) as tar:
            for info in tar:
                folder, name = os.path.split(info.name)
                stem, _, ending = name.partition(".")
                samples[os.path.join(path.name, folder, stem)][ending] = tar.extractfile(info).read()
    assert len(samples) == NUM and all(set(parts) in ({"jpg", "json"}, {"png", "json"}) for parts in samples.values())
    for number, parts in enumerate(samples.values()):
        described = json.loads(parts.pop("json"))
        assert described["key"] == row(number)["key"] and described["metadata"] == row(number)["metadata"]
        assert next(iter(parts.values())) == (tmp_path / "pictures" / row(number)["image"]).read_bytes()
    again = Manifest(str(tmp_path / "out/train.jsonl"))
    assert [again.record(index).key for index in range(NUM)] == [row(number)["key"] for number in range(NUM)]
    np.testing.assert_array_equal(again.image(4), source.image(4))


def test_names_of_members_are_plain_and_differ():
    keys = ["a", "a.b", "a%2Eb", "/a", "a/b", "a//b", "a/", "..", ".", "☃", "\udcff", "z" * 181, "z" * 182, "a b"]
    names = [member_name(key) for key in keys]
    assert len(set(names)) == len(keys)
    assert all(name.isascii() and "." not in name and not name.startswith("/") and len(name) < 200 for name in names)


class Drawn:
    """A source without files."""

    def __len__(self):
        return 3

    def record(self, index):
        return Record(
            f"d{index}", None, [Caption("one"), Caption("")], [Region((0.0, 0.0, 1.0, 0.5))], f"bag{index % 2}"
        )

    def image(self, index):
        if index == 1:
            raise BadImage("no ink")
        return np.random.default_rng(index).integers(0, 256, (5, 7, 3), np.uint8)


def test_drawn_pictures_are_kept_without_loss(tmp_path):
    write_shards({"val": Drawn(), "test": Drawn()}, tmp_path / "out", 2, 1, 1)
    for split in ("val", "test"):
        shards = Shards(str(tmp_path / "out"), split)
        assert [shards.record(index) for index in (1,)] == [Drawn().record(1)]
        np.testing.assert_array_equal(shards.image(2), Drawn().image(2))
        with pytest.raises(BadImage, match=r"^no ink$"):
            shards.image(1)


def test_what_cannot_be_used_keeps_its_place_and_its_reason(tmp_path):
    source = manifest(tmp_path / "pictures", bad=(3, 5))
    (tmp_path / "pictures/7.jpg").unlink()
    write(source, tmp_path / "out", skipped=3)
    listed = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert [(item["key"][:2], item["path"]) for item in listed] == [("ü ", "3.jpg"), ("p5", "5.png"), ("p7", "7.jpg")]
    shards = Shards(str(tmp_path / "out"), "train")
    assert len(shards) == NUM and shards.fingerprint() == fingerprint(source)
    for index in (3, 5, 7):
        with pytest.raises(BadImage) as wanted:
            source.image(index)
        with pytest.raises(BadImage) as got:
            shards.image(index)
        assert str(got.value) == str(wanted.value)


def test_too_many_unusable_pictures_stop_it_and_repaired_ones_are_read_anew(tmp_path):
    source = manifest(tmp_path / "pictures", bad=(1, 6))
    with pytest.raises(UsageError, match="2 of 11 train examples cannot be used and max_skipped=1"):
        write(source, tmp_path / "out", skipped=1)
    with pytest.raises(UsageError, match="to its end"):
        Shards(str(tmp_path / "out"), "train")
    (tmp_path / "pictures/6.jpg").write_bytes(picture(6))
    write(source, tmp_path / "out", skipped=1)
    shards = Shards(str(tmp_path / "out"), "train")
    assert shards.encoded(6) == picture(6)
    with pytest.raises(BadImage):
        shards.image(1)


class Deadly(Manifest):
    """Kills all processes that write, without a word, at the given picture."""

    def __init__(self, path: str, at: int) -> None:
        super().__init__(path)
        self.at = at

    def record(self, index):
        if index == self.at and os.environ.get("DEADLY") == str(os.getpgid(0)):
            os.killpg(0, signal.SIGKILL)
        return super().record(index)


def doomed(path: str, out: str, at: int, workers: int) -> None:
    os.setpgid(0, 0)
    source = Deadly(path, at)
    prints = fingerprint(source)
    source.fingerprint = lambda: prints
    from capkit.data import shard_writer

    shard_writer.check_unique_keys = lambda records, where: None
    os.environ["DEADLY"] = str(os.getpgid(0))
    write(source, Path(out), workers=workers, skipped=1)


@pytest.mark.parametrize(("at", "workers"), [(1, 1), (4, 1), (10, 1), (9, 2)])
def test_after_a_kill_the_same_command_gives_the_bytes_of_an_undisturbed_run(tmp_path, at, workers):
    """Catches entries kept before their tar is whole, and tars whose bytes depend on time or process."""
    source = manifest(tmp_path / "pictures", bad=(2,))
    write(source, tmp_path / "whole", skipped=1)
    out = tmp_path / "out"
    process = get_context("fork").Process(
        target=doomed, args=(str(tmp_path / "pictures/m.jsonl"), str(out), at, workers)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL and not (out / "shards.json").exists() and (out / ".parts").exists()
    before = {name: (out / name).stat().st_mtime_ns for name in files(out) if name.endswith(".tar")}
    write(source, out, skipped=1)
    assert files(out) == files(tmp_path / "whole")
    if at > 4 and workers == 1:  # what was whole is not written again
        assert before and all((out / name).stat().st_mtime_ns == before[name] for name in before)


def crowded(path: str, out: str, workers: int, queue) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))
    try:
        write(Manifest(path), Path(out), workers=workers)
    except OSError as error:
        queue.put((type(known_error(error)), str(known_error(error))))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_told_with_the_file_and_leaves_nothing_half_written(tmp_path, workers):
    source = manifest(tmp_path / "pictures")
    context = get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(
        target=crowded, args=(str(tmp_path / "pictures/m.jsonl"), str(tmp_path / "out"), workers, queue)
    )
    process.start()
    kind, message = queue.get()
    process.join(60)
    assert kind is RunFailure and "train/00000" in message and "make room" in message
    assert not list((tmp_path / "out").rglob("*.tar")) and not list((tmp_path / "out").rglob("*.tmp"))
    write(source, tmp_path / "out")
    assert len(Shards(str(tmp_path / "out"), "train")) == NUM


def test_a_folder_of_anything_else_is_refused_and_left_alone(tmp_path):
    source = manifest(tmp_path / "pictures")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(UsageError, match=r"new or empty folder, got one that holds thesis\.tex"):
        write(source, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    write(source, tmp_path / "out")
    before = files(tmp_path / "out")
    with pytest.raises(UsageError, match="holds other records"):
        write(source, tmp_path / "out", each=5)
    with pytest.raises(UsageError, match="holds other records"):
        write(Drawn(), tmp_path / "out")
    assert write(source, tmp_path / "out") == {"train": NUM} and files(tmp_path / "out") == before


def test_changed_or_lost_bytes_are_told_and_never_decoded(tmp_path):
    source = manifest(tmp_path / "pictures")
    write(source, tmp_path / "out")
    path = tmp_path / "out/train/000000.tar"
    data = bytearray(path.read_bytes())
    data[data.index(picture(0)) + 300] ^= 1
    path.write_bytes(data)
    (tmp_path / "out/train/000001.tar").unlink()
    shards = Shards(str(tmp_path / "out"), "train")
    with pytest.raises(BadImage, match="other bytes than those that were indexed"):
        shards.encoded(0)
    with pytest.raises(BadImage, match="No such file"):
        shards.encoded(4)
    assert shards.encoded(1) == picture(1) and shards.encoded(9) == picture(9)


def test_a_split_that_is_not_there_and_a_damaged_index_are_named(tmp_path):
    write(manifest(tmp_path / "pictures"), tmp_path / "out")
    with pytest.raises(UsageError, match=r"one of the splits train, got val; set data\.val=null"):
        Shards(str(tmp_path / "out"), "val")
    with pytest.raises(UsageError, match="expected a folder that `capkit shard` wrote to its end"):
        Shards(str(tmp_path), "train")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "00000.tar").touch()
    with pytest.raises(UsageError, match=r"tars from elsewhere.*`capkit shard tars=.*elsewhere out=INDEX`"):
        Shards(str(tmp_path / "elsewhere"), "train")
    (tmp_path / "elsewhere" / ".parts").mkdir()
    with pytest.raises(UsageError, match="the same command again goes on where it was stopped"):
        Shards(str(tmp_path / "elsewhere"), "train")
    np.save(tmp_path / "out/train.npy", np.zeros(NUM))
    with pytest.raises(UsageError, match=r"train\.npy: expected 11 places"):
        Shards(str(tmp_path / "out"), "train")


def module(source, tmp_path, workers=0, bags=True, decode="turbo") -> CaptionDataModule:
    keys = [row(number)["key"] for number in range(NUM)]
    if bags and not (tmp_path / "bags").exists():
        lists = {"hard-2": [keys[start : start + 2] for start in range(0, 10, 2)]}
        about = {"split": "train", "num_keys": NUM, "keys_hash": hash_of_keys(keys), "lists": {"hard-2": {}}}
        write_bags(tmp_path / "bags", lists, about)

    def curriculum(batch_size, seed, rank, world_size, num_examples, keys):
        stages = {9: "hard-2"}
        return Bags(str(tmp_path / "bags"), stages, batch_size, seed, rank, world_size, num_examples, keys)

    return CaptionDataModule(
        train=source, transform=ImageTransform(8, augment=["crop", "flip"]), batch_size=4, captions_per_image=2,
        num_workers=workers, max_skipped=2, curriculum=curriculum if bags else None, decode=decode,
    )  # fmt: skip


def batches(data: CaptionDataModule, run: Path):
    data.attach(run_dir=run)
    data.set_steps(0, 5)
    loader = data.train_dataloader()
    found = [(batch.keys, batch.references, batch.metadata, batch.bag, batch.pixels) for batch in loader]
    loader.close()
    return found


@pytest.mark.parametrize("bags", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_pictures_folder(tmp_path, bags, workers):
    """Keys, captions, bags, drawn crops, and what takes the place of the unusable: over epochs, with workers."""
    source = manifest(tmp_path / "pictures", bad=(2, 8))
    write(source, tmp_path / "out", skipped=2)
    wanted = batches(module(source, tmp_path, bags=bags), tmp_path / "run1")
    got = batches(module(Shards(str(tmp_path / "out"), "train"), tmp_path, workers, bags), tmp_path / "run2")
    for one, other in itertools.zip_longest(wanted, got):
        assert one[:3] == other[:3] and torch.equal(one[4], other[4])
        assert torch.equal(one[3], other[3]) if bags else one[3] is other[3] is None
    reasons = [
        {item["key"]: item["reason"] for item in map(json.loads, (run / "skipped.jsonl").read_text().splitlines())}
        for run in (tmp_path / "run1", tmp_path / "run2")
    ]
    assert reasons[0] == reasons[1] and len(reasons[0]) == 2


def test_a_checkpoint_of_the_pictures_folder_goes_on_with_the_shards(tmp_path):
    source = manifest(tmp_path / "pictures")
    write(source, tmp_path / "out")
    first = module(source, tmp_path)
    first.train_dataloader()
    second = module(Shards(str(tmp_path / "out"), "train"), tmp_path)
    second.train_dataloader()
    second.load_state_dict(first.state_dict())


def test_a_source_goes_to_another_process(tmp_path):
    write(manifest(tmp_path / "pictures"), tmp_path / "out")
    shards = Shards(str(tmp_path / "out"), "train")
    shards.encoded(0)
    assert pickle.loads(pickle.dumps(shards)).encoded(0) == shards.encoded(0)


def foreign(folder: Path, num_tars=3, each=4) -> Path:
    """Tars as img2dataset writes them: jpg, json and txt of each sample, numbered."""
    folder.mkdir()
    for shard in range(num_tars):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(each):
                about = {
                    "caption": f"from json {shard} {number}",
                    "url": f"http://x/{number}",
                    "key": str(number),
                    "width": 16,
                }
                parts = {"jpg": picture(shard * each + number), "json": json.dumps(about).encode()}
                if number:
                    parts["txt"] = f"of {shard} {number}\nsecond".encode()
                for ending, data in parts.items():
                    info = tarfile.TarInfo(f"{shard:05d}{number:04d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        (folder / f"{shard:05d}_stats.json").write_text("{}")
    return folder


@pytest.mark.parametrize("inside", [True, False])
def test_tars_made_elsewhere_are_indexed_where_they_are(tmp_path, inside):
    folder = foreign(tmp_path / "laion")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    out = folder if inside else tmp_path / "index"
    counts = index_tars(sorted(folder.glob("*.tar")), out, (0.2, 0.0), 0, 1, 0)
    assert counts == {"train": 9, "val": 3}
    assert (
        {name: (folder / name).read_bytes() for name in before} == before and not list(out.rglob("*.tar"))
    ) or inside
    shards = [Shards(str(out), split) for split in ("train", "val")]
    seen = {source.record(index).key: (source, index) for source in shards for index in range(len(source))}
    assert set(seen) == {f"{shard:05d}/{shard:05d}{number:04d}" for shard in range(3) for number in range(4)}
    source, index = seen["00001/000010002"]
    record = source.record(index)
    assert [caption.text for caption in record.captions] == ["of 1 2", "second"] and record.metadata == {
        "url": "http://x/2"
    }
    assert source.encoded(index) == picture(6)
    source, index = seen["00002/000020000"]
    assert [caption.text for caption in source.record(index).captions] == ["from json 2 0"]
    with pytest.raises(UsageError, match="holds other records"):
        index_tars(sorted(folder.glob("*.tar")), out, (0.1, 0.0), 0, 1, 0)


def test_an_index_of_capkits_own_tars_gives_their_records_back(tmp_path):
    source = manifest(tmp_path / "pictures")
    write(source, tmp_path / "out")
    index_tars(sorted((tmp_path / "out").rglob("*.tar")), tmp_path / "index", (0.0, 0.0), 0, 2, 0)
    again = Shards(str(tmp_path / "index"), "train")
    assert again.fingerprint() == fingerprint(source)
    assert [again.encoded(index) for index in range(NUM)] == [
        (tmp_path / "pictures" / row(number)["image"]).read_bytes() for number in range(NUM)
    ]


def test_unusable_pictures_of_other_peoples_tars_count_too(tmp_path):
    folder = foreign(tmp_path / "laion", num_tars=1)
    path = folder / "00000.tar"
    data = path.read_bytes()
    path.write_bytes(data.replace(picture(1)[-200:-100], b"\xff\xd8" * 50))
    with pytest.raises(UsageError, match="1 of 4 all examples cannot be used"):
        index_tars([path], tmp_path / "index", (0.0, 0.0), 0, 1, 0)
    index_tars([path], tmp_path / "index", (0.0, 0.0), 0, 1, 1)
    shards = Shards(str(tmp_path / "index"), "train")
    with pytest.raises(BadImage, match=r"cannot be decoded|not an image"):
        shards.image(1)
    assert shards.encoded(2) == picture(2)


@pytest.mark.parametrize(("cut", "message"), [(3000, "whole"), (0, "got none|whole"), (None, "uncompressed tar")])
def test_a_damaged_tar_is_named(tmp_path, cut, message):
    path = foreign(tmp_path / "laion", num_tars=1) / "00000.tar"
    path.write_bytes(b"no tar at all" * 100 if cut is None else path.read_bytes()[:cut])
    with pytest.raises(UsageError, match=rf"00000\.tar: .*({message})"):
        index_tars([path], tmp_path / "index", (0.0, 0.0), 0, 1, 0)
