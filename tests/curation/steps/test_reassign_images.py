import json

import numpy as np
import pytest
import torch
from PIL import Image

from capkit.cli import main
from capkit.curation.steps.reassign_images import ReassignImages
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record, read_manifest
from capkit.data.sources.synthetic_pairs import SyntheticPairs
from capkit.errors import UsageError


def at(*degrees):
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1).astype(np.float32)


class Table:
    """A dual encoder of pictures "k0", "k1" ... and captions "text 0", "text 1" ..., by their angles.

    A picture is one pixel, whose value is its number.
    """

    name, prompt, max_length, device = "table", "", 5, "cpu"

    def __init__(self, pictures, captions):
        self.pictures, self.captions = at(*pictures), at(*captions)
        self.encoded = []

    def fingerprint_fields(self, side):
        return {"side": side, "pictures": self.pictures.tolist(), "captions": self.captions.tolist()}

    def preprocess(self, images):
        return torch.tensor(np.stack(images)).permute(0, 3, 1, 2).float()

    def encode_image(self, pixels):
        self.encoded += pixels[:, 0, 0, 0].tolist()
        return torch.tensor(self.pictures[pixels[:, 0, 0, 0].long()])

    def encode_text(self, texts):
        self.encoded += texts
        return torch.tensor(self.captions[[int(text.split()[1]) for text in texts]])

    def is_cut(self, texts):
        return [len(text.split()) > self.max_length for text in texts]

    def to(self, device):
        return self


# The case that tests/curation/test_reassignment.py works by hand.
PICTURES, CAPTIONS, SENTENCES = (5, 60, 84), (0, 20, 90), (0, 50, 60)


def records_of(*captions):
    return [
        Record(f"k{i}", captions=[Caption(text, source="human") for text in texts], metadata={"n": i})
        for i, texts in enumerate(captions)
    ]


def pixel(key):
    return np.full((1, 1, 3), int(key[1:]), np.uint8)


def reassigned(records, folder, failures=None, read=pixel, encoders=None, **settings):
    """The step, and for each record that it gives (key, captions)."""
    if encoders is None:
        encoders = (Table(PICTURES, CAPTIONS), Table((), SENTENCES))
    step = ReassignImages(*encoders, num_images=2, num_captions=1, cache_dir=str(folder), **settings)
    step.attach_images(read)
    if failures is not None:
        step.attach_failures(failures.append)
    return step, list(step(lambda: iter(records)))


def pairs(records):
    return {record.key: [caption.text for caption in record.captions] for record in records}


THREE = records_of(["text 0"], ["text 1"], ["text 2"])


def test_the_case_worked_by_hand_through_the_step(tmp_path):
    _, found = reassigned(THREE, tmp_path, keep=1.0)
    assert pairs(found) == {"k0": ["text 0"], "k1": ["text 1"], "k2": ["text 2"]}
    assert found[1].captions[0].score == pytest.approx(np.cos(np.radians(10)), abs=1e-6)
    assert found[1].captions[0].source == "human" and found[1].metadata["n"] == 1
    (row,) = found[1].metadata["reassigned"]
    assert row == {"from": "k1", "similarity": pytest.approx(np.cos(np.radians(40)), abs=1e-6)}
    _, plain = reassigned(THREE, tmp_path, keep=1.0, score="cosine")
    assert pairs(plain) == {"k0": ["text 0", "text 1"], "k2": ["text 2"]}


def same_meaning():
    """Captions 0 and 1 mean the same, so that picture 0 leads back to both; all scores are 1."""
    return Table(PICTURES, CAPTIONS), Table((), (0, 0, 60))


def test_one_picture_may_serve_many_captions_and_one_that_serves_none_is_reported(tmp_path):
    failures = []
    step, found = reassigned(THREE, tmp_path, failures, encoders=same_meaning(), keep=1.0)
    assert pairs(found) == {"k0": ["text 0", "text 1"], "k2": ["text 2"]}
    assert [row["from"] for row in found[0].metadata["reassigned"]] == ["k0", "k1"]
    assert [(f.key, f.reason) for f in failures] == [("k1", "no caption was paired with this picture")]
    counts = {"captions": 3, "kept": 3, "moved": 1, "pictures": 3, "chosen": 2}
    assert {name: count for name, count in step.counts.items() if count} == counts


def test_the_worst_pairs_go_equal_scores_by_the_cosine_of_caption_and_picture(tmp_path):
    step, found = reassigned(THREE, tmp_path, encoders=same_meaning())
    assert pairs(found) == {"k0": ["text 0"], "k2": ["text 2"]}, "2 of 3: caption 1 is 15 degrees away, the others 5, 6"
    assert (step.counts["kept"], step.counts["below_cut"]) == (2, 1)


