"""First-party partitioners, one module per provider."""
