"""``python -m fair_adaptors``: the command line, for launchers that start modules."""

from .cli import main

main()
