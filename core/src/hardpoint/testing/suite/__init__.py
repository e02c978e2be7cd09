"""What ``pytest --pyargs hardpoint.testing.suite --provider kind:name`` collects."""
