"""The method: sampling, targets, losses, per-step gradients, and the loop over them."""
