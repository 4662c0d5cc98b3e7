"""Features as directions."""
