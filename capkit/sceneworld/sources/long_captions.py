"""SceneWorld as recaptioned web pictures: alt text names one object, a long caption has a sentence for each."""

from dataclasses import replace

from capkit.data.fingerprint import fingerprint_of
from capkit.data.records import Caption, Record
from capkit.sceneworld.language.captions import Detail, caption
from capkit.sceneworld.sources.derived import DerivedSource
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import Scene
from capkit.sceneworld.world.stream import Stream
from capkit.utils.ranges import Seed, check_ranges

_WORDINGS = (0, 1)
_OBJECT = Detail(size=False, inside=False, text=False)


@check_ranges
class LongCaptions(DerivedSource):
    """The pictures of `source` with captions of two sources, as `data.sub_captions` reads them, each in two wordings.

    "raw" names one object, drawn by (seed, key), as style short does. "long" has a sentence for each object, with its
    colour and place. `stated_facts` stay those of `source`. Captions are kept once they were written, since a training
    run reads each many times.
    """

    _source: SceneWorld

    def __init__(self, source: SceneWorld, seed: Seed = 0) -> None:
        self._source, self._seed = source, seed
        self._written: dict[int, list[Caption]] = {}

    def fingerprint(self) -> str:
        return fingerprint_of(source=self._source.fingerprint(), long_captions=self._seed)

    def record(self, index: int) -> Record:
        record = self._source.record(index)
        if index not in self._written:
            self._written[index] = self._captions(record)
        return replace(record, captions=self._written[index])

    def _captions(self, record: Record) -> list[Caption]:
        scene, grammar = Scene.from_dict(record.metadata["scene"]), self._source.grammar
        named = Stream("alt text", self._seed, record.key).choice(scene.objects)
        alone = replace(scene, objects=(replace(named, inside=None),))
        raw = [caption(alone, "short", v, detail=_OBJECT, grammar=grammar).text for v in _WORDINGS]
        placed = replace(_OBJECT, place=True)
        long = [caption(scene, "dense", v, detail=placed, grammar=grammar).text for v in _WORDINGS]
        return [
            Caption(text, source=name, language=grammar.language)
            for name, texts in (("raw", raw), ("long", long))
            for text in texts
        ]
