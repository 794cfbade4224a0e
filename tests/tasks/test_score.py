import json

import pytest
from omegaconf import OmegaConf

from capkit.data.prediction_files import read_captions
from capkit.errors import UsageError
from capkit.metrics import bleu, cider, rouge_l
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.tasks.score import run
from capkit.text.ptb import foreign

CAPTIONS = {"1": "A cat sits on a mat.", "2": "Two dogs.", "3": ""}
REFERENCES = {"1": ["a cat on the mat", "The cat sits."], "2": ["two dogs run", "dogs"], "3": ["a red bus"]}


def coco_results(captions):
    return [{"image_id": int(image), "caption": caption} for image, caption in captions.items()]


def coco_annotations(references):
    rows = [{"image_id": int(image), "caption": c} for image, captions in references.items() for c in captions]
    return {"images": [{"id": int(image)} for image in references], "annotations": rows}


def with_files(references):
    """COCO's annotations, whose images are named as its files are."""
    annotations = coco_annotations(references)
    for image in annotations["images"]:
        image["file_name"] = f"COCO_val2014_{image['id']:012}.jpg"
    return annotations


def karpathy(references, split="test"):
    def image(number, captions):
        sentences = [{"raw": caption, "tokens": caption.lower().split()} for caption in captions]
        place = {"filepath": "val2014", "filename": f"COCO_val2014_{number:012}.jpg"}
        return {"cocoid": number, "imgid": 100 - number, "split": split, "sentences": sentences, **place}

    return {"images": [image(int(number), captions) for number, captions in references.items()], "dataset": "coco"}


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
            "document_frequencies": None,
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
        {image: [{"image_id": int(image), "caption": caption}] for image, caption in CAPTIONS.items()},
        jsonl({"image": image, "caption": caption} for image, caption in CAPTIONS.items()),
        "\ufeff" + json.dumps(coco_results(CAPTIONS)),
        [{"image_id": image.zfill(12), "caption": caption} for image, caption in CAPTIONS.items()],
    ],
    ids=["COCO results", "by id", "lists by id", "pycocoevalcap's", "JSON lines", "byte order mark", "padded ids"],
)
@pytest.mark.parametrize(
    "references",
    [
        coco_annotations(REFERENCES),
        REFERENCES,
        jsonl({"key": image, "captions": [{"text": c} for c in captions]} for image, captions in REFERENCES.items()),
        {"annotations": coco_annotations(REFERENCES)["annotations"]},
        {
            "annotations": [
                {**row, "image_id": str(row["image_id"])} for row in coco_annotations(REFERENCES)["annotations"]
            ]
        },
        karpathy(REFERENCES),
    ],
    ids=["COCO annotations", "by id", "manifest", "annotations alone", "ids as text", "Karpathy"],
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
        (
            CAPTIONS | {"9": "a"},
            REFERENCES,
            "images that have references, got 1 of 4 that have none: 9; .*knows 1, 2, 3",
        ),
        (
            coco_results(CAPTIONS) + coco_results({"2": "again"}),
            REFERENCES,
            r"one caption per image, got several of 1 images: 2 \('Two dogs.', 'again'\); keep one each",
        ),
        ([*coco_results(CAPTIONS), {"image_id": "002", "caption": "again"}], REFERENCES, r"2 \('Two dogs.', 'again'\)"),
        ({"1": ["a cat", "a dog"]}, REFERENCES, r"one caption per image, .*: 1 \('a cat', 'a dog'\)"),
        ('{"1": "a cat", "2": "a dog", "1": "a bus"}', REFERENCES, "predictions: the key '1' stands twice"),
        (
            CAPTIONS,
            '{"1": ["a cat"], "2": ["a dog"], "3": ["a"], "1": ["a bus"]}',
            "references: the key '1' stands twice",
        ),
        (
            {"results": coco_results(CAPTIONS)},
            REFERENCES,
            "image 'results': .*got an entry of image 1; .*give that list alone",
        ),
        (
            [coco_results(CAPTIONS)],
            REFERENCES,
            "predictions entry 1: expected an object, got a list .*; make one flat list",
        ),
        (
            CAPTIONS,
            {"images": [{"id": 1, "file_name": "a.jpg"}], "info": {}},
            "references: no 'annotations' in it, only images, info",
        ),
        (CAPTIONS, {"info": {"year": 2014}}, "references: no 'annotations' in it, only info"),
        (CAPTIONS, {"annotations": None, "images": []}, "references: expected a list as 'annotations', got null"),
        (
            CAPTIONS,
            coco_annotations(REFERENCES) | {"images": [{"id": 1}, {"id": 3}]},
            "1 images that 'images' does not list: 2;",
        ),
        (
            CAPTIONS,
            coco_annotations(REFERENCES) | {"images": [{"id": 1}, {"id": 1}]},
            "image 2: two images have the id 1",
        ),
        (CAPTIONS, {"images": karpathy(REFERENCES)["images"] * 2}, "image 4: two images have the id '1'"),
        (
            CAPTIONS,
            {"1": ["a"], "2": [], "3": ["a"]},
            "references: expected a caption or more of each image, got none of 1: 2",
        ),
        ({"1": ["a", "cat", "sits"]}, REFERENCES, "predictions, image '1': expected captions, got the words of one"),
        ('[{"image_id": 1, "caption": NaN}]', REFERENCES, "predictions entry 1: .* a caption as text, .*got nan"),
        ('[{"image_id": 1, "caption": ["a", ["b"]]}]', REFERENCES, "predictions entry 1: .* a caption as text"),
        ('[{"image_id": "a\\ud83d", "caption": "a"}]', REFERENCES, "entry 1: 'image_id' holds half a character"),
        ("[" * 100_000, REFERENCES, "predictions: lists or objects are nested too deep"),
        (
            '[{"image_id": 1' + "0" * 5_000 + ', "caption": "a"}]',
            REFERENCES,
            "predictions: a whole number of more than 4,300",
        ),
        ("7", REFERENCES, "predictions: expected a list .*got 7"),
        (
            {"a.jpg": "a"},
            REFERENCES,
            "1 of 1 that have none: a.jpg; .*references knows 1, 2, 3; .*'images' hold id and file",
        ),
        ("", REFERENCES, r"predictions: not JSON \(it is empty\)"),
        ("[]", REFERENCES, "predictions: no captions in it"),
        (CAPTIONS, {"images": [], "annotations": []}, "references: no captions in it"),
        ('{"image": 1, "caption": "a"}\n{"image": 2,\n', REFERENCES, "predictions line 2: not JSON"),
        ([{"caption": "a"}], REFERENCES, "entry 1: no 'image_id' or"),
        ([{"image_id": 1}], REFERENCES, "entry 1: no 'caption' or"),
        ([{"image_id": 1, "caption": None}], REFERENCES, "entry 1: .* a caption as text, .*got null"),
        ([{"image_id": 1.5, "caption": "a"}], REFERENCES, "entry 1: expected text or a whole number .*got 1.5"),
        ([{"image_id": True, "caption": "a"}], REFERENCES, "entry 1: expected text or a whole number .*got true"),
    ],
)
def test_files_that_do_not_fit_are_a_usage_error(config, predictions, references, message):
    with pytest.raises(UsageError, match=message):
        run(config(predictions, references))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metrics": ["cidr"]}, "metrics has no 'cidr'; did you mean 'cider'"),
        ({"metrics": []}, "metrics: expected at least one of bleu"),
        ({"language": None}, "language must be a code .*got None"),
        ({"document_frequencies": "none.safetensors"}, "no file 'none.safetensors'"),
        ({"missing": "maybe"}, "expected missing to be error or ignore; got 'maybe'"),
        ({"metrics": ["meteor"], "language": "de"}, r"METEOR: expected a language of .*\bpt\b.*got 'de'"),
        ({"metrics": ["spice"], "language": "pt"}, "spice supports English only; got language=pt"),
    ],
)
def test_wrong_values_are_a_usage_error(config, values, message):
    with pytest.raises(UsageError, match=message):
        run(config(CAPTIONS, REFERENCES, **values))


