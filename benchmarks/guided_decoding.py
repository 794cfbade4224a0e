"""Guided captions beside plain ones, of 1, 32 and 128 pictures: `python -m benchmarks.guided_decoding`.

Section `guided` of `python -m benchmarks.speed`, and takes its options.
"""

import sys

from benchmarks.speed.__main__ import main

if __name__ == "__main__":
    main(["guided", *sys.argv[1:]])
