"""What is known of each single feature of a scored dictionary."""
