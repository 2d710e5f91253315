"""Prompt sets: the package's own lists, and files of the user's."""
