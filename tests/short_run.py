"""Trains and evaluates for half a minute on one thread, and prints the hashes of what comes out: ``short_run.py``.

``tests/data/short_run.json`` holds what it printed before the code was moved into its rooms. After a change that is
meant to change results, write it again: ``python -m tests.short_run > tests/data/short_run.json``.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from fair_adaptors.training.recipes import get_recipe
from fair_adaptors.training.run.train import train
from rich.console import Console
from safetensors.torch import load_file

from fair_adaptors.adaptor.record import WEIGHTS_FILE
from fair_adaptors.evaluation import evaluate
from fair_adaptors.evaluation.store import RESULTS_FILE
from fair_adaptors.evaluation.variants import with_adaptor
from fair_adaptors.sandbox.instruments import instruments
from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline
from tests.evaluated import small

SHORT = {"iterations": 3, "images_per_prompt": 8, "prompts_per_step": 1, "sample_every": 0, "save_every": 0}


def arithmetic() -> str:
    """Return a hash of what this processor and this torch make of a few layers: not every processor rounds alike."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 16, 16, generator=generator)
    weight = torch.randn(16, 8, 3, 3, generator=generator)
    y = torch.nn.functional.silu(torch.nn.functional.conv2d(x, weight, padding=1)).flatten(2).transpose(1, 2)
    y = torch.nn.functional.scaled_dot_product_attention(y, y, y) @ torch.randn(16, 16, generator=generator)
    y = torch.nn.functional.gelu(torch.nn.functional.layer_norm(y, (16,))).softmax(-1)
    return hashlib.sha256(torch.__version__.encode() + y.numpy().tobytes()).hexdigest()


def short_run(out: Path) -> dict[str, Any]:
    """Train and evaluate into ``out``; return the hashes, and figures that other processors come close to."""
    config = get_recipe("sandbox-gender", SHORT, [("age", (0.75, 0.25))])
    train(config, out / "adaptor", images_per_prompt=2, console=Console(quiet=True))
    variants = [with_adaptor(str(out / "adaptor"), label="short"), with_adaptor("sandbox-gender-tone", 0.5)]
    results = evaluate(
        load_sandbox_pipeline(), small(images_per_prompt=4, num_steps=4), variants, instruments(), out / "evaluation"
    )
    weights = out / "adaptor" / WEIGHTS_FILE
    biases = [results.figures(row, name).bias.value for row in results.variants for name in results.targets]
    return {
        "arithmetic": arithmetic(),
        "adaptor": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "results": hashlib.sha256((out / "evaluation" / RESULTS_FILE).read_bytes()).hexdigest(),
        "norm": sum(tensor.square().sum().item() for tensor in load_file(weights).values()) ** 0.5,
        "bias": biases,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        json.dump(short_run(Path(folder)), sys.stdout, indent=1)
