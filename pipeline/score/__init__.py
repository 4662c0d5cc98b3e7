"""Feature dictionaries → scores."""
