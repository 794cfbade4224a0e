"""`python -m capkit` is the command `capkit`."""

import sys

from capkit.entry import main

sys.exit(main())
