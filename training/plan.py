"""What a run will do and need, before it does it: the dry run."""

import dataclasses
from collections.abc import Iterator
from importlib.util import find_spec

import torch

from fair_adaptors.adaptor.bases import find_base
from fair_adaptors.errors import install_hint, pip_install
from fair_adaptors.hub.client import split_revision
from fair_adaptors.hub.parts import KIND

from .config import TrainConfig
from .cost import hours, said
from .downloads import Download, downloads
from .engine.denoisers import denoiser_of
from .keeping import keeping
from .memory import Memory, memory, skeleton, trained_values
from .preflight import check, known_classes
from .prompt_sets import named_classes, prompt_sets
from .sharding import check_shares
from .speed import faster_by


@dataclasses.dataclass(frozen=True)
class Plan:
    """Counts of one iteration, an estimate of the memory, and what is fetched.

    Attributes:
        images: images per iteration, over all processes.
        rows: that go through the network per iteration without gradient, and with.
        iterations: how many.
        time: how long they take on the card that is here and on others, by docs/cost.md, a line.
        licence: that of the base and so of the adaptor, a line; empty for a base that is not known.
        trained: numbers that are trained; 0 for a base whose shapes are not known here.
        megabytes: of one process, by what needs them, and together; empty for such a base.
        kept: what stays as the original model shows it and what does not, a line each.
        downloads: what is fetched from the Hub.
        missing: what has to be there and is not.
    """

    images: int
    rows: tuple[float, float]
    iterations: int
    time: str
    licence: str
    trained: int
    megabytes: dict[str, float]
    kept: tuple[str, ...]
    downloads: tuple[Download, ...]
    missing: tuple[str, ...]


def make_plan(config: TrainConfig, num_processes: int = 1) -> Plan:
    """Plan a run. Nothing is computed and no weights are fetched.

    The memory of network and autoencoder is counted on torch's meta device.

    Raises:
        ConfigError, MissingExtraError: as ``check``.
    """
    check(config)
    check_shares(config, num_processes)
    steps = (config.num_steps + max(config.num_steps, config.max_steps)) / 2
    base = skeleton(config.shapes)
    branches = denoiser_of(base).branches(config.guidance_scale) if base else 1 + (config.guidance_scale > 1)
    images = config.prompts_per_step * config.images_per_prompt
    guided = 1 - config.unguided / config.iterations if config.unguided < config.iterations else 0.0
    rows = images * (1 + (branches - 1) * guided)
    taught = rows if config.unconditional_gradient else images
    passes = 1 + originals_made(config)
    local = -(-config.images_per_prompt // num_processes)
    return Plan(
        images,
        (rows * steps * passes, config.updates_per_rollout * taught * (config.gradient_steps or steps)),
        config.iterations,
        _time(config, num_processes, branches),
        _licence(config),
        trained_values(config, base) if base else 0,
        _rows(memory(config, base, local, branches, processes=num_processes)) if base else {},
        (*keeping(config, known_classes("classifier", config.classifier)), *_obeyed(config)),
        tuple(downloads(config)),
        _missing(config),
    )


def _time(config: TrainConfig, num_processes: int, branches: int = 2) -> str:
    known = find_base(split_revision(config.shapes)[0])
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    base = known.short_name if known else ""
    found = hours(config, base, originals_made(config), num_processes, branches=branches)
    told = said(found, card) + "; it may end earlier (`stop_below`)" * bool(found and config.stop_below)
    faster = faster_by(config, "cuda")
    return told + f"; not counted: {', '.join(faster)}, which an NVIDIA card is faster by" * bool(faster)


def _licence(config: TrainConfig) -> str:
    known = find_base(split_revision(config.shapes)[0])
    if not known:
        return ""
    only = ", for non-commercial use only" * ("non-commercial" in known.terms)
    return f"the base has the licence {known.terms}{only}; an adaptor is under that of its base"


def originals_made(config: TrainConfig) -> float:
    """Return the share of a run's images whose originals are made; those of the others were made before, and kept.

    Prompts of the authors' are taken for few.
    """
    if not config.originals_pool:
        return 1.0
    images = config.iterations * config.prompts_per_step * config.images_per_prompt
    total, made = sum(share for _, share in config.prompt_sets), 0.0
    for one in config.prompt_sets:
        if not one[0].startswith(f"{KIND}:"):
            (prompts,) = prompt_sets(dataclasses.replace(config, prompt_sets=(one,))).values()
            noises = len(prompts) * config.originals_pool * config.images_per_prompt
            made += min(one[1] / total, noises / images)
    return made


def _obeyed(config: TrainConfig) -> Iterator[str]:
    """Say how many prompts name a class that their images are to show."""
    named = named_classes(config)
    for attribute in config.attributes:
        count = sum(attribute.name in classes for classes in named.values())
        if count:
            prompts = "prompt that names" if count == 1 else "prompts that name"
            yield f"images of {count} {prompts} a class of {attribute.name} are to show it"


def _rows(found: Memory) -> dict[str, float]:
    """Return what is printed of the memory."""
    together = f"together, of the last {len(found.passing)} the largest: they come one at a time"
    return {**found.kept, **found.passing, together: found.total}


def _missing(config: TrainConfig) -> tuple[str, ...]:
    packages = {
        "wandb": ("wandb" in config.trackers, pip_install("wandb")),
        "bitsandbytes": (config.optimizer == "adamw8bit", install_hint("8bit")),
        "scipy": (True, install_hint("train")),
        "tensorboard": ("tensorboard" in config.trackers, install_hint("train")),
        "cv2": (config.faces.startswith("yunet"), install_hint("eval")),
        "onnx": (bool(config.face_weight), install_hint("eval")),
        "insightface": (config.faces == "insightface", pip_install("insightface", "onnxruntime")),
    }
    problems = [f"{name} ({how})" for name, (needed, how) in packages.items() if needed and not find_spec(name)]
    if config.dtype != "float32" and not torch.accelerator.is_available():
        problems.append(f"an accelerator: {config.dtype} is slow on a CPU")
    return tuple(problems)
