"""SceneWorld as the web shows it: an alt-text that knows names, and a description that knows none."""

from collections.abc import Sequence
from dataclasses import replace

from capkit.data.fingerprint import fingerprint_of
from capkit.data.records import Caption, Record
from capkit.errors import UsageError, check_choice
from capkit.sceneworld.language.captions import NUM_VARIANTS, caption
from capkit.sceneworld.language.names import named_alt_text
from capkit.sceneworld.sources.derived import DerivedSource
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import SHAPES
from capkit.sceneworld.world.scene import Scene
from capkit.sceneworld.world.stream import Stream
from capkit.utils.ranges import Probability, Seed, check_ranges

TEXTS = ("both", "alt_text", "synthetic")


@check_ranges
class Named(DerivedSource):
    """The pictures of `source`, each with an alt-text and a synthetic caption.

    The alt-text (source "alt_text") calls objects by invented names, among a shop's words
    (`capkit.sceneworld.language.names`); with probability `unrelated` it says nothing of the picture. The synthetic
    caption (source "synthetic") is one of style short, in one of its five wordings: all shapes and colours, no name.
    Both are drawn by (seed, scene). Metadata are those of `source`.

    Args:
        source: The scenes; its own captions are replaced.
        texts: "both", "alt_text" or "synthetic".
        boilerplate: Probability of a shop's words before the names, and of others behind them.
        unnamed: Shapes that have no name: the alt-text does not know them.
    """

    def __init__(
        self,
        source: SceneWorld,
        texts: str = "both",
        boilerplate: Probability = 0.4,
        unrelated: Probability = 0.1,
        seed: Seed = 0,
        unnamed: Sequence[str] = (),
    ) -> None:
        if unknown := set(unnamed) - set(SHAPES):
            raise UsageError(f"unnamed lists some of {', '.join(SHAPES)}; got {', '.join(sorted(unknown))}")
        check_choice("texts", texts, TEXTS)
        self._source, self._texts, self._seed = source, texts, seed
        self._boilerplate, self._unrelated, self._unnamed = float(boilerplate), float(unrelated), sorted(unnamed)

    def fingerprint(self) -> str:
        return fingerprint_of(
            source=self._source.fingerprint(),
            named=[self._texts, self._boilerplate, self._unrelated, self._seed, *self._unnamed],
        )

    def record(self, index: int) -> Record:
        record = self._source.record(index)
        scene = Scene.from_dict(record.metadata["scene"])
        variant = Stream("synthetic caption", self._seed, record.key).below(NUM_VARIANTS)
        texts = {
            "alt_text": named_alt_text(scene, self._seed, self._boilerplate, self._unrelated, self._unnamed),
            "synthetic": caption(scene, "short", variant).text,
        }
        captions = [Caption(text, name) for name, text in texts.items() if self._texts in ("both", name)]
        return replace(record, captions=captions)
