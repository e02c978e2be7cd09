"""A light module that is not: it imports what imports torch."""

import mutants_every_sdk
from mutants_every import Correct

heavy = Correct()
sdk = mutants_every_sdk
