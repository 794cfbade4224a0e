"""An encoder whose embeddings are written in the test, and pictures that name their row in it."""

import hashlib
import json

import numpy as np
import pytest
import torch

from capkit.data.datamodule import CaptionDataModule
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.data.transforms import ImageTransform


class TableEncoder:
    """A picture of one pixel (v, 0, 0) has row v of `images`; a text its entry of `texts`. Counts what it encodes."""

    name, prompt, max_length = "table", "see", 9

    def __init__(self, images, texts=None, limit=10**9):
        self.images = torch.nn.functional.normalize(torch.tensor(images, dtype=torch.float32), dim=-1)
        self.texts, self.limit = texts or {}, limit
        self.seen_images, self.seen_texts = [], []

    def preprocess(self, images):
        return torch.stack([torch.from_numpy(np.asarray(image)).permute(2, 0, 1).float() for image in images])

    def encode_image(self, pixels):
        numbers = pixels[:, 0, 0, 0].long()
        self.seen_images += numbers.tolist()
        if len(self.seen_images) > self.limit:
            raise KeyboardInterrupt
        return self.images[numbers]

    def encode_text(self, texts):
        self.seen_texts += texts
        rows = torch.tensor([self.texts[text] for text in texts], dtype=torch.float32)
        return torch.nn.functional.normalize(rows.view(len(texts), self.images.shape[1]), dim=-1)

    def is_cut(self, texts):
        return [len(text.split()) > self.max_length for text in texts]

    def to(self, device):
        return self

    def fingerprint_fields(self, side):
        table = json.dumps([self.images.tolist(), self.texts])
        return {"side": side, "weights": hashlib.sha256(table.encode()).hexdigest()}


class Listed:
    """A data source of (key, captions, metadata); picture i is one pixel of value i, None cannot be read."""

    def __init__(self, rows, unreadable=()):
        self.rows, self.unreadable = rows, unreadable

    def __len__(self):
        return len(self.rows)

    def record(self, index):
        key, captions, metadata = self.rows[index]
        return Record(key, captions=[Caption(text) for text in captions], metadata=metadata)

    def image(self, index):
        if index in self.unreadable:
            raise BadImage("torn")
        return np.array([[[index, 0, 0]]], np.uint8)


@pytest.fixture
def table():
    return TableEncoder


@pytest.fixture
def listed():
    return Listed


@pytest.fixture
def data_of():
    """A data module of one or more sources by split."""

    def make(max_skipped=0, **sources):
        return CaptionDataModule(**sources, transform=ImageTransform(1), max_skipped=max_skipped)

    return make


@pytest.fixture
def rows_in():
    def read(path):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    return read
