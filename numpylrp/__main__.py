"""``python -m numpylrp`` is the command ``numpylrp``."""

import sys

from .cli import main

sys.exit(main())
