"""Tags by a dual encoder: the names of a list that are most similar to the picture (arXiv 2103.00020, section 3.1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from capkit.errors import UsageError
from capkit.experts.base import Finding
from capkit.llm.base import Picture
from capkit.models.dual_encoders.base import CacheableEncoder
from capkit.text.caption_text import clean_text
from capkit.utils.ranges import PositiveInt, check_ranges
from capkit.utils.store import fingerprint
from capkit.utils.tensors import default_device
from capkit.utils.text_files import existing_file


@check_ranges
class ZeroShotTagger:
    """The `top` names of `tags` with the highest cosine to the picture, in that order, scored by (1 + cosine) / 2.

    `tags` is a text file with one name a line; empty lines and repeated names do not count. `prompt` holds each name at
    its braces.

    Raises UsageError for a list with fewer than `top` names, or a prompt without braces.
    """

    def __init__(
        self, encoder: CacheableEncoder, tags: str, top: PositiveInt = 10, prompt: str = "a photo of {}"
    ) -> None:
        lines = existing_file(tags, "tags").read_text(encoding="utf-8").splitlines()
        self.names = list(dict.fromkeys(name for line in lines if (name := clean_text(line))))
        if len(self.names) < top:
            raise UsageError(f"{Path(tags)}: expected at least top={top} tags, one a line; got {len(self.names)}")
        if prompt.count("{}") != 1:
            raise UsageError(f"prompt expected one {{}} where a tag's name goes; got {prompt!r}")
        self._encoder, self._top, self._prompt = encoder, top, prompt
        self._about = {
            "encoder": [encoder.fingerprint_fields(side) for side in ("image", "text")],
            "tags": fingerprint({"names": self.names}),
            "top": top,
            "prompt": prompt,
        }
        self._model = f"zero_shot_tagger/{encoder.name}"
        self._texts: torch.Tensor | None = None

    def about(self) -> dict[str, Any]:
        return {"model": self._model, **self._about}

    @torch.no_grad()
    def look(self, pictures: Sequence[Picture]) -> list[list[Finding]]:
        device = default_device()
        if self._texts is None:
            self._encoder.to(device)
            self._texts = self._encoder.encode_text([self._prompt.format(name) for name in self.names])  # (tags D)
        pixels = self._encoder.preprocess([picture.pixels for picture in pictures]).to(device)
        cosines = self._encoder.encode_image(pixels) @ self._texts.T  # (B tags)
        best = cosines.topk(self._top)
        return [
            [
                Finding("tag", self.names[place], score=min((1 + cosine) / 2, 1.0), expert=self._model)
                for place, cosine in zip(places, values, strict=True)
            ]
            for places, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
