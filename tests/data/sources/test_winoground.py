import json

import numpy as np
import pytest
from PIL import Image

from capkit.data.sources.winoground import Winoground
from capkit.errors import UsageError

# Lines of the released form: the captions have the same words.
EXAMPLES = [
    {
        "id": n, "image_0": f"ex_{n}_img_0", "image_1": f"ex_{n}_img_1",
        "caption_0": "an old person kisses a young one",
        "caption_1": "a young person kisses an old one", "tag": "Adjective-Age", "secondary_tag": "",
        "num_main_preds": 1, "collapsed_tag": "Object",
    }
    for n in range(2)
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for n in range(2):
        for side in (0, 1):
            picture = np.full((3, 5, 3), 100 * n + 50 * side, np.uint8)
            Image.fromarray(picture).save(tmp_path / "images" / f"ex_{n}_img_{side}.png")
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, EXAMPLES)) + "\n")
    return tmp_path


def test_each_picture_has_its_caption_and_the_two_of_an_example_share_a_bag(folder):
    source = Winoground(str(folder))
    records = [source.record(index) for index in range(len(source))]
    assert [record.key for record in records] == ["ex_0_img_0", "ex_0_img_1", "ex_1_img_0", "ex_1_img_1"]
    assert [record.captions[0].text for record in records[:2]] == [EXAMPLES[0]["caption_0"], EXAMPLES[0]["caption_1"]]
    assert [record.bag for record in records] == ["0", "0", "1", "1"]
    assert records[0].metadata == {"kind": "Object"}
    assert [int(source.image(index).mean()) for index in range(4)] == [0, 50, 100, 150]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_1": "ex_0_img_0"}, "ex_0_img_0"),  # both sides one picture
        ({"caption_1": None}, "caption_1"),
        ({"image_0": "\0"}, "no file can be named"),
    ],
)
def test_lines_of_another_form_are_refused(folder, change, message):
    (folder / "examples.jsonl").write_text(json.dumps(EXAMPLES[0] | change))
    with pytest.raises(UsageError, match=message):
        Winoground(str(folder))
