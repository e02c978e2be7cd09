"""What a run of the kit found: levels, JSON, a page for people."""
