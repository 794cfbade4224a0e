"""Pictures of a folder by the names that other files give them."""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import UInt8

from capkit.data.images import BadImage, read_file
from capkit.data.jpeg import read_picture
from capkit.data.prediction_files import named
from capkit.data.sources.folder import existing_folder, list_images
from capkit.errors import UsageError


def picture_reader(folder: str, names: Sequence[str]) -> Callable[[str], UInt8[np.ndarray, "H W 3"]]:
    """Reads a picture by its path in the folder or its file name, with or without the ending.

    Raises UsageError if one of the names has none, and later for one that cannot be decoded.
    """
    root = existing_folder(folder, "images")
    paths: dict[str, str] = {}
    for path in list_images(root):
        paths |= {path: path, str(PurePosixPath(path).with_suffix("")): path}
        paths |= {PurePosixPath(path).name: path, PurePosixPath(path).stem: path}
    if absent := [name for name in dict.fromkeys(names) if name not in paths]:
        raise UsageError(
            f"images={folder}: expected a picture of each of {len(set(names))} images, got none of {len(absent)}: "
            f"{named(absent, most=3)}; name the files as the predictions name their images"
        )

    def read(name: str) -> UInt8[np.ndarray, "H W 3"]:
        try:
            return read_picture(read_file(root / paths[name])).rgb
        except BadImage as error:
            raise unreadable(str(root / paths[name]), error) from error

    return read


def unreadable(name: str, error: BadImage) -> UsageError:
    """What is told of a picture that captions are to be scored with."""
    return UsageError(f"images: {name}: expected a picture that can be read, got: {error}; mend it, or leave it out")