def test_a_missing_file_is_a_usage_error(config, tmp_path):
    settings = config(CAPTIONS, REFERENCES)
    (tmp_path / "references").unlink()
    with pytest.raises(UsageError, match=r"references: no file .*references' .*; give the path"):
        run(settings)


def names(captions, pattern):
    return jsonl({"image": pattern.format(int(image)), "caption": caption} for image, caption in captions.items())


@pytest.mark.parametrize("references", [with_files(REFERENCES), karpathy(REFERENCES)], ids=["COCO", "Karpathy"])
@pytest.mark.parametrize(
    "pattern",
    [
        "COCO_val2014_{:012}.jpg",
        "val2014/COCO_val2014_{:012}.jpg",
        "my/pictures/COCO_val2014_{:012}.jpg",
        "COCO_val2014_{:012}",
        "{:012}",
    ],
)
def test_file_names_meet_ids_through_the_images_of_the_references(config, references, pattern):
    assert run(config(names(CAPTIONS, pattern), references)) == run(config(CAPTIONS, REFERENCES))


def test_karpathy_pictures_of_one_name_in_two_folders_are_told_apart(config):
    images = [
        {"filepath": folder, "filename": "x.jpg", "split": "test", "sentences": [{"raw": text}]}
        for folder, text in (("north", "a red plate lies here"), ("south", "a dog runs on a beach"))
    ]
    predictions = jsonl(
        {"image": key, "caption": text} for key, text in (("north/x", "a red plate"), ("south/x.jpg", "a dog runs"))
    )
    assert run(config(predictions, {"images": images})) == run(
        config(predictions, {"north/x": ["a red plate lies here"], "south/x": ["a dog runs on a beach"]})
    )


