import json

import numpy as np
import pytest
from PIL import Image

from capkit.data.sources.imagecode import ImageCodeSets
from capkit.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    for name in ("b", "a", "unnamed"):
        (tmp_path / name).mkdir()
        for place in range(2):
            Image.fromarray(np.full((3, 5, 3), 40 * place, np.uint8)).save(tmp_path / name / f"img{place}.jpg")
    (tmp_path / "valid_data.json").write_text(json.dumps({"b": {"1": "the dark one"}, "a": {"0": "a text"}}))
    return tmp_path


def test_all_pictures_of_the_sets_that_the_file_names_have_a_record_and_no_caption(folder):
    source = ImageCodeSets(str(folder), str(folder / "valid_data.json"), set_size=2)
    records = [source.record(index) for index in range(len(source))]
    assert [record.key for record in records] == ["a/img0", "a/img1", "b/img0", "b/img1"]
    assert all(record.captions == [] for record in records)
    assert source.image(3).shape == (3, 5, 3) and source.image(3).mean() == pytest.approx(40, abs=1)


@pytest.mark.parametrize("content", ["[]", "{}", "no json", '["a"]'])
def test_other_files_are_refused(folder, content):
    (folder / "valid_data.json").write_text(content)
    with pytest.raises(UsageError, match="must be ImageCoDe's JSON"):
        ImageCodeSets(str(folder), str(folder / "valid_data.json"))


def test_what_is_not_there_is_told(folder):
    with pytest.raises(UsageError, match="no file"):
        ImageCodeSets(str(folder), str(folder / "absent.json"))
    with pytest.raises(UsageError, match="no folder"):
        ImageCodeSets(str(folder / "absent"), str(folder / "valid_data.json"))
    with pytest.raises(UsageError, match="set_size: expected an integer of at least 2"):
        ImageCodeSets(str(folder), str(folder / "valid_data.json"), set_size=1)
