"""A training run as a user sees it: progress, pictures on the way, numbers before and after, an adaptor folder."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fair_adaptors.evaluation.grid import plain_grid
from fair_adaptors.evaluation.metrics import BiasEstimate, estimate_bias
from fair_adaptors.evaluation.run import classify, generate
from fair_adaptors.formats import write_adaptor
from fair_adaptors.load import load_fair_adaptor

from .config import TrainConfig
from .loop import StepResult, fit
from .recipes import Setting, load_setting

SAMPLE_PROMPTS, SAMPLE_IMAGES = 4, 8


def train(config: TrainConfig, out: Path, *, images_per_prompt: int = 32, console: Console | None = None) -> Path:
    """Train an adaptor and leave its folder, with pictures of the progress in ``samples/``.

    Args:
        out: the adaptor's folder; made if need be.
        images_per_prompt: for the numbers before and after, on the validation prompts and as many training prompts.
    """
    console = console or Console()
    out.mkdir(parents=True, exist_ok=True)
    setting = load_setting(config)
    before = _measure(setting, config, images_per_prompt)
    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.2f}  bias {task.fields[bias]}"),
        console=console,
    )
    recent: list[StepResult] = []
    started = time.perf_counter()
    with shown:
        task = shown.add_task(config.name, total=config.iterations, loss=float("nan"), bias="–")

        def on_step(iteration: int, result: StepResult) -> None:
            recent.append(result)
            del recent[:-10]
            bias = {name: sum(r.bias[name] for r in recent) / len(recent) for name in result.bias}
            loss = sum(r.loss for r in recent) / len(recent)
            shown.update(
                task, advance=1, loss=loss, bias=" ".join(f"{name} {value:.2f}" for name, value in bias.items())
            )

        def on_sample(iteration: int) -> None:
            folder = out / "samples"
            folder.mkdir(exist_ok=True)
            images = _generate(setting, config, setting.prompts[:SAMPLE_PROMPTS], SAMPLE_IMAGES)
            title = f"{config.name}, iteration {iteration}"
            plain_grid(images.flatten(0, 1), title=title, columns=SAMPLE_IMAGES, tile=96).save(
                folder / f"iteration_{iteration:05d}.png"
            )

        tensors = fit(setting, config, on_step=on_step, on_sample=on_sample)
    seconds = time.perf_counter() - started
    settings = dataclasses.asdict(config)
    del settings["attributes"]
    write_adaptor(
        out,
        tensors,
        name=config.name,
        pipe=setting.pipe,
        base_model=config.base,
        attributes={a.name: {"classes": list(a.classes), "target": list(a.target)} for a in config.attributes},
        rank=config.rank,
        training={**settings, "seconds": round(seconds, 1)},
    )
    with load_fair_adaptor(setting.pipe, out):
        after = _measure(setting, config, images_per_prompt)
    console.print(_table(before, after))
    console.print(f"{seconds / 60:.1f} minutes. The adaptor is in {out}: load_fair_adaptor(pipe, {str(out)!r})")
    return out


def _generate(setting: Setting, config: TrainConfig, prompts: Sequence[str], count: int) -> Any:
    return generate(
        setting.pipe,
        prompts,
        images_per_prompt=count,
        seed=config.seed,
        num_steps=config.num_steps,
        guidance_scale=config.guidance_scale,
    )


def _measure(setting: Setting, config: TrainConfig, count: int) -> dict[tuple[str, str], BiasEstimate]:
    """Estimate each attribute's bias on training and validation prompts, with the classifier that judges."""
    few = len(setting.validation_prompts)
    spread = [setting.prompts[i] for i in np.linspace(0, len(setting.prompts) - 1, few).round().astype(int)]
    result = {}
    for split, prompts in (("training", spread), ("validation", setting.validation_prompts)):
        probabilities = classify(_generate(setting, config, prompts, count), setting.judge)
        for attribute in config.attributes:
            result[split, attribute.name] = estimate_bias(probabilities[attribute.name])
    return result


def _table(before: dict[tuple[str, str], BiasEstimate], after: dict[tuple[str, str], BiasEstimate]) -> Table:
    table = Table("prompts", "bias of", "before", "after", "95 % interval", "noise floor")
    for (split, name), was in before.items():
        now = after[split, name]
        interval = f"{now.low:.2f}–{now.high:.2f}"
        table.add_row(split, name, f"{was.value:.2f}", f"{now.value:.2f}", interval, f"{now.floor:.2f}")
    return table
