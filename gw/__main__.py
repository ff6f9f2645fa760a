"""`python -m gw`: the same as the command `gw`."""

import sys

from gw.cli import main

if __name__ == "__main__":
    sys.exit(main())
