"""Exact labels: what the tokens of a text are, by functions of the text alone."""
