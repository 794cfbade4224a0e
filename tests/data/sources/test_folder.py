import os

import pytest
from PIL import Image

from capkit.data.sources.folder import Folder, list_images
from capkit.errors import UsageError


def draw(folder, *names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path, "PNG")


def test_images_of_nested_folders_come_in_natural_order(tmp_path):
    draw(tmp_path, "img10.png", "img2.PNG", "b/1.jpg", "B/03.jpeg", "a.webp", ".hidden.png", ".git/x.png")
    draw(tmp_path, "z.jfif", "z.jp2", "z.JPE")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.png").mkdir()
    in_order = ["a.webp", "b/1.jpg", "B/03.jpeg", "img2.PNG", "img10.png", "z.jfif", "z.jp2", "z.JPE"]
    assert list_images(tmp_path) == in_order


def test_plain_folder_has_keys_and_no_captions(tmp_path):
    draw(tmp_path, "x (1)/a=b.png", "c.png")
    source = Folder(str(tmp_path))
    assert [source.record(i).key for i in range(len(source))] == ["c.png", "x (1)/a=b.png"]
    assert source.record(0).captions == [] and source.image(1)[0, 0].tolist() == [0, 0, 0]


def test_file_name_that_is_not_utf8_gets_a_printable_key(tmp_path):
    draw(tmp_path, os.fsdecode(b"caf\xe9.png"))
    source = Folder(str(tmp_path))
    assert source.record(0).key == "caf\\xe9.png"
    assert source.image(0).shape == (4, 4, 3)


def test_one_image_file_is_a_folder_of_one(tmp_path):
    draw(tmp_path, "a.png", "b.png")
    source = Folder(str(tmp_path / "b.png"))
    assert len(source) == 1 and source.record(0).key == "b.png" and source.image(0)[0, 0, 0] == 1


def test_captions_file_chooses_the_images(tmp_path):
    draw(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "c.csv").write_text("file,caption\nb.png,a bee\na.png,an ant\nb.png,one bee\n")
    source = Folder(str(tmp_path), captions=str(tmp_path / "c.csv"))
    assert [(source.record(i).key, [c.text for c in source.record(i).captions]) for i in range(2)] == [
        ("b.png", ["a bee", "one bee"]),
        ("a.png", ["an ant"]),
    ]
    assert len(source) == 2 and source.image(0)[0, 0, 0] == 1


def splits(folder, **options) -> dict[str, list[str]]:
    parts = {s: Folder(str(folder), split=s, **options) for s in ("train", "val", "test")}
    return {s: [source.record(i).key for i in range(len(source))] for s, source in parts.items()}


def test_splits_are_disjoint_complete_and_of_the_given_shares(tmp_path):
    draw(tmp_path, *(f"{i}.png" for i in range(30)))
    parts = splits(tmp_path, val=0.1, test=0.15)
    assert [len(parts[s]) for s in ("train", "val", "test")] == [22, 3, 5]  # 0.15 x 30 = 4.5, rounded up
    assert sorted((key for part in parts.values() for key in part), key=lambda n: int(n[:-4])) == [
        f"{i}.png" for i in range(30)
    ]
    assert parts == splits(tmp_path, val=0.1, test=0.15)
    assert parts != splits(tmp_path, val=0.1, test=0.15, seed=1)


def test_split_column_decides_where_there_is_one(tmp_path):
    (tmp_path / "c.csv").write_text("file,caption,split\na,x,train\nb,x,validation\nc,x,test\nd,x,train\n")
    parts = splits(tmp_path, captions=str(tmp_path / "c.csv"))
    assert parts == {"train": ["a", "d"], "val": ["b"], "test": ["c"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": None}, "add images=DIR"),
        ({"images": "none"}, "no folder"),
        ({"captions": "none.csv"}, "no file"),
        ({"split": "dev"}, "train, val or test"),
        ({"val": 0.6, "test": 0.5}, "together below 1"),
        ({"val": -0.1}, "val: expected a finite number of at least 0 and less than 1"),
    ],
)
def test_wrong_argument_fails_in_the_constructor(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        Folder(**{"images": str(tmp_path), **options})


def test_folder_without_images_says_which_files_it_wants(tmp_path):
    with pytest.raises(UsageError, match=r"\.jpg"):
        len(Folder(str(tmp_path)))


def test_split_without_images_is_an_error(tmp_path):
    draw(tmp_path, "a.png")
    with pytest.raises(UsageError, match="no images for split=val"):
        len(Folder(str(tmp_path), split="val", val=0.0))


def captions_file(folder, *names, split=""):
    (folder / "c.csv").write_text(f"file,caption{split and ',split'}\n" + "".join(f"{name},a dog\n" for name in names))
    return str(folder / "c.csv")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("images/a.png", "names 'images/a.png', but {root} holds 'a.png'; drop the prefix 'images/'"),
        ("/data/x/sub/b.png", "{root} holds 'sub/b.png'; drop the prefix '/data/x/'"),
        ("sub\\\\b.png", "{root} holds 'sub/b.png'; write / for \\ in its file names"),
        ("b.png", "names 'b.png', which lies in {sub}; give images={sub}"),
        ("A.PNG", "names 'A.PNG', but {root} holds 'a.png'; write its file names as the files have them"),
        ("sub/b", "names 'sub/b', but {root} holds 'sub/b.png'; write its file names as the files have them"),
        ("a.jpg", "names 'a.jpg', but {root} holds 'a.png'; write its file names as the files have them"),
    ],
)
def test_file_names_with_another_folder_are_told_with_what_to_drop(tmp_path, name, message):
    root = tmp_path / "photos"
    draw(root, "a.png", "sub/b.png")
    name = name.replace("\\\\", "\\")
    source = Folder(str(root), captions_file(tmp_path, "gone.png", name))
    with pytest.raises(UsageError) as caught:
        len(source)
    assert message.format(root=repr(str(root)), sub=repr(str(root / "sub"))) in str(caught.value)


