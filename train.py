"""The entry point in a checkout: `python train.py [task] [overrides]` is the command `capkit`."""

from capkit.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
