"""What makes a vision model's input of images: what its image processor does, in torch, with gradients.

Processors resize with Pillow, which rounds to whole bytes after each of its two passes. ``resize_like_pillow`` finds
the same bytes, and lets gradients pass as if nothing were rounded.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fair_adaptors.devices import has_float64
from fair_adaptors.errors import ConfigError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FILTERS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters that are known here (``PIL.Image.Resampling``), and torch's names of them."""
_REACH = {"bilinear": 1.0, "bicubic": 2.0}
_FIXED_POINT = 2**22  # by which Pillow multiplies its weights, to add whole numbers: PRECISION_BITS of Resample.c
_LARGEST_BYTE = 255.0


def load_preparation(
    source: str, device: "torch.device", *, revision: str | None = None, whole: bool = False
) -> "tuple[Callable[[Tensor], Tensor], str]":
    """Return what makes a model's input of images [N, 3, H, W] in [0, 1], and that in words.

    Args:
        source: folder or Hub id of the model, with its preprocessor_config.json.
        device: where the input is wanted.
        revision: commit on the Hub.
        whole: resize the whole image to the model's input and round nothing, as in the published training. Else the
            input is the processor's own: of an oblong image, and of all that DINOv2 sees, the middle.

    Raises:
        ConfigError: it cannot be loaded, or does what is not known here.
    """
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source} cannot be loaded: {first_line(error)}") from error
    prepare = preparation(processor, source, device, whole=whole)
    return prepare, f"{'whole' if whole else 'as its processor'} {processor.to_json_string()}"


def preparation(
    processor: Any, source: str, device: "torch.device", *, whole: bool = False
) -> "Callable[[Tensor], Tensor]":
    """Return a function that does to images [N, 3, H, W] in [0, 1] what an image processor of transformers does.

    Args:
        source: the model's name, for errors.
        device, whole: as for ``load_preparation``.

    Raises:
        ConfigError: the processor does what is not known here.
    """
    import torch

    size, crop = processor.size, processor.crop_size if processor.do_center_crop else None
    if processor.do_resize and processor.resample not in FILTERS:
        raise ConfigError(f"{source} resizes images by Pillow's filter {processor.resample}; known: {FILTERS}")
    kernel = FILTERS.get(processor.resample, "bicubic")
    factor = _LARGEST_BYTE * processor.rescale_factor if processor.do_rescale else _LARGEST_BYTE
    normal = bool(processor.do_normalize)
    mean, deviation = (
        torch.tensor(values, device=device)[:, None, None]
        for values in ((processor.image_mean, processor.image_std) if normal else ([0.0] * 3, [1.0] * 3))
    )

    exact = device if has_float64(device) else "cpu"

    def as_processor(images: "Tensor") -> "Tensor":
        levels = as_bytes(images.to(exact).double() * _LARGEST_BYTE)
        if processor.do_resize:
            levels = resize_like_pillow(levels, _resized(size, *images.shape[-2:]), kernel)
        if crop is not None:
            levels = _centre_crop(levels, crop["height"], crop["width"])
        done = levels / _LARGEST_BYTE
        return _normalised(done if exact == device else done.float().to(device), images)

    def of_the_whole(images: "Tensor") -> "Tensor":
        height, width = (crop["height"], crop["width"]) if crop is not None else _resized(size, 1, 1)
        resized = torch.nn.functional.interpolate(images.to(device), (height, width), mode=kernel, antialias=True)
        return _normalised(resized.clamp(0, 1), images)

    def _normalised(images: "Tensor", like: "Tensor") -> "Tensor":
        return ((images * factor - mean) / deviation).to(like.dtype)

    _compare(processor, source, as_processor, step=float(factor / _LARGEST_BYTE / deviation.min()))
    return of_the_whole if whole else as_processor


