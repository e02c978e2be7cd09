"""The contract of each kind of provider: a narrow ABC and frozen dataclasses, a module a kind."""
