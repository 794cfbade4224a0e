"""A data source of given records, for tests of what is done with any source."""

import numpy as np


class Records:
    """Pictures are black, `side` pixels wide and high, and in no files."""

    def __init__(self, records, side=8):
        self.records, self.side = records, side

    def __len__(self):
        return len(self.records)

    def record(self, index):
        return self.records[index]

    def image(self, index):
        return np.zeros((self.side, self.side, 3), np.uint8)
