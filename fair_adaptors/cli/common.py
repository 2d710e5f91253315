"""What several commands share."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer

from fair_adaptors.adaptor.bases import BASES
from fair_adaptors.adaptor.registry import list_adaptors
from fair_adaptors.devices import PRECISIONS
from fair_adaptors.errors import ConfigError
from fair_adaptors.progress import waiting


def completed_by(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what offers names to a shell that completes a word."""

    def offer(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return offer


bases = completed_by(lambda: (base.short_name for base in BASES))
adaptors = completed_by(lambda: (info.name for info in list_adaptors()))

NAMES = ", ".join(base.short_name for base in BASES)
Device = Annotated[
    str | None, typer.Option(help="cuda, cuda:1, xpu, mps or cpu; the accelerator by default, if there is one.")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Precision of the base: float32, bfloat16 or float16; by default half precision on an accelerator.",
        autocompletion=completed_by(lambda: PRECISIONS),
    ),
]
Base = Annotated[str, typer.Option(help=f"{NAMES}, a pipeline's folder, or a Hub id.", autocompletion=bases)]
Variant = Annotated[str | None, typer.Option(help="Which of the base's files to take, such as fp16.")]
BaseConfig = Annotated[
    str | None,
    typer.Option(
        help="For a base that is one file: folder or Hub id of a similar pipeline, for the missing configuration."
    ),
]
Images = Annotated[int, typer.Option("-n", "--images-per-prompt", min=1, help="Images per prompt.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32, help="Seed of everything random.")]


def print_json(content: Any) -> None:
    """Print what programs read, on stdout."""
    import json

    print(json.dumps(content, indent=2, ensure_ascii=False))


def print_pairs(name: str, what: str, rows: Mapping[str, str]) -> None:
    """Print a table of two columns."""
    from rich.console import Console
    from rich.table import Table

    table = Table(name, what)
    for key, text in rows.items():
        table.add_row(key, text)
    Console().print(table)


def load_base(
    base: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    variant: str | None = None,
    base_config: str | None = None,
) -> Any:
    """Load a base by its name, on the accelerator if there is one; an embedded base is quicker on the CPU.

    Args:
        device, dtype: see ``choose_device`` and ``weights_dtype``.
        variant, base_config: see ``load_pipeline``.
    """
    from fair_adaptors.adaptor.bases import plugin_of
    from fair_adaptors.devices import accelerator, choose_device, weights_dtype
    from fair_adaptors.pipelines import half_precision, load_pipeline

    choose_device(device)
    if plugin_of(base) and dtype not in (None, "float32"):
        raise ConfigError(f"{base} is always float32: leave `dtype` out")
    place = "cpu" if device is None and plugin_of(base) else accelerator()
    with waiting(f"loading {base}"):
        if dtype is None and place != "cpu" and not plugin_of(base):
            dtype = half_precision(base)
        pipe = load_pipeline(base, dtype=weights_dtype(dtype, place), variant=variant, base_config=base_config)
        return pipe.to(place)


def quiet() -> None:
    """Silence bars for what takes no time, and notices that do not concern the user. Downloads keep their bars."""
    import gc
    import logging
    import os

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it where it is installed
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # some notices come while it is imported
    gc.disable()  # a fifth of the time to import them is spent on looking for garbage, and they leave none
    with waiting("loading torch, diffusers and transformers"):
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging
    gc.freeze()
    gc.enable()

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    from huggingface_hub import constants
    from huggingface_hub.utils import enable_progress_bars

    if not constants.HF_HUB_DISABLE_PROGRESS_BARS:  # transformers has switched those of downloads off too
        enable_progress_bars()
