"""A run as a user sees it: checkpoints, validation, several processes, trackers."""
