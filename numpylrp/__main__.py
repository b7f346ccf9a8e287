"""``python -m numpylrp`` is the command ``numpylrp``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
