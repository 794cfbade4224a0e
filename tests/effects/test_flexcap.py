"""FlexCap on SceneWorld (Dwibedi et al. 2024): captions of boxes have as many words as are asked for.

A captioner of regions learns on the frozen encoder of a captioner of whole pictures (tests/effects/starts). Texts of
regions come from the world: each object is named in one to six words. The numbers stand in docs/flexcap.md.
"""

import json
import re

import pytest

from capkit.sceneworld.language.facts import PLACES

pytestmark = pytest.mark.effect

NUM_SCENES = 20
LENGTHS = (1, 2, 3, 4, 5, 6)
ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
TRAINING = ["max_steps=200", "val_every=200", "controls=0", "eval_limit=4", "data.val.count=4", "data.train.count=1000"]
# A whole text of a region, whatever it names. One that was cut off in the middle ("large red") is none.
SHAPES, COLORS = "circle|triangle|cross", "red|green|blue|yellow"
TEXT = re.compile(
    rf"(?:(?:(?:a )?large )?(?:{COLORS}) )?(?:{SHAPES})(?: (?:at |in the )?(?:{'|'.join(PLACES)}))?"
    r"|the (?:colour|size|shape) is [a-z]+"
)


@pytest.fixture(scope="session")
def captioned(run_once, start, seed):
    """(Caption, words of the region's text) of each region, by a captioner that is asked by these words."""
    ckpt = f"model.image_encoder.ckpt={start('bags_start', 0)}"
    words = ["experiment=flexcap_sceneworld", ckpt, *TRAINING, *ONE_CORE, "metric=[]", f"seed={seed}"]
    trained = run_once(f"flexcap_{seed}", words)

    def of(*asked):
        regions = [f"data.test.count={NUM_SCENES}", "data.train.regions.statements=false"]
        words = ["evaluate", f"ckpt={trained}", *regions, *ONE_CORE, "metric=[]", *asked]
        folder = run_once(f"flexcap_asked_{seed}", words) / "predictions"
        references = json.loads((folder / "test_references.json").read_text())["annotations"]
        texts = {row["image_id"]: row["caption"] for row in references}
        rows = json.loads((folder / "test.json").read_text())
        return [(row["caption"], len(texts[row["image_id"]].split())) for row in rows]

    return of


def exact(pairs):
    """The share of captions that are whole texts of the number of words asked for, by that number."""
    shares = {}
    for count in LENGTHS:
        found = [text for text, asked in pairs if asked == count]
        assert len(found) == 2 * NUM_SCENES
        shares[count] = sum(len(t.split()) == count and bool(TEXT.fullmatch(t)) for t in found) / len(found)
    return shares


def test_captions_have_the_number_of_words_asked_for(captioned, measured):
    """The control is not told the length, and cut off at that many tokens, which are words here."""
    what = "whole captions of the length asked for, worst of 1 to 6"
    shares = exact(captioned("conditions.box=data", "conditions.length=data"))
    assert measured(what, min(shares.values()), ">=", 0.9)
    untold = captioned("conditions.box=data")
    cut = exact([(" ".join(text.split()[:count]), count) for text, count in untold])
    assert not measured(what, min(cut.values()), ">=", 0.9, "max_length alone")
    assert measured("whole captions of the length of max_length alone", sum(cut.values()) / len(cut), "<=", 0.4)
