"""ImageCoDe: sets of ten similar pictures (Krojer et al. 2022, arXiv 2203.15867)."""

from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray

from capkit.data.files import ImageFiles
from capkit.data.records import Record
from capkit.data.sources.folder import existing_folder
from capkit.errors import UsageError
from capkit.utils.ranges import AtLeastTwo, check_ranges
from capkit.utils.text_files import existing_file, file_name, parse_json, read_text, shown


@check_ranges
class ImageCodeSets:
    """All pictures of the sets in `file`, without captions, to be captioned and scored by metric=imagecode.

    `images` is the folder with <set>/img0.jpg to <set>/img9.jpg. `file` is `<split>_data.json`, whose keys are the
    sets. A picture's key is `<set>/img<index>`.
    """

    def __init__(self, images: str, file: str, set_size: AtLeastTwo = 10) -> None:
        self.files = ImageFiles(existing_folder(images, "images").absolute())
        self._keys = [f"{name}/img{i}" for name in _sets(existing_file(file, "file")) for i in range(set_size)]

    def __len__(self) -> int:
        return len(self._keys)

    def record(self, index: int) -> Record:
        return Record(self._keys[index], f"{self._keys[index]}.jpg")

    def image(self, index: int) -> UInt8[ndarray, "H W 3"]:
        return self.files.load(self.record(index).image)


def _sets(file: Path) -> list[str]:
    wanted = f"file={str(file)!r} must be ImageCoDe's JSON {{set: {{index: text}}}}"
    content = parse_json(read_text(file, "file"), wanted)
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{wanted}; got {shown(content)}")
    return sorted(file_name(name, str(file), "set") for name in content)