def test_smallcap_gets_each_pictures_captions_best_pairs_first(tmp_path):
    def written(**settings):
        reassigned(THREE, tmp_path, keep=1.0, smallcap_file=str(tmp_path / "s.json"), **settings)
        return list(json.loads((tmp_path / "s.json").read_text()).items())

    assert written() == [("k0", ["text 0"]), ("k2", ["text 2"]), ("k1", ["text 1"])]
    assert written(encoders=same_meaning()) == [("k0", ["text 0", "text 1"]), ("k2", ["text 2"])]


def test_captions_may_be_kept_at_their_own_pictures(tmp_path):
    step, found = reassigned(THREE, tmp_path, keep=1.0, mapping="one_to_one", encoders=same_meaning())
    assert pairs(found) == {"k0": ["text 0"], "k1": ["text 1"], "k2": ["text 2"]} and step.counts["moved"] == 0
    assert found[1].captions[0].score == pytest.approx(0.5, abs=1e-6), "picture 1 leads to caption 2, 60 degrees away"


@pytest.mark.parametrize(
    ("gone", "others", "own"),
    [
        ("k2", {"k0": ["text 0"], "k1": ["text 1", "text 2"]}, {"k0": ["text 0"], "k1": ["text 1"]}),
        ("k0", {"k1": ["text 0", "text 1"], "k2": ["text 2"]}, {"k1": ["text 1"], "k2": ["text 2"]}),
    ],
)
def test_an_unreadable_picture_is_reported_and_its_caption_goes_to_another(tmp_path, gone, others, own):
    def read(key):
        if key == gone:
            raise BadImage("not a picture")
        return pixel(key)

    failures = []
    step, found = reassigned(THREE, tmp_path, failures, read, keep=1.0)
    assert pairs(found) == others and step.counts["pictures"] == 2
    assert [(f.key, f.reason) for f in failures] == [(gone, "picture: not a picture")]
    step, found = reassigned(THREE, tmp_path, [], read, keep=1.0, mapping="one_to_one")
    assert pairs(found) == own and step.counts["without_picture"] == 1


def test_empty_captions_are_left_out_and_long_ones_counted(tmp_path):
    long = "text 1 " + "word " * 10_000
    records = records_of(["", "text 0"], [long], [" \n", "text 2"], [])
    encoders = (Table((*PICTURES, 170), CAPTIONS), Table((), SENTENCES))
    step, found = reassigned(records, tmp_path, [], encoders=encoders, keep=1.0)
    assert pairs(found) == {"k0": ["text 0"], "k1": [long], "k2": ["text 2"]}
    assert (step.counts["captions"], step.counts["empty"], step.counts["cut"]) == (5, 2, 1)


def crowd(num_records):
    """Captions and pictures at whole degrees: many cosines are equal."""
    draw = np.random.default_rng(0)
    angles = draw.integers(0, 60, (3, num_records))
    records = records_of(*([f"text {i}"] for i in range(num_records)))
    return records, (Table(angles[0].tolist(), angles[1].tolist()), Table((), angles[2].tolist()))


def test_chunks_and_batches_of_any_size_give_the_same(tmp_path):
    records, encoders = crowd(120)
    sizes = [(7, 64), (1000, 64), (7, 5)]
    runs = [
        reassigned(records, tmp_path / str(i), encoders=encoders, chunk_size=chunk, batch_size=batch)
        for i, (chunk, batch) in enumerate(sizes)
    ]
    assert runs[0][1] == runs[1][1] == runs[2][1] and runs[0][0].counts == runs[1][0].counts
    assert len(runs[0][1]) > 10


def test_what_is_cached_is_neither_embedded_again_nor_taken_for_other_settings(tmp_path):
    records, encoders = crowd(40)
    build = lambda folder, **more: ReassignImages(*encoders, cache_dir=str(folder), **more)  # noqa: E731

    def run(step):
        step.attach_images(pixel)
        return list(step(lambda: iter(records)))

    first = run(build(tmp_path / "a"))
    embedded = len(encoders[0].encoded)
    assert run(build(tmp_path / "a")) == first and len(encoders[0].encoded) == embedded
    for more in ({"num_images": 3}, {"num_captions": 1}, {"keep": 0.5}, {"score": "cosine"}, {"mapping": "one_to_one"}):
        if more == {"score": "cosine"}:
            again, fresh = (
                ReassignImages(encoders[0], score="cosine", cache_dir=str(tmp_path / name)) for name in ("a", "b")
            )
        else:
            again, fresh = (build(tmp_path / name, **more) for name in ("a", "b"))
        found = run(again)
        assert found == run(fresh), more
        assert found != first, more


