"""A checkpoint's place in the data is a place in these records: others are refused, moved pictures are not."""

import copy
import json
import shutil

import pytest
from PIL import Image
from record_source import Records

from capkit.data.datamodule import CaptionDataModule
from capkit.data.fingerprint import fingerprint
from capkit.data.records import Caption, Record, Region
from capkit.data.sources.karpathy import Karpathy
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import WorldOptions


def records():
    return [
        Record(f"k{i}", f"a/{i}.png", [Caption(f"a ball {i}"), Caption("a star")], metadata={"label": i % 2})
        for i in range(6)
    ]


def data(changed=None):
    found = records()
    if changed is not None:
        changed(found)
    return CaptionDataModule(train=Records(found), transform=ImageTransform(8), batch_size=2)


def a_word(found):
    found[3].captions[0] = Caption("a bell 3")


def a_score(found):
    found[3].captions[0] = Caption("a ball 3", score=0.5)


def order_of_captions(found):
    found[3].captions.reverse()


def captions_run_together(found):
    found[3].captions[:] = [Caption("a ball 3a star"), Caption("")]


def captions_move_on(found):
    found[3].captions[1:], found[4].captions[:0] = [], [Caption("a star")]


def a_key(found):
    found[0].key = "other"


def order(found):
    found[0], found[1] = found[1], found[0]


def one_more(found):
    found.append(Record("new"))


def one_less(found):
    found.pop()


def a_label(found):
    found[5].metadata = {"label": 0}


def a_bag(found):
    found[5].bag = "x"


def a_region(found):
    found[5].regions.append(Region((0.0, 0.0, 1.0, 1.0), "x"))


@pytest.mark.parametrize(
    "changed",
    [a_word, a_score, order_of_captions, captions_run_together, captions_move_on, a_key, order, one_more, one_less,
     a_label, a_bag, a_region],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_other_records_are_refused_with_what_to_do(changed):
    saved = json.loads(json.dumps(data().state_dict()))
    with pytest.raises(UsageError, match=r"6 records, got others, \d records; .*another run_dir \(with init_from=RUN"):
        data(changed).load_state_dict(saved)


def test_the_same_records_elsewhere_and_a_checkpoint_from_before_are_taken():
    def moved(found):
        for record in found:
            record.image = f"/another/disk/{record.image}"

    saved = data().state_dict()
    data(moved).load_state_dict(copy.deepcopy(saved))
    del saved["data"]
    data(a_word).load_state_dict(saved)


def test_captions_without_scores_have_the_hash_of_a_version_without_scores():
    """Checkpoints of that version are resumed: xxh3_128 of each record's row, worked out with 0.4."""
    assert fingerprint(Records(records())) == "32ae930218cb715b2e3fb3cd4e62b815"


def test_a_folder_that_was_moved_has_the_same_fingerprint_and_an_edited_caption_another(tmp_path):
    images = [{"filename": f"{i}.png", "split": "train", "sentences": [{"raw": f"a ball {i}"}]} for i in range(3)]
    first = tmp_path / "here"
    (first / "images").mkdir(parents=True)
    for image in images:
        Image.new("RGB", (8, 8)).save(first / "images" / image["filename"])
    (first / "a.json").write_text(json.dumps({"images": images}))
    before = fingerprint(Karpathy(captions=str(first / "a.json"), images=str(first / "images"), split="train"))
    shutil.move(first, tmp_path / "there")
    second = tmp_path / "there"
    assert (
        fingerprint(Karpathy(captions=str(second / "a.json"), images=str(second / "images"), split="train")) == before
    )
    images[1]["sentences"][0]["raw"] = "a bell 1"
    (second / "a.json").write_text(json.dumps({"images": images}))
    assert (
        fingerprint(Karpathy(captions=str(second / "a.json"), images=str(second / "images"), split="train")) != before
    )


def test_sceneworlds_is_that_of_its_parameters_and_makes_no_scene(tmp_path):
    def world(**changed):
        return SceneWorld(**{"split": "train", "count": 8, "cache_dir": str(tmp_path / "none"), **changed})

    same = {fingerprint(world()), fingerprint(world(num_workers=2)), fingerprint(world(cache_dir=str(tmp_path / "x")))}
    assert len(same) == 1 and not list(tmp_path.iterdir())
    others = [{"count": 9}, {"seed": 1}, {"size": 32}, {"style": "short"}, {"split": "val"}]
    found = {fingerprint(world(**other)) for other in (*others, {"options": WorldOptions(max_objects=1)})}
    assert len(found) == 6 and not found & same
