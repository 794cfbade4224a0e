import json

import pytest
from bag_folders import bag_folder, keys, rows

from capkit.data.curricula.bag_files import BagFolder, hash_of_bags, hash_of_keys, list_name, size_of
from capkit.errors import UsageError
from capkit.metrics.bags import read_bags


def test_lists_are_in_the_form_that_truematch_reads(tmp_path):
    bag_folder(tmp_path / "bags")
    assert read_bags(str(tmp_path / "bags" / "hard-3.json")) == rows(60, 3)


@pytest.mark.parametrize("of", ["bags", "."])
def test_a_folder_is_read_by_its_path_or_its_runs(tmp_path, of):
    bag_folder(tmp_path / "bags")
    found = BagFolder(tmp_path / of)
    assert found.bags("hard-5") == rows(60, 5) and found.hash("hard-5") == hash_of_bags(rows(60, 5))
    found.check_split("train", keys(60)[::-1])


def test_hashes_tell_order_of_bags_but_not_of_keys_apart():
    assert hash_of_keys(["a", "b,c"]) == hash_of_keys(["b,c", "a"]) != hash_of_keys(["a", "b", "c"])
    assert hash_of_bags([["a", "b"], ["c", "d"]]) != hash_of_bags([["c", "d"], ["a", "b"]])


def test_bags_of_the_test_split_are_refused_where_training_bags_are_wanted(tmp_path):
    found = BagFolder(bag_folder(tmp_path, split="test"))
    with pytest.raises(UsageError, match=r"expected bags of the train split, got bags of the test split"):
        found.check_split("train", keys(60))


@pytest.mark.parametrize("others", [keys(59), keys(61), ["x", *keys(60)[1:]]])
def test_bags_of_other_images_are_refused(tmp_path, others):
    found = BagFolder(bag_folder(tmp_path))
    with pytest.raises(UsageError, match=rf"keys differ: 60 then, {len(others)} now"):
        found.check_split("train", others)


def test_a_list_that_was_changed_or_is_not_there_is_refused(tmp_path):
    found = BagFolder(bag_folder(tmp_path))
    (tmp_path / "hard-3.json").write_text(json.dumps(rows(60, 3)[1:]))
    with pytest.raises(UsageError, match=r"hard-3.json was changed"):
        found.bags("hard-3")
    with pytest.raises(UsageError, match=r"no list 'hard-4'; did you mean 'hard-"):
        found.bags("hard-4")
    with pytest.raises(UsageError, match=r"no bags.json"):
        BagFolder(tmp_path / "nowhere")


def test_names_of_lists_say_neighbourhood_and_size():
    assert size_of(list_name("random", 15)) == 15
    for name in ("hard", "hard-1", "hard-x", "harsh-3", "5", "hard-3-"):
        with pytest.raises(UsageError, match="named NEIGHBORHOOD-SIZE"):
            size_of(name)
