"""The words of a training run of seconds on a handful of scenes, which several tests start from."""

MODEL = [
    "model.width=32", "model.num_layers=1", "model.image_encoder.channels=[8,8]", "model.image_encoder.blocks=[0,0]",
    "model.image_encoder.width=32",
]  # fmt: skip
TINY = [
    "debug=tiny", "data.train.count=16", "data.val.count=6", "data.test.count=6", "max_steps=4", "val_every=2", *MODEL,
    "decoding.max_length=6", "model.dropout=0.2", "callback.checkpoints.every_steps=1",
    "callback.recorder.every_steps=1",
]  # fmt: skip
EVALUATED = [word for word in TINY if not word.startswith("model.")]  # for tasks whose model is a checkpoint's


def caches(path):
    return [f"data.{split}.cache_dir={path / 'scenes'}" for split in ("train", "val", "test")]
