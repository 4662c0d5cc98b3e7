"""What other libraries keep dictionaries in: a file per format, which reads it and, where it can, writes it."""
