"""The folder of an evaluation: where things lie in it, whose it is, and files that are whole or absent."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Protocol

from fair_adaptors.adaptor.modules import fingerprint
from fair_adaptors.adaptor.record import library_versions

from ..errors import ConfigError
from .spec import Evaluation, Instruments
from .variants import Variant

SETTINGS_FILE, RESULTS_FILE, IMAGES_FILE, TIMING_FILE = "settings.json", "results.json", "images.csv", "timing.json"
REPORT_FILE, PLOTS = "report.html", "plots"
FORMAT = "fair-adaptors evaluation 1"


def settings_of(pipe: Any, evaluation: Evaluation, instruments: Instruments) -> dict[str, Any]:
    """Return all that an evaluation's images and numbers follow from, but the variants."""
    scheduler = {key: repr(value) for key, value in sorted(pipe.scheduler.config.items())}
    return {
        "format": FORMAT,
        "base": evaluation.base,
        "base_fingerprint": fingerprint(pipe.components),
        "prompt_set": evaluation.prompts.name,
        "prompts": list(evaluation.prompts.prompts),
        "labels": list(evaluation.prompts.labels),
        "images_per_prompt": evaluation.images_per_prompt,
        "seed": evaluation.seed,
        "num_steps": evaluation.num_steps,
        "guidance_scale": evaluation.guidance_scale,
        "batch_size": evaluation.batch_size,
        "keep_images": evaluation.keep_images,
        "scheduler": type(pipe.scheduler).__name__,
        "scheduler_config": hashlib.sha256(json.dumps(scheduler).encode()).hexdigest()[:16],
        "instruments": instruments.identity,
        "versions": library_versions(),
    }


class Named(Protocol):
    """What has a folder of its own: a variant, or its results."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def identity(self) -> str:
        """What changes with anything that changes its images."""
        ...


def variant_folder(variant: Named) -> str:
    """Return the name of the folder of a variant's images: readable, and another one for other weights."""
    digest = hashlib.sha256(f"{variant.name}\n{variant.identity}".encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', variant.name)[:60]}-{digest[:8]}"


def image_path(variant: Named, prompt: int, image: int) -> str:
    """Return where an image lies in an evaluation's folder."""
    return f"images/{variant_folder(variant)}/{prompt:04d}/{image:04d}.png"


def record_path(out: Path, variant: Named, prompt: int) -> Path:
    """Return where the record of a prompt's images lies."""
    return out / "records" / variant_folder(variant) / f"{prompt:04d}.safetensors"


def record_mark(settings: dict[str, Any], variant: Variant) -> str:
    """Return what a record has to carry to be one of this evaluation and this variant."""
    content = json.dumps([settings, variant.name, variant.identity], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def claim(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Note the settings in the folder, or check that it is of the same ones.

    Raises:
        ConfigError: it is of others, or of something else altogether.
    """
    path = out / SETTINGS_FILE
    before = _read_settings(path)
    if before is not None and before != settings:
        if before.get("format") != FORMAT:
            raise ConfigError(f"{path} is not of an evaluation of this version of fair-adaptors. Name another --out")
        changed = [key for key in settings if before.get(key) != settings[key]]
        if not overwrite:
            raise ConfigError(
                f"{out} holds another evaluation, with other {', '.join(changed)}. Name another --out, or give it up"
                " with --overwrite"
            )
        for name in ("records", "images", PLOTS):
            _empty(out / name)
        for name in (RESULTS_FILE, IMAGES_FILE, TIMING_FILE, REPORT_FILE):
            (out / name).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def write_json(path: Path, content: Any) -> None:
    """Write JSON: whole, or not at all."""
    aside = path.with_name(f".{path.name}")
    aside.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(aside, path)


def _read_settings(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _empty(folder: Path) -> None:
    """Remove what is in a folder, which may be a link to one elsewhere."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
