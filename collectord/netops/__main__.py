"""``python -m collectord.netops`` is ``collectord-netops``."""

import sys

from collectord.netops.command import main

sys.exit(main())
