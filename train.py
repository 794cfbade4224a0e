"""The entry point in a checkout: `python train.py [task] [overrides]` is the command `capkit`; alone it trains."""

import sys

from capkit.entry import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:] or ["fit"]))