def test_what_the_result_depends_on_is_in_its_fingerprint_and_nothing_else_is(tmp_path):
    encoders = (Table(PICTURES, CAPTIONS), Table((), SENTENCES))
    one = ReassignImages(*encoders).fingerprint_fields()
    assert one == ReassignImages(*encoders, chunk_size=7, batch_size=2, cache_dir="x").fingerprint_fields()
    others = [
        ReassignImages(*encoders, **{name: value}).fingerprint_fields()
        for name, value in (("num_images", 3), ("num_captions", 1), ("keep", 0.5), ("mapping", "one_to_one"))
    ]
    others.append(ReassignImages(Table((1, 2, 3), CAPTIONS), encoders[1]).fingerprint_fields())
    others.append(ReassignImages(encoders[0], Table((), (1, 2, 3))).fingerprint_fields())
    assert all(other != one for other in others)
    json.dumps(one)


@pytest.fixture
def files(tmp_path):
    """The settings of the vectors of THREE as .npy files, of any length."""
    settings = {}
    for name, degrees in (("image", PICTURES), ("caption", CAPTIONS), ("sentence", SENTENCES)):
        path = tmp_path / f"{name}.npy"
        np.save(path, 3 * at(*degrees))
        settings[f"{name}_features_file"] = str(path)
    return settings


def from_files(files, folder, records=THREE, **settings):
    step = ReassignImages(**files, num_images=2, num_captions=1, keep=1.0, cache_dir=str(folder), **settings)
    return list(step(lambda: iter(records)))


def test_vectors_may_come_from_files(files, tmp_path):
    assert pairs(from_files(files, tmp_path)) == pairs(reassigned(THREE, tmp_path, keep=1.0)[1])
    before = ReassignImages(**files).fingerprint_fields()
    np.save(files["sentence_features_file"], at(0, 0, 60))
    assert pairs(from_files(files, tmp_path)) == {"k0": ["text 0", "text 1"], "k2": ["text 2"]}
    assert ReassignImages(**files).fingerprint_fields() != before


def test_rows_of_files_stay_with_their_captions_where_one_is_empty(files, tmp_path):
    records = records_of(["text 0"], ["text 1"], [" ", "text 2"])
    for name, degrees in (("caption", (0, 20, 45, 90)), ("sentence", (0, 50, 45, 60))):
        np.save(files[f"{name}_features_file"], at(*degrees))
    assert pairs(from_files(files, tmp_path, records)) == {"k0": ["text 0"], "k1": ["text 1"], "k2": ["text 2"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("image", at(1, 2), r"expected 3 rows .* one for each of the records in their order, got shape \(2, 2\)"),
        ("sentence", at(1, 2, 3, 4), r"expected 3 rows .* captions in their order, got shape \(4, 2\)"),
        ("caption", np.ones(3, np.float32), r"got shape \(3,\)"),
        ("caption", np.ones((3, 2), np.int64), "of int64"),
        ("image", at(1, 2, 3) * [[1], [0], [1]], "row 1 .* is zero or not finite"),
        ("sentence", at(1, 2, 3) * [[1], [1], [np.nan]], "row 2 .* is zero or not finite"),
        ("image", np.ones((3, 5), np.float32), "got widths 2 and 5"),
        ("image", np.array([None] * 3), "no .npy file of numbers"),
        ("image", b"PK", "no .npy file of numbers"),
    ],
)
def test_files_that_are_no_such_vectors_are_refused(files, tmp_path, name, content, message):
    path = files[f"{name}_features_file"]
    if isinstance(content, bytes):
        (tmp_path / f"{name}.npy").write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(UsageError, match=message):
        from_files(files, tmp_path)


