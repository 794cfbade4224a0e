"""Images and pretrained models that are fetched once into a cache folder (docs/stamps.md)."""
