"""What every test may rely on: no network, no spinning threads, the same seed."""

import os
from pathlib import Path
from typing import Any

# Before torch and huggingface_hub are imported: both read these once.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Seeds torch's global generator, for the model initialisations that take no generator."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def pipe() -> Any:
    """A tiny Stable Diffusion pipeline."""
    from tests.tiny import tiny_pipeline

    return tiny_pipeline()


@pytest.fixture
def adaptor(tmp_path: Path, pipe: Any) -> Path:
    """The folder of an adaptor for it."""
    from tests.tiny import write_tiny_adaptor

    return write_tiny_adaptor(tmp_path / "adaptor", pipe)
