"""Known features in superposition."""
