"""unmix: extract activations, train feature dictionaries on them, score the dictionaries."""