def test_chats_are_references_as_training_reads_them(tmp_path):
    asked = {"from": "human", "value": "<image>Say."}
    chats = [
        {"image": f"{name}.jpg", "conversations": [asked, {"from": "gpt", "value": text}]}
        for name, text in (("a", "a red plate"), ("b", "a dog"))
    ]
    (tmp_path / "chats.json").write_text(json.dumps(chats))
    (tmp_path / "chats.jsonl").write_text("".join(f"{json.dumps(chat)}\n" for chat in chats))
    for name in ("chats.json", "chats.jsonl"):
        assert read_captions(tmp_path / name, "references").captions == {"a.jpg": ["a red plate"], "b.jpg": ["a dog"]}


def test_a_name_that_two_images_share_is_refused_and_folders_tell_them_apart(config):
    references = {"a/x.jpg": ["a cat"], "b/x.jpg": ["a dog"]}
    with pytest.raises(UsageError, match=r"image 'x.jpg' could be a/x.jpg or b/x.jpg of .*references; name it by one"):
        run(config({"x.jpg": "a cat"}, references, missing="ignore"))
    with pytest.raises(UsageError, match=r"1 of 1 that have none: c/x\.jpg"):
        run(config({"c/x.jpg": "a cat"}, references, missing="ignore"))
    matched = run(config({"data/b/x.jpg": "a dog", "data/a/x.jpg": "a cat"}, references))
    assert matched == run(config({"a/x.jpg": "a cat", "b/x.jpg": "a dog"}, references))
    assert matched["bleu_1"] == pytest.approx(1)


def test_a_number_that_a_file_is_named_by_is_no_id(config):
    references = {"images": [{"id": 1, "file_name": "2.jpg"}, {"id": 2, "file_name": "1.jpg"}], "annotations": [
        {"id": 0, "image_id": 1, "caption": "a cat"}, {"id": 1, "image_id": 2, "caption": "a dog"}
    ]}  # fmt: skip
    crossed = run(config({"1.jpg": "a dog", "2.jpg": "a cat"}, references))
    assert crossed["bleu_2"] == pytest.approx(1)
    del references["images"]
    with pytest.raises(UsageError, match=r"2 of 2 that have none: 1\.jpg, 2\.jpg"):
        run(config({"1.jpg": "a dog", "2.jpg": "a cat"}, references))


def test_of_a_file_with_splits_those_of_the_predicted_images_count(config):
    """A Karpathy file holds all splits; the images of the others want no prediction."""
    others = karpathy({"7": ["a tree"], "8": ["a house"]}, split="train")["images"]
    whole = {"images": others + karpathy(REFERENCES)["images"]}
    assert run(config(CAPTIONS, whole)) == run(config(CAPTIONS, REFERENCES))
    with pytest.raises(UsageError, match="1 of 3 have none: 3;"):
        run(config({image: CAPTIONS[image] for image in ("1", "2")}, whole))


