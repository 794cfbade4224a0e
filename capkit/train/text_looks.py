"""Which patches of held-out pictures the group of a text is made of, for the report of a run with grouped patches."""

from math import isqrt

import numpy as np
import torch
from jaxtyping import UInt8

from capkit.data.datamodule import CaptionDataModule
from capkit.data.records import Record
from capkit.data.targets import targets_of
from capkit.models.dual_encoders.patch_grouping import PatchGrouping
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.reports.patches import Looked, TextsDrawn
from capkit.text.sentences import sentences

NUM_PICTURES, MOST_TEXTS, MOST_RECORDS = 6, 4, 1000


@torch.no_grad()
def text_looks(model: TrainableDualEncoder, data: CaptionDataModule) -> list[Looked]:
    """Of the first test pictures, each with up to four texts: its sub-captions, else those of its regions, else the
    sentences of its captions. None without grouping, and where patches are no square grid."""
    if not isinstance(model.grouping, PatchGrouping):
        return []
    picture = data.image_reader("test")
    records = {record.key: record for record in map(data.source("test").record, range(data.num_images("test")))}
    looked = []
    for batch in data.eval_dataloader("test", limit=NUM_PICTURES):
        patches = model.embed_patches(batch.to(model.device))
        side = isqrt(patches.shape[1])
        if side**2 != patches.shape[1]:
            return []
        for key, own in zip(batch.keys, patches, strict=True):
            texts = _texts(records[key], data)[:MOST_TEXTS]
            weights = model.grouping.weights((model.encode_text(texts) @ own.T).float()).cpu().numpy()
            shown = list(zip(texts, weights.reshape(-1, side, side), strict=True))
            looked.append(Looked(key, _seen(picture(key), data), shown))
    return looked


def _texts(record: Record, data: CaptionDataModule) -> list[str]:
    targets, _ = targets_of(record, "images")
    drawn = [] if data.sub_captions is None else [target.text for target in data.sub_captions.pool(targets)]
    said = drawn or [region.text for region in record.regions]
    return list(dict.fromkeys(said or [sentence for target in targets for sentence in sentences(target.text)]))


def _seen(picture: UInt8[np.ndarray, "H W 3"], data: CaptionDataModule) -> UInt8[np.ndarray, "P Q 3"]:
    """The square that the model sees; the whole picture where the data have no transform."""
    if data.transform is None:
        return picture
    placement = data.transform.placement(*picture.shape[:2])
    return data.transform.place(picture, placement).permute(1, 2, 0).numpy()


def texts_drawn(data: CaptionDataModule) -> TextsDrawn | None:
    """Of up to 1,000 training pictures, how many different texts there are to draw; None without data.sub_captions."""
    if data.sub_captions is None:
        return None
    source, draw = data.source("train"), data.sub_captions
    available = []
    for place in range(min(len(source), MOST_RECORDS)):
        targets, _ = targets_of(source.record(place), "images")
        whole = [target.text for target in targets if target.caption.source == draw.always][:1]
        available.append(len({*whole, *(target.text for target in draw.pool(targets))}))
    return TextsDrawn(draw.count, available)
