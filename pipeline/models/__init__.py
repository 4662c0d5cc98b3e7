"""Language models: their files, hook points and sizes, and a forward pass that captures, edits and stops early."""