ENCODERS = {"encoder": Table(PICTURES, CAPTIONS), "sentence_encoder": Table((), SENTENCES)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mapping": "one_to_two"}, "no mapping 'one_to_two'.*one_to_one"),
        ({"score": "cylce"}, "no score 'cylce'.*cycle"),
        ({"encoder": None}, "expected encoder or image_features_file and caption_features_file, got neither"),
        ({"sentence_encoder": None}, "expected sentence_encoder or sentence_features_file, got neither"),
        ({"image_features_file": "x.npy"}, "expected image_features_file and caption_features_file of one encoder"),
        ({"sentence_features_file": "x.npy"}, "got both; with files say step.reassign_images.sentence_encoder=null"),
        ({"sentence_encoder": None, "sentence_features_file": "gone.npy"}, "no file 'gone.npy'"),
        ({"keep": 0}, "keep"),
        ({"keep": 1.5}, "keep"),
        ({"num_images": 0}, "num_images"),
        ({"num_captions": 0}, "num_captions"),
        ({"chunk_size": 0}, "chunk_size"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_embedded(change, message):
    with pytest.raises(UsageError, match=message):
        ReassignImages(**(ENCODERS | change))


def test_records_without_captions_or_without_readable_pictures_are_an_error(tmp_path):
    def unreadable(key):
        raise BadImage("gone")

    with pytest.raises(UsageError, match="expected records with captions, got 2 records without any"):
        reassigned(records_of([], [""]), tmp_path)
    with pytest.raises(UsageError, match="expected pictures, got 3 that cannot be read"):
        reassigned(THREE, tmp_path, read=unreadable)
    with pytest.raises(UsageError, match="needs an encoder with fingerprint_fields"):
        reassigned(THREE, tmp_path, encoders=(ENCODERS["encoder"], object()))
    with pytest.raises(UsageError, match="call attach_images"):
        list(ReassignImages(**ENCODERS, cache_dir=str(tmp_path))(lambda: iter(THREE)))


@pytest.fixture
def pool(tmp_path):
    """A folder as SynC has it."""
    root = tmp_path / "pool"
    (root / "images").mkdir(parents=True)
    names = [f"{i}.png" for i in range(3)]
    for i, name in enumerate(names):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(root / "images" / name)
    (root / "meta_images.json").write_text(json.dumps(names))
    captions = {name: f"text {i}" for i, name in enumerate(names)}
    (root / "meta_gt_captions.json").write_text(json.dumps(dict(reversed(captions.items()))))
    return root


def test_the_experiment_reads_and_writes_the_published_files(files, pool, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    step = "step.reassign_images"
    given = [f"{step}.{name}={path}" for name, path in files.items()]
    given += [f"{step}.encoder=null", f"{step}.sentence_encoder=null", f"{step}.num_images=2", f"{step}.num_captions=1"]
    words = ["curate", "experiment=sync", f"data.train.root={pool}", *given, f"{step}.smallcap_file=smallcap.json"]
    assert main([*words, "out=out"]) == 0, capsys.readouterr()
    found = list(read_manifest("out/train.jsonl"))
    assert pairs(found) == {"0.png": ["text 0"], "2.png": ["text 2"]}
    assert [record.image for record in found] == [str(pool / "images" / name) for name in ("0.png", "2.png")]
    assert json.loads((tmp_path / "smallcap.json").read_text()) == pairs(found)
    assert main([*words, "out=shards", "shard=0", "num_shards=2"]) != 0
    assert "looks at all records together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("meta_images.json", '["0.png", "3.png"]', r"1 have none, e.g. '3.png'"),
        ("meta_images.json", "[]", "no pictures in it"),
        ("meta_images.json", '["0.png", "0.png"]', "two records have the key '0.png'"),
        ("meta_images.json", "[0]", "item 0: expected text"),
        ("meta_images.json", '{"0.png": 1}', "a list"),
        ("meta_gt_captions.json", '["text 0"]', "an object"),
        ("meta_gt_captions.json", '{"0.png": "a", "1.png": 3, "2.png": "b"}', "1.png"),
        ("meta_gt_captions.json", '{"0.png": "a", "0.png": "b"}', "stands twice"),
        ("meta_gt_captions.json", "{", "not JSON"),
    ],
)
def test_broken_files_of_a_pool_are_refused_by_name(pool, file, content, message):
    (pool / file).write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        SyntheticPairs(str(pool)).record(0)
    assert file in str(error.value)


def test_captions_of_unlisted_pictures_are_left_out_with_a_warning(pool):
    (pool / "meta_images.json").write_text('["1.png"]')
    with pytest.warns(UserWarning, match="2 captions of pictures that meta_images.json does not list"):
        assert SyntheticPairs(str(pool)).record(0).captions == [Caption("text 1")]


@pytest.mark.parametrize("gone", ["meta_images.json", "meta_gt_captions.json", "images"])
def test_a_pool_that_is_not_whole_is_refused_at_once(pool, gone):
    (pool / gone).rename(pool / "elsewhere")
    with pytest.raises(UsageError, match=gone):
        SyntheticPairs(str(pool))
