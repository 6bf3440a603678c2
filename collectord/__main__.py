"""``python -m collectord`` is the command ``collectord``."""

import sys

from collectord.main import main

sys.exit(main())
