"""Rebuilds the sandbox's weights, and measures its adaptors."""
