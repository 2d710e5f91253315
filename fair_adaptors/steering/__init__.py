"""Adaptors without training: for each image a class is drawn, and the call of the pipeline is changed to show it."""
