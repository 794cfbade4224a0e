"""Pictures and pretrained parts that are fetched once into a cache folder (docs/stamps.md)."""
