"""How many captions that were dealt to wrong pictures `reassign_images` leads back, on real photos.

    python -m benchmarks.stamps.reassign --encoder RUN [--seeds 0 1 2]

Half of the stamps' captions are dealt to other stamps. RUN is a dual encoder of experiment=stamps_lora_text, MiniLM the
sentence encoder. A caption is back if the picture that it is paired with has the same caption of its own. Printed for
all pictures, and for those whose captions the dual encoder was not trained on (its test split), as shares of the
captions that were dealt to a wrong picture; beside them the same with the sentence embeddings dealt to other captions,
and for `score=cosine`. Needs `capkit prepare data=stamps`.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from capkit.assets.cache import location
from capkit.checkpoint.loading import load_dual_encoder
from capkit.curation.steps.reassign_images import ReassignImages
from capkit.data.features import FeatureStore
from capkit.data.records import Record
from capkit.data.sources.mismatched import Mismatched
from capkit.data.sources.stamps import Stamps, normalized_caption
from capkit.models.dual_encoders.sentence_encoder import SentenceEncoder
from capkit.utils.tensors import unit


def back(records: Sequence[Record], own: dict[str, str], wrong: set[str], of: set[str]) -> float:
    """The share of wrongly dealt captions that stand with a picture of that caption, among those of pictures `of`.

    `own` is each picture's caption, `wrong` the pictures that got another one's.
    """
    dealt = [key for key in wrong if key in of]
    home = {
        row["from"]
        for record in records
        for caption, row in zip(record.captions, record.metadata["reassigned"], strict=True)
        if normalized_caption(caption.text) == own[record.key]
    }
    return sum(key in home for key in dealt) / len(dealt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="run folder of experiment=stamps_lora_text")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    root = str(location("tuxpaint-stamps"))
    stamps, test = Stamps(root), Stamps(root, split="test")
    own = {record.key: normalized_caption(record.captions[0].text) for record in map(stamps.record, range(len(stamps)))}
    unseen = {test.record(index).key for index in range(len(test))}
    encoder, minilm = load_dual_encoder(args.encoder), SentenceEncoder(str(location("minilm")))
    pictures = encoder.encode_features(
        torch.from_numpy(FeatureStore(location("stamps-efficientnet-lite0"))[list(own)]).float()
    ).numpy()
    print(f"{len(own)} pictures, {len(unseen)} of the test split; half of the captions dealt to wrong pictures")
    print("| seed | pictures | back | sentence embeddings dealt | score=cosine |")
    print("| --- | --- | --- | --- | --- |")
    for seed in args.seeds:
        source = Mismatched(stamps, 0.5, seed)
        records = [source.record(index) for index in range(len(source))]
        texts = [record.captions[0].text for record in records]
        wrong = {r.key for r, text in zip(records, texts, strict=True) if normalized_caption(text) != own[r.key]}
        # A caption of the test split may have come to any picture: what counts is that it is one of those captions.
        heldout = {own[key] for key in unseen}
        of = {r.key for r, text in zip(records, texts, strict=True) if normalized_caption(text) in heldout}
        sentences = unit(minilm.encode_text(texts)).numpy()
        with tempfile.TemporaryDirectory() as folder:
            rows = {"image": pictures, "caption": encoder.encode_text(texts).numpy()}
            rows |= {"sentence": sentences, "dealt": sentences[np.random.default_rng(seed).permutation(len(texts))]}
            for name, values in rows.items():
                np.save(Path(folder) / f"{name}.npy", values)
            found = [_paired(records, Path(folder), side, score) for side, score in _WAYS]
        for name, keys in (("all", set(own)), ("unseen captions", of)):
            shares = " | ".join(f"{back(result, own, wrong, keys):.3f}" for result in found)
            print(f"| {seed} | {name} | {shares} |")


_WAYS = (("sentence", "cycle"), ("dealt", "cycle"), ("sentence", "cosine"))


def _paired(records: list[Record], folder: Path, sentences: str, score: str) -> list[Record]:
    step = ReassignImages(
        score=score,
        image_features_file=str(folder / "image.npy"),
        caption_features_file=str(folder / "caption.npy"),
        sentence_features_file=str(folder / f"{sentences}.npy"),
        cache_dir=str(folder / "kept"),
    )
    return list(step(lambda: iter(records)))


if __name__ == "__main__":
    main()
