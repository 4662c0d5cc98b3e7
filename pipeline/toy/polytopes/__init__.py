"""The polytope lens."""
