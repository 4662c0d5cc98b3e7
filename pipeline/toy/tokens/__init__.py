"""Eight tokens."""
