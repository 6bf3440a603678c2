"""``python -m tests.lives SEED``: one world, and what happens in it."""

import logging
import sys

from .world import live

logging.disable()  # the clock's
print(live(int(sys.argv[1]), print))
