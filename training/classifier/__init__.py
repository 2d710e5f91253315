"""``fair-adaptors train-classifier``: data, model, training and card."""
