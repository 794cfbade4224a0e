import json

import pytest
from omegaconf import OmegaConf

from capkit.errors import UsageError
from capkit.metrics import bleu, cider, rouge_l
from capkit.tasks.score import run

CAPTIONS = {"1": "A cat sits on a mat.", "2": "Two dogs.", "3": ""}
REFERENCES = {"1": ["a cat on the mat", "The cat sits."], "2": ["two dogs run", "dogs"], "3": ["a red bus"]}


def coco_results(captions):
    return [{"image_id": int(image), "caption": caption} for image, caption in captions.items()]


def coco_annotations(references):
    rows = [{"image_id": int(image), "caption": c} for image, captions in references.items() for c in captions]
    return {"images": [{"id": int(image)} for image in references], "annotations": rows}


@pytest.fixture
def config(tmp_path):
    def make(predictions, references, **values):
        for name, content in (("predictions", predictions), ("references", references)):
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / name).write_text(text, encoding="utf-8")
        defaults = {
            "predictions": str(tmp_path / "predictions"),
            "references": str(tmp_path / "references"),
            "out": None,
            "metrics": ["bleu", "rouge", "cider"],
            "language": "en",
            "missing": "error",
        }
        return OmegaConf.create(defaults | values)

    return make


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    "predictions",
    [
        coco_results(CAPTIONS),
        CAPTIONS,
        {image: [caption] for image, caption in CAPTIONS.items()},
        jsonl({"image": image, "caption": caption} for image, caption in CAPTIONS.items()),
    ],
    ids=["COCO results", "by id", "lists by id", "JSON lines"],
)
@pytest.mark.parametrize(
    "references",
    [
        coco_annotations(REFERENCES),
        REFERENCES,
        jsonl({"key": image, "captions": [{"text": c} for c in captions]} for image, captions in REFERENCES.items()),
    ],
    ids=["COCO annotations", "by id", "manifest"],
)
def test_every_format_gives_the_numbers_of_the_functions(config, predictions, references):
    numbers = run(config(predictions, references))
    captions, targets = list(CAPTIONS.values()), list(REFERENCES.values())
    expected = {f"bleu_{n}": value for n, value in enumerate(bleu(captions, targets), 1)}
    expected |= {"rouge_l": rouge_l(captions, targets), "cider": cider(captions, targets)}
    assert numbers == pytest.approx(expected, abs=1e-12)


def test_numbers_and_those_of_each_image_are_written(config, tmp_path, capsys):
    numbers = run(config(coco_results(CAPTIONS), coco_annotations(REFERENCES), out=str(tmp_path / "new" / "out.json")))
    assert json.loads((tmp_path / "new" / "out.json").read_text()) == {**numbers, "images": 3}
    rows = [json.loads(line) for line in (tmp_path / "new" / "out.images.jsonl").read_text().splitlines()]
    assert [row["image_id"] for row in rows] == ["1", "2", "3"]
    assert (rows[0]["caption"], rows[0]["references"]) == (CAPTIONS["1"], REFERENCES["1"])
    assert sum(row["cider"] for row in rows) / 3 == pytest.approx(numbers["cider"])
    assert sum(row["rouge_l"] for row in rows) / 3 == pytest.approx(numbers["rouge_l"])
    shown = capsys.readouterr().out
    assert "3 images" in shown and f"{numbers['cider']:.6f}" in shown


def test_metrics_are_chosen_by_name(config):
    assert set(run(config(CAPTIONS, REFERENCES, metrics=["cider"]))) == {"cider"}


def test_other_languages_keep_their_accents(config):
    references = {"1": ["Um pão."], "2": ["Uma maçã."]}
    numbers = run(config({"1": "um PÃO", "2": "uma maca"}, references, language="pt", metrics=["rouge"]))
    assert numbers["rouge_l"] == pytest.approx((1 + 0.5) / 2)


def test_predicted_images_alone_are_scored_when_asked(config):
    few = {image: CAPTIONS[image] for image in ("1", "2")}
    numbers = run(config(few, REFERENCES, missing="ignore"))
    assert numbers["cider"] == pytest.approx(cider(list(few.values()), [REFERENCES["1"], REFERENCES["2"]]))


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ({"1": "a"}, REFERENCES, r"2 of 3 have none: 2, 3; .*missing=ignore"),
        (CAPTIONS | {"9": "a"}, REFERENCES, "every predicted image wants references; 1 of 4 have none: 9"),
        (coco_results(CAPTIONS) + coco_results({"2": "again"}), REFERENCES, "1 came twice: 2"),
        ({"1": ["a", "b"]}, REFERENCES, "one prediction per image is wanted; 1 came twice: 1"),
        ("", REFERENCES, "predictions: not JSON"),
        ("[]", REFERENCES, "predictions: no captions in it"),
        (CAPTIONS, {"images": [], "annotations": []}, "references: no captions in it"),
        ('{"image": 1, "caption": "a"}\n{"image": 2,\n', REFERENCES, "predictions line 2: not JSON"),
        ([{"caption": "a"}], REFERENCES, "entry 1: no 'image_id' or"),
        ([{"image_id": 1}], REFERENCES, "entry 1: no 'caption' or"),
        ([{"image_id": 1, "caption": None}], REFERENCES, "a caption is text; got None"),
        ([{"image_id": 1.5, "caption": "a"}], REFERENCES, "an image id is text or a whole number; got 1.5"),
    ],
)
def test_files_that_do_not_fit_are_a_usage_error(config, predictions, references, message):
    with pytest.raises(UsageError, match=message):
        run(config(predictions, references))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metrics": ["cidr"]}, "metrics has no 'cidr'; did you mean 'cider'"),
        ({"metrics": []}, "metrics wants at least one of bleu"),
        ({"missing": "maybe"}, "missing wants error or ignore; got 'maybe'"),
        ({"metrics": ["meteor"], "language": "pt"}, "meteor know English only; got language=pt"),
    ],
)
def test_wrong_values_are_a_usage_error(config, values, message):
    with pytest.raises(UsageError, match=message):
        run(config(CAPTIONS, REFERENCES, **values))


def test_a_missing_file_is_a_usage_error(config, tmp_path):
    settings = config(CAPTIONS, REFERENCES)
    (tmp_path / "references").unlink()
    with pytest.raises(UsageError, match=r"no file .*references'; give the path"):
        run(settings)


@pytest.mark.java
def test_meteor_is_scored_on_the_same_tokens(config):
    assert 0.2 < run(config(CAPTIONS, REFERENCES, metrics=["meteor"]))["meteor"] < 1
