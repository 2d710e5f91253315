"""How many rows go through each model in an iteration of training: by formula, and counted on a tiny pipeline."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fair_adaptors.training.cost import Passes

FORMS: Mapping[str, Mapping[str, Any]] = {
    "published: one graph, checkpointed": {"all_steps": True, "checkpointed": ("network",)},
    "ours, all steps": {"all_steps": True},
    "ours, K steps": {},
    "ours, K steps, originals kept": {"originals": 0.0},
}
"""How the gradient can be had, as arguments of ``passes``."""


def count_passes(form: str, steps: int, gradient_steps: int, *, images: int = 4) -> dict[str, Passes]:
    """Run an iteration in one of ``FORMS`` on a tiny pipeline, and count the rows that go through each model."""
    import torch
    from fair_adaptors.training.config import Attribute, TrainConfig
    from fair_adaptors.training.engine import step
    from fair_adaptors.training.engine.batches import batch_at
    from fair_adaptors.training.engine.reference_images import ReferenceImages
    from fair_adaptors.training.engine.state import attached

    from benchmarks.gpu import build_setup, published_form

    setup, wanted = build_setup("sd15", True, torch.float32, torch.device("cpu")), FORMS[form]
    config = TrainConfig(
        "count",
        "tiny",
        (Attribute("gender", ("female", "male"), (0.5, 0.5)),),
        rank=2,
        prompt_sets=(("train", 1.0),),
        images_per_prompt=images,
        num_steps=steps,
        gradient_steps=0 if wanted.get("all_steps") else gradient_steps,
        images_per_call=2,
        images_per_decode=2,
    )
    unet, decoder = setup.pipe.unet, setup.pipe.vae.decoder
    watched = {
        "network": (unet, unet.up_blocks[-1].resnets[-1]),
        "decoder": (decoder, decoder.up_blocks[-1].resnets[-1]),
        "classifier": (setup.classifier, None),
        "encoder": (setup.encoders["clip"], None),
    }
    kept = wanted.get("originals") == 0.0
    ours, batch = step.accumulate_gradients, batch_at(config, setup.prompts, 0, 0)
    with tempfile.TemporaryDirectory() as folder, attached(setup, config) as state:
        references = ReferenceImages(Path(folder) if kept else None)
        if kept:
            step.train_step(setup, config, state, batch, references=references)  # which makes them
        if wanted.get("checkpointed"):
            step.accumulate_gradients = published_form(setup, config)  # type: ignore[assignment]
        counts = {name: _watch(*modules) for name, modules in watched.items()}
        try:
            step.train_step(setup, config, state, batch, references=references)
        finally:
            step.accumulate_gradients = ours
    return {name: read(images) for name, read in counts.items()}


def _watch(model: Any, block: Any) -> Callable[[int], Passes]:
    """Count the rows through a model, and through a block of it that checkpointing runs again.

    Returns:
        What turns the counts so far into those per image.
    """
    rows = dict.fromkeys(("plain", "graph", "block", "backward"), 0)

    def add(kind: str, tensor: Any) -> None:
        rows[kind] += len(tensor)

    def after(_model: Any, inputs: Any, output: Any) -> None:
        result = first_tensor(output)
        add("graph" if result.requires_grad else "plain", inputs[0])
        if result.requires_grad:
            result.register_hook(lambda gradient: add("backward", gradient))

    model.register_forward_hook(after)
    if block is not None:  # before it runs: checkpointing breaks off within the last operation it needs
        block.register_forward_pre_hook(lambda _block, inputs: add("block", inputs[0]))

    def read(images: int) -> Passes:
        again = 0 if block is None else rows["block"] - rows["plain"] - rows["graph"]
        return Passes(*(count / images for count in (rows["plain"], rows["graph"], again, rows["backward"])))

    return read


def first_tensor(output: Any) -> Any:
    """Return the first tensor in what a model returns."""
    import torch

    while not isinstance(output, torch.Tensor):
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    return output
