"""Text and a language model → an activation store."""
