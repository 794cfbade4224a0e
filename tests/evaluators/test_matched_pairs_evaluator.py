"""Winoground's three scores by an evaluator, from pictures that name their row in a table of embeddings."""

import json

import numpy as np
import pytest
from PIL import Image

from capkit.data.records import Caption, Record
from capkit.data.sources.mmvp import MMVP
from capkit.errors import UsageError
from capkit.evaluators.matched_pairs import MatchedPairs

# Two pairs of pictures on one axis each; the words of a pair are near (b's captions only by their image side).
IMAGES = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0.4], [0, 0, 0.9, 1.0]]
TEXTS = {
    "x y": [1.0, 0.2, 0, 0],
    "y x": [0.2, 1.0, 0, 0],
    # image 2: cosines .93 and .83 up to norms; image 3: .67 and .78: captions are right for each image, but "p q" ...
    "p q": [0, 0, 1.0, 0.3],
    "q p": [0, 0, 1.0, 0.9],
}


class Paired:
    def __init__(self, listed, rows, unreadable=()):
        self._source, self._rows = listed([(key, [], {}) for key, *_ in rows], unreadable), rows

    def __len__(self):
        return len(self._rows)

    def record(self, index):
        key, bag, captions, kind = self._rows[index]
        return Record(key, captions=[Caption(text) for text in captions], bag=bag, metadata={"kind": kind})

    def image(self, index):
        return self._source.image(index)


ROWS = [
    ("a0", "a", ["x y"], "Object"),
    ("a1", "a", ["y x"], "Object"),
    ("b0", "b", ["p q"], "Both ends"),
    ("b1", "b", ["q p"], "Both ends"),
]


@pytest.fixture
def scored(table, listed, data_of, tmp_path):
    def of(rows=ROWS, texts=TEXTS, unreadable=(), max_skipped=0, **options):
        data = data_of(test=Paired(listed, rows, unreadable), max_skipped=max_skipped)
        return MatchedPairs(**options)(table(IMAGES, texts), data, tmp_path)

    return of


def test_the_three_scores_of_each_kind(scored, tmp_path, rows_in):
    crossed = TEXTS | {"y x": [1.0, 0.9, 0, 0]}  # "y x" is nearer to image a0, which still has "x y" first
    numbers = scored(texts=crossed)
    # a: image a0 .98 of "x y", .74 of "y x"; image a1 .20 and .67: text right; caption "y x": .74 > .67, image wrong
    assert (numbers["matched_pairs_object_text"], numbers["matched_pairs_object_image"]) == (1, 0)
    assert numbers["matched_pairs_both_ends_group"] == 1
    assert numbers["matched_pairs_text"] == 1
    assert numbers["matched_pairs_image"] == numbers["matched_pairs_group"] == 0.5
    assert numbers["matched_pairs_pairs"] == 2
    first = rows_in(tmp_path / "matched_pairs.jsonl")[0]
    assert (first["keys"], first["captions"], first["kind"]) == (["a0", "a1"], ["x y", "y x"], "Object")
    assert first["similarity"][0] == pytest.approx([1 / 1.04**0.5, 1 / 1.81**0.5])  # image a0: both captions
    assert (first["text"], first["image"], first["group"]) == (True, False, False)


def test_captions_of_the_other_picture_score_nothing(scored):
    swapped = [(key, bag, ROWS[place ^ 1][2], kind) for place, (key, bag, _, kind) in enumerate(ROWS)]
    numbers = scored(rows=swapped)
    assert [numbers[f"matched_pairs_{name}"] for name in ("text", "image", "group")] == [0, 0, 0]


def test_an_encoder_that_reads_words_and_not_their_order_scores_nothing(scored):
    bag_of_words = {"x y": [1.0, 1, 0, 0], "y x": [1.0, 1, 0, 0], "p q": [0, 0, 1, 1.0], "q p": [0, 0, 1, 1.0]}
    numbers = scored(texts=bag_of_words)
    assert [numbers[f"matched_pairs_{name}"] for name in ("text", "image", "group")] == [0, 0, 0]


def test_the_template_is_what_the_encoder_reads(scored):
    texts = {f"a photo of {text}": row for text, row in TEXTS.items()}
    assert scored(texts=texts, template="a photo of {}")["matched_pairs_group"] == 1
    with pytest.raises(UsageError, match="template"):
        MatchedPairs(template="a photo of")


def test_a_pair_with_a_picture_that_cannot_be_read_is_left_out(scored):
    numbers = scored(unreadable=[1], max_skipped=1)
    assert numbers["matched_pairs_pairs"] == 1 and numbers["matched_pairs_skipped"] == 1
    assert "matched_pairs_object_text" not in numbers


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("b1", "a", ["q p"], ""), "3 with bag='a'"),
        (("b1", None, ["q p"], ""), "1 with bag=None"),
        (("b1", "c", ["q p"], ""), "1 with bag='b'"),
        (("b1", "b", ["q p", "p q"], ""), "expected one caption"),
    ],
)
def test_what_is_no_pair_is_refused(scored, row, message):
    with pytest.raises(UsageError, match=message):
        scored(rows=[*ROWS[:3], row])


def test_mmvp_as_released(table, data_of, tmp_path):
    """Statements of both pictures of a pair must find theirs: the image score. Pictures are PNG data of one colour."""
    kinds = ["Texts", "Texts", "Color and Appearance", "Color and Appearance"]
    lines = ["Question ID,Type,Statement"]
    for number, (kind, text) in enumerate(zip(kinds, TEXTS, strict=True), 1):
        place = tmp_path / "MLLM_VLM Images" / kind
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number - 1, np.uint8)).save(place / f"{number}.jpg", format="PNG")
        lines.append(f"{number},{kind},{text}")
    (tmp_path / "Questions.csv").write_text("\n".join(lines))
    source = MMVP(str(tmp_path))
    texts = {f"a photo of {text}": row for text, row in TEXTS.items()} | {"a photo of q p": TEXTS["p q"]}
    evaluator = MatchedPairs(source=source, template="a photo of {}", name="mmvp")
    numbers = evaluator(table(IMAGES, texts), data_of(test=source), tmp_path / "out")
    assert numbers["mmvp_image"] == 0.5 and numbers["mmvp_texts_image"] == 1
    assert numbers["mmvp_color_and_appearance_image"] == 0
    quoted = json.loads((tmp_path / "out" / "mmvp.json").read_text())["provenance"]
    assert quoted["template"] == "a photo of {}"
