"""A light module that looks around first."""

import time

from mutants_every import Correct

time.sleep(0.12)
slow = Correct()
