"""Dictionary families: one file each."""
