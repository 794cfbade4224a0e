import json
import subprocess
import sys

import numpy as np
import pytest

from capkit.data.fingerprint import fingerprint
from capkit.data.sources.base import DataSource, Preparable
from capkit.errors import UsageError
from capkit.sceneworld.language.generic import generic_captions
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.sources.generic_captions import GenericCaptions
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import Scene


def scenes(folder, count=20):
    return SceneWorld("val", count, size=32, style="short", cache_dir=str(folder))


def texts(source):
    return [[caption.text for caption in source.record(i).captions] for i in range(len(source))]


def test_pictures_keys_and_scenes_stay_and_captions_are_generic(tmp_path):
    inner = scenes(tmp_path)
    source = GenericCaptions(inner, dropped=0.6, confused=0.2, seed=3, background=0.1, added=0.4)
    assert isinstance(source, DataSource) and isinstance(source, Preparable) and len(source) == 20
    for index in range(20):
        record, scene = source.record(index), Scene.from_dict(inner.record(index).metadata["scene"])
        assert record.key == inner.record(index).key and record.metadata["scene"] == scene.to_dict()
        assert [caption.text for caption in record.captions] == generic_captions(scene, 0.6, 0.2, 3, 0.1, 0.4)
        np.testing.assert_array_equal(source.image(index), inner.image(index))


def test_recall_is_the_share_of_shapes_and_colors_that_a_caption_gives(tmp_path):
    def recall(source, index):
        record = source.record(index)
        scene, stated = Scene.from_dict(record.metadata["scene"]), record.metadata["stated_facts"]
        return score_caption(scene, record.captions[0].text, stated).recall

    inner = scenes(tmp_path)
    assert {recall(GenericCaptions(inner, dropped=0.0), i) for i in range(20)} == {1.0}
    assert {recall(GenericCaptions(inner, dropped=1.0), i) for i in range(20)} == {0.5}


def test_where_backgrounds_are_ever_said_they_are_among_the_facts_that_count(tmp_path):
    stated = [GenericCaptions(scenes(tmp_path), background=share).record(0).metadata for share in (0.0, 0.1)]
    facts = [set(metadata["stated_facts"]) for metadata in stated]
    assert facts[1] - facts[0] == {f"background={stated[0]['scene']['background']}"} and facts[0] < facts[1]


def test_the_fingerprint_follows_every_argument_and_reads_no_scene(tmp_path, monkeypatch):
    changes = [{}, {"dropped": 0.1}, {"confused": 0.1}, {"seed": 1}, {"background": 0.1}, {"added": 0.1}]
    sources = [GenericCaptions(scenes(tmp_path), **change) for change in changes]
    sources.append(GenericCaptions(scenes(tmp_path, count=21)))
    monkeypatch.setattr(SceneWorld, "record", None)
    found = [fingerprint(source) for source in sources]
    assert len(set(found)) == len(sources)
    assert fingerprint(GenericCaptions(scenes(tmp_path), dropped=0.1)) == found[1]


@pytest.mark.integration
def test_another_process_writes_the_same_captions(tmp_path):
    source = GenericCaptions(scenes(tmp_path), dropped=0.5, confused=0.5)
    source.prepare()
    code = (
        "import json; from capkit.sceneworld.sources.generic_captions import GenericCaptions as G; "
        "from capkit.sceneworld.sources.scenes import SceneWorld as S; "
        f"s = G(S('val', 20, size=32, style='short', cache_dir={str(tmp_path)!r}), 0.5, 0.5); "
        "print(json.dumps([[c.text for c in s.record(i).captions] for i in reversed(range(20))]))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed)[::-1] == texts(source)


@pytest.mark.parametrize("name", ["dropped", "confused", "background", "added"])
def test_a_share_that_cannot_be_is_refused(name, tmp_path):
    with pytest.raises(UsageError, match=f"{name}: expected a finite number from 0 to 1"):
        GenericCaptions(scenes(tmp_path), **{name: 1.2})
