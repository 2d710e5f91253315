"""The command line."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is being loaded is one line as well."""
    try:
        from .commands import main as run
    except KeyboardInterrupt:
        print("\nfair-adaptors: stopped. Nothing was written.", file=sys.stderr)
        sys.exit(130)
    run()


__all__ = ["main"]
