"""``python -m fair_adaptors``: the command line, for launchers that start modules."""

from fair_adaptors.cli import main

main()