def resize_like_pillow(levels: "Tensor", size: tuple[int, int], kernel: str) -> "Tensor":
    """Resize as ``PIL.Image.resize`` does, to the byte; the gradient is that of the filter without its roundings.

    Both passes of Pillow (``ImagingResampleHorizontal_8bpc`` and ``…Vertical_8bpc`` of its Resample.c) add products of
    whole numbers. As float64 they are exact, so that they can be products of matrices.

    Args:
        levels: whole numbers 0…255 as float64, [N, 3, H, W].
        size: height and width.
        kernel: ``bilinear`` or ``bicubic``.
    """
    old_height, old_width = levels.shape[-2:]
    height, width = size
    rows = height != old_height, lambda x: as_bytes(_weights(x, old_height, height, kernel) @ x)
    columns = width != old_width, lambda x: as_bytes(x @ _weights(x, old_width, width, kernel).T)
    tall = _rows_first() and old_height - height > max(0, 2 * (old_width - width))
    for changes, resample in (rows, columns) if tall else (columns, rows):
        levels = resample(levels) if changes else levels
    return levels


def _rows_first() -> bool:
    """Tell whether this Pillow begins with the rows where an image loses most of its height (its #9549)."""
    import PIL

    return int(PIL.__version__.split(".")[0]) >= 13


def as_bytes(levels: "Tensor") -> "Tensor":
    """Round to whole numbers 0…255, half upwards; the gradient is that of bounding alone (straight-through)."""
    bounded = levels.clamp(0, _LARGEST_BYTE)
    return bounded + ((levels + 0.5).floor().clamp(0, _LARGEST_BYTE) - bounded).detach()


def _weights(like: "Tensor", length: int, size: int, kernel: str) -> "Tensor":
    """Return the weights [size, length] of old pixels in new ones, whole multiples of 2⁻²² that sum to about one.

    Source: ``precompute_coeffs`` and ``normalize_coeffs_8bpc`` of Pillow's Resample.c.
    """
    import torch

    scale = length / size
    widened = max(scale, 1.0)
    reach = _REACH[kernel] * widened
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    first = (centres - reach + 0.5).long().clamp(min=0)
    behind = (centres + reach + 0.5).long().clamp(max=length)
    pixels = torch.arange(length)
    weights = _kernel((pixels - centres[:, None] + 0.5) / widened, kernel)
    weights *= (pixels >= first[:, None]) & (pixels < behind[:, None])
    weights /= weights.sum(1, keepdim=True)
    rounded = weights.sign() * (weights.abs() * _FIXED_POINT + 0.5).floor()  # half away from zero
    return (rounded / _FIXED_POINT).to(like.device)


def _kernel(distance: "Tensor", kernel: str) -> "Tensor":
    """Return Pillow's filter: a triangle, or Keys' cubic with a = −1/2."""
    x = distance.abs()
    if kernel == "bilinear":
        return (1 - x).clamp(min=0)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return near.where(x < 1, far.where(x < 2, 0))


def _resized(size: Any, height: int, width: int) -> tuple[int, int]:
    """Return height and width of a resized image, as ``get_resize_output_image_size`` of transformers counts them."""
    if not size.get("shortest_edge"):
        return size["height"], size["width"]
    short, shorter, longer = size["shortest_edge"], min(height, width), max(height, width)
    long = int(short * longer / shorter)
    return (short, long) if height <= width else (long, short)


def _centre_crop(images: "Tensor", height: int, width: int) -> "Tensor":
    """Return the middle [N, 3, height, width]; black where an image is smaller, as transformers' ``center_crop``."""
    from torch.nn.functional import pad

    missing = [max(wanted - have, 0) for wanted, have in zip((height, width), images.shape[-2:], strict=True)]
    above, left = (math.ceil(amount / 2) for amount in missing)
    images = pad(images, (left, missing[1] - left, above, missing[0] - above))
    top, start = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, start : start + width]


def _compare(processor: Any, source: str, prepare: "Callable[[Tensor], Tensor]", *, step: float) -> None:
    """Check on a picture that nothing is forgotten of what a processor does; it may differ by one level of a byte.

    Raises:
        ConfigError: it does something else too.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (3, 300, 400), dtype=torch.uint8, generator=generator)
    expected = processor(picture.permute(1, 2, 0).numpy(), return_tensors="pt", input_data_format="channels_last")
    found = prepare(picture[None] / _LARGEST_BYTE).cpu()
    pixels = expected["pixel_values"]
    if pixels.shape != found.shape or (pixels - found).abs().max() > 1.01 * step:
        raise ConfigError(
            f"{source}: {type(processor).__name__} does more to images than resize, crop and normalise them; write a"
            " fair_adaptors.vision.types.Encoder or Classifier for it and name it MODULE:OBJECT"
        )
