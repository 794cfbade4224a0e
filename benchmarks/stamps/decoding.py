"""How far a reduced decoding of a JPEG is from the whole one, on the photos of `data=stamps`.

    python -m benchmarks.stamps.decoding [--images 200]

Each stamp on white, brought to 640 x 480 by cropping, is written as JPEG and read to 224 x 224 pixels by
`data.decode=turbo` and by `scaled`. Prints the mean and the largest difference of pixels, in levels of 255, and the
cosine of EfficientNet-Lite0's features; beside them the same for saving the JPEG once more.
"""

import argparse
import io

import numpy as np
import torch
from PIL import Image, ImageOps

from capkit.assets.cache import location
from capkit.data.jpeg import read_picture
from capkit.data.sources.stamps import Stamps
from capkit.data.transforms import ImageTransform
from capkit.models.encoders.image import EfficientNetLite0

SIZE = (640, 480)


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    args = parser.parse_args()
    source = Stamps(str(location("tuxpaint-stamps")))
    transform = ImageTransform(224, (0.498,) * 3, (0.502,) * 3)
    encoder = EfficientNetLite0(weights=str(location("efficientnet-lite0") / "weights.pth")).eval()
    views: dict[str, list[torch.Tensor]] = {"turbo": [], "scaled": [], "saved again": []}
    chosen = np.linspace(0, len(source) - 1, min(args.images, len(source))).astype(int)
    for index in chosen:
        data = jpeg(ImageOps.fit(Image.fromarray(source.image(int(index))), SIZE, Image.Resampling.BICUBIC))
        whole, small = read_picture(data), read_picture(data, transform.fraction)
        views["turbo"].append(transform(whole.rgb))
        views["scaled"].append(transform(small.rgb, None, small.full_size, small.scale))
        views["saved again"].append(transform(read_picture(jpeg(Image.fromarray(whole.rgb))).rgb))
    with torch.inference_mode():
        batches = {name: torch.stack(pixels).split(16) for name, pixels in views.items()}
        features = {
            name: torch.cat([encoder(transform.normalize(part)).mean(1) for part in parts])
            for name, parts in batches.items()
        }
    print("| beside decode=turbo | mean difference | largest | cosine of features: mean | smallest |")
    print("| --- | --- | --- | --- | --- |")
    for name in ("scaled", "saved again"):
        gap = (torch.stack(views[name]).int() - torch.stack(views["turbo"]).int()).abs()
        cosine = torch.nn.functional.cosine_similarity(features[name], features["turbo"], dim=-1)
        print(f"| {name} | {gap.float().mean():.2f} | {gap.max()} | {cosine.mean():.4f} | {cosine.min():.4f} |")
    print(f"{len(chosen)} pictures")


if __name__ == "__main__":
    main()
