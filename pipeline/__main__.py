"""python -m pipeline: the console command without installing it."""

from pipeline.cli import main

main()
