"""A real photograph with a face."""

import numpy as np
import torch
from PIL import Image


def photograph(size: int = 256) -> torch.Tensor:
    """A part of a real photograph, which matplotlib brings along, [1, 3, size, size]."""
    from matplotlib.cbook import get_sample_data

    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as file:
        pixels = np.asarray(file.convert("RGB").crop((0, 0, 512, 512)).resize((size, size), Image.Resampling.BOX))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
