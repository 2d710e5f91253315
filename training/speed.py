"""What makes an NVIDIA card faster, by other roundings at most: on where it is asked for, and on such cards alone."""

import torch

from .config import TrainConfig
from .engine.families.denoiser import Denoiser

NAMES = ("tf32", "channels_last", "compile")


def faster_by(config: TrainConfig, device: torch.device | str) -> tuple[str, ...]:
    """Return which of ``NAMES`` a configuration asks for and a device is made faster by: on an NVIDIA card.

    Not ``channels_last`` where the base is split over the processes: there its weights have an order of their own.
    """
    if torch.device(device).type != "cuda":
        return ()
    asked = [name for name in NAMES if getattr(config, name)]
    return tuple(name for name in asked if name != "channels_last" or not config.shard_base)


def speed_up(names: tuple[str, ...], denoiser: Denoiser) -> None:
    """Do what ``faster_by`` returned, to the models that take the time."""
    if "tf32" in names:
        torch.set_float32_matmul_precision("high")
    if "channels_last" in names:
        for model in (denoiser.model, denoiser.autoencoder):
            model.to(memory_format=torch.channels_last)
    if "compile" in names:
        denoiser.model.compile()
