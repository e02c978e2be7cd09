"""The parts of checks that run in ranks: each function is handed a ``Scene``."""
