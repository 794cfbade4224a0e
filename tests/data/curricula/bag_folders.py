"""Bags of k0, k1, ... on disk: `size` images in a row make one."""

from capkit.data.curricula.bag_files import hash_of_keys, list_name, write_bags


def keys(num_images):
    return [f"k{i}" for i in range(num_images)]


def rows(num_images, size):
    names = keys(num_images)
    return [names[start : start + size] for start in range(0, num_images - size + 1, size)]


def bag_folder(path, num_images=60, sizes=(2, 3, 5), split="train"):
    lists = {list_name("hard", size): rows(num_images, size) for size in sizes}
    about = {
        "split": split, "num_keys": num_images, "keys_hash": hash_of_keys(keys(num_images)),
        "lists": {name: {"placed": 1.0} for name in lists},
    }  # fmt: skip
    write_bags(path, lists, about)
    return str(path)