def test_parent_is_offered_where_the_names_start_from_it(tmp_path):
    draw(tmp_path / "images", "a.png")
    with pytest.raises(UsageError, match=f"or give images={str(tmp_path)!r}"):
        len(Folder(str(tmp_path / "images"), captions_file(tmp_path, "images/a.png")))


def test_missing_files_stay_with_the_budget_where_others_are_there(tmp_path):
    draw(tmp_path, "a.png")
    assert len(Folder(str(tmp_path), captions_file(tmp_path, "a.png", "x/a.png", "gone.png"))) == 3
    assert len(Folder(str(tmp_path), captions_file(tmp_path, "gone.png"))) == 1


def test_text_files_beside_the_images_are_their_captions(tmp_path):
    draw(tmp_path, "a.png", "sub/b.jfif", "c.png")
    (tmp_path / "a.txt").write_text("\ufeffa dog\n\none dog\n", encoding="utf-8")
    (tmp_path / "sub" / "b.txt").write_text("a cat", encoding="utf-8")
    source = Folder(str(tmp_path), captions=str(tmp_path))
    captions = {source.record(i).key: [c.text for c in source.record(i).captions] for i in range(len(source))}
    assert captions == {"a.png": ["a dog", "one dog"], "sub/b.jfif": ["a cat"]}
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"no text file in .*none' is named like an image, such as 'a\.txt'"):
        len(Folder(str(tmp_path), captions=str(tmp_path / "none")))


def image_folder(folder, *tables):
    for table, names in tables:
        (folder / table).parent.mkdir(parents=True, exist_ok=True)
        lines = [f'{{"file_name": "{name}", "text": "of {name}"}}\n' for name in names]
        (folder / table).write_text("".join(lines))
        draw((folder / table).parent, *names)


def test_an_image_folder_has_a_table_in_each_split(tmp_path):
    image_folder(
        tmp_path, ("train/metadata.jsonl", ["a.png", "b.png"]), ("validation/metadata.jsonl", ["a.png"]),
        ("test/metadata.jsonl", ["c/d.png"]),
    )  # fmt: skip
    (tmp_path / "train" / "a.txt").write_text("not read beside a table")
    for split, keys in (("train", ["train/a.png", "train/b.png"]), ("val", ["validation/a.png"])):
        source = Folder(str(tmp_path), str(tmp_path), split=split)
        assert [source.record(place).key for place in range(len(source))] == keys
    source = Folder(str(tmp_path), str(tmp_path), split="test")
    assert (len(source), source.record(0).captions[0].text) == (1, "of c/d.png")
    assert source.image(0).shape == (4, 4, 3)


def test_an_image_folder_with_one_table_and_without_named_folders_has_shares(tmp_path):
    image_folder(tmp_path, ("metadata.jsonl", [f"{number}.png" for number in range(10)]))
    sizes = [len(Folder(str(tmp_path), str(tmp_path), split, val=0.1, test=0.2)) for split in ("train", "val", "test")]
    assert sizes == [7, 1, 2]


def test_a_row_of_an_image_folder_that_names_no_image_is_told(tmp_path):
    (tmp_path / "metadata.jsonl").write_text('{"key": "1", "captions": ["x"]}\n')
    with pytest.raises(UsageError, match=r"metadata\.jsonl: expected an image in each row, got none for '1'"):
        len(Folder(str(tmp_path), str(tmp_path)))