def test_half_an_emoji_and_control_characters_are_cleaned_as_in_training(config, tmp_path):
    captions = {"1": "A cat \ud83d sits\u0000 on\na mat.", "2": "Two\u0007dogs.", "3": ""}
    numbers = run(config(captions, {**REFERENCES, "3": ["a red \ud83d bus"]}, out=str(tmp_path / "out.json")))
    assert numbers == run(config(CAPTIONS, REFERENCES))
    rows = [json.loads(line) for line in (tmp_path / "out.images.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["caption"] for row in rows] == ["A cat sits on a mat.", "Two dogs.", ""]
    assert rows[2]["references"] == ["a red bus"]


def test_lists_printed_as_text_are_read_as_their_captions_with_a_note(config, capsys):
    printed = [{"image_id": int(image), "caption": str(captions)} for image, captions in REFERENCES.items()]
    assert run(config(CAPTIONS, printed)) == run(config(CAPTIONS, REFERENCES))
    assert capsys.readouterr().out.count("note: captions hold lists printed as text") == 1
    with pytest.raises(UsageError, match=r"one caption per image, .*: 2 \('two dogs', 'dogs run'\)"):
        run(config({**CAPTIONS, "2": "['two dogs', 'dogs run']"}, REFERENCES))


def test_what_makes_a_number_say_little_is_told_below_the_table(config, capsys):
    one = {"1": REFERENCES["1"]}
    assert run(config({"1": "a cat on the mat"}, one))["cider"] == 0
    shown = capsys.readouterr().out
    assert "note: CIDEr is 0 for any captions, since one image gives no document frequencies" in shown
    alike = {"1": ["a cat", "one cat"], "2": ["one cat", "a cat"]}
    assert run(config({"1": "a cat", "2": "a cat"}, alike, metrics=["bleu"]))["bleu_1"] == pytest.approx(1)
    assert "note: all 2 images have the same references ('a cat' ...), so that no metric" in capsys.readouterr().out
    run(config(CAPTIONS, REFERENCES))
    assert "note:" not in capsys.readouterr().out


def test_saved_document_frequencies_score_one_image_as_among_all(config, tmp_path, capsys):
    path = str(tmp_path / "df.safetensors")
    DocumentFrequencies.from_references(list(REFERENCES.values())).save(path)
    run(config(CAPTIONS, REFERENCES, out=str(tmp_path / "all.json")))
    among = json.loads((tmp_path / "all.images.jsonl").read_text().splitlines()[0])["cider"]
    alone = run(config({"1": CAPTIONS["1"]}, {"1": REFERENCES["1"]}, document_frequencies=path))["cider"]
    assert alone == pytest.approx(among) and alone > 0
    assert "note:" not in capsys.readouterr().out


def test_a_language_without_spaces_is_told_with_the_key_that_scores_it(config, capsys):
    foreign._warn_once.cache_clear()
    predictions = [
        {"image_id": "a", "caption": "盘子放在蓝色的桌子上"},
        {"image_id": "b", "caption": "桌上有一个红色的圆盘"},
    ]
    references = {"a": ["盘子放在桌子上"], "b": ["桌上有一个圆盘"]}
    assert run(config(predictions, references))["bleu_1"] < 1e-6
    assert "single word of a sentence without spaces" in (shown := capsys.readouterr().out) and "language=zh" in shown
    # of 10 and 10 letters 7 and 7 are in the references, which are shorter
    assert run(config(predictions, references, language="zh"))["bleu_1"] == pytest.approx(14 / 20)
    assert "note:" not in capsys.readouterr().out


@pytest.mark.parametrize(("name", "out"), [("predictions", "predictions"), ("references", "references.json")])
def test_the_files_themselves_are_never_written_over(config, tmp_path, name, out):
    settings = config(CAPTIONS, REFERENCES, out=str(tmp_path / out))
    if name == "references":  # the numbers of the images would be written there
        (tmp_path / "references").rename(tmp_path / "references.images.jsonl")
        settings.references = str(tmp_path / "references.images.jsonl")
    before = (tmp_path / settings[name]).read_text()
    with pytest.raises(UsageError, match=f"one of which is {name}=.*; give another out=FILE"):
        run(settings)
    assert (tmp_path / settings[name]).read_text() == before


@pytest.mark.java
def test_meteor_is_scored_on_the_same_tokens(config):
    assert 0.2 < run(config(CAPTIONS, REFERENCES, metrics=["meteor"]))["meteor"] < 1
