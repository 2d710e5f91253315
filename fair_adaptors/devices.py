"""Where models run and in which precision: the one place that decides."""

import os
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import torch

PRECISIONS = ("float32", "bfloat16", "float16")
_chosen: str | None = None


def accelerator() -> str:
    """Return the device of this process: the one that was chosen, the accelerator that torchrun gave it, or the CPU.

    An accelerator is what torch calls so: CUDA and ROCm, Apple's MPS, Intel's XPU and others.
    """
    import torch

    if _chosen is not None:
        return _chosen
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if found is None else f"{found.type}:{os.environ.get('LOCAL_RANK', '0')}"


def choose_device(device: str | None) -> None:
    """Let this process run its models on a device from now on, such as ``cuda:1``, ``mps`` or ``cpu``.

    Args:
        device: None for what ``accelerator`` finds.

    Raises:
        ConfigError: torch cannot use it here.
    """
    global _chosen
    import torch

    if device is not None:
        try:
            torch.zeros(1, device=device).item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # whatever torch lacks says it otherwise
            reason = str(error).strip().partition("\n")[0][:200]
            if "device string" in reason or "device type" in reason:  # torch names two dozen that nobody has
                reason = "write cuda, cuda:1, xpu, mps or cpu"
            raise ConfigError(f"device {device!r} cannot be used here: {reason}") from error
    _chosen = device


def weights_dtype(name: str | None, device: str) -> "torch.dtype":
    """Return the precision of a base's weights: half on an accelerator and float32 on the CPU, unless one is named.

    Raises:
        ConfigError: no such precision.
    """
    import torch

    if name is not None and name not in PRECISIONS:
        raise ConfigError(f"no dtype {name!r}.{did_you_mean(name, PRECISIONS)} Known: {', '.join(PRECISIONS)}")
    found: Any = getattr(torch, name or ("float32" if device == "cpu" else "float16"))
    return found


def has_float64(device: "torch.device | str") -> bool:
    """Whether a device computes in double precision; Apple's does not."""
    import torch

    return torch.device(device).type != "mps"
