"""`python -m capkit` is the command `capkit`."""

import sys

from capkit.entry import main

if __name__ == "__main__":  # tools that import every module of a package import this one too
    sys.exit(main())
