"""``make``: an adaptor without training, in a minute, of any base whose text encoders can be read."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from fair_adaptors.adaptor.bases import base_place, plugin_of
from fair_adaptors.adaptor.folder import read_adaptor, write_adaptor
from fair_adaptors.adaptor.record import CARD_FILE, is_text
from fair_adaptors.pipelines import load_pipeline, name_in_record
from fair_adaptors.prompts.sets import load_prompts
from fair_adaptors.report.card import card_of
from fair_adaptors.steering.edit import OWN_RIDGE, fit_edit
from fair_adaptors.steering.fitting import STRENGTH, fit_directions
from fair_adaptors.steering.states import lacking
from fair_adaptors.steering.words import parse_targets, targets_of

from .errors import ConfigError, did_you_mean
from .files import refuse_existing, written_aside

Method = Literal["directions", "edit", "words"]
METHODS: tuple[Method, ...] = get_args(Method)
MOST, LEAST = 64, 4
"""Prompts that it is made of; more are thinned out evenly."""
WITHOUT = ("vae", "safety_checker", "feature_extractor", "image_encoder")
"""Parts of a base that are not loaded; for directions and words, neither is the network."""


def make(
    base: Any,
    attributes: str | Sequence[str],
    *,
    out: str | Path,
    method: Method = "directions",
    prompts: str | Path | Sequence[str] | None = None,
    name: str | None = None,
    local_files_only: bool = False,
    on_texts: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Make an adaptor folder without training: of what the text encoders say, in seconds to a minute on a CPU.

    Args:
        base: a base's name, folder or Hub repository, of which only the text encoders are loaded, and for edits the
            network; or a pipeline.
        attributes: of the table, each as ``gender`` for equal shares or ``gender=0.6,0.4``.
        out: a new folder.
        method: ``directions`` moves what the text encoders say of each image's prompt to a class that is drawn for
            it. ``edit`` changes weights, so that a prompt gives what lies between the classes. ``words`` names the
            class in the prompt, and needs nothing of the base.
        prompts: neutral prompts to make it of, a set, a file or a list; the base's own for training by default. It is
            no use to name those that it will be measured with.
        name: the adaptor's; the name of ``out`` by default.
        local_files_only: download nothing.
        on_texts: called with the number of texts that were read and of all.

    Returns:
        The folder, with its card. ``load_fair_adaptor(pipe, folder)`` loads it.

    Raises:
        ConfigError: a setting cannot be used, ``out`` exists, or the base is of a family that cannot be read so.
    """
    out = Path(out).expanduser()
    refuse_existing(out)
    name = name or out.resolve().name
    if not is_text(name):
        raise ConfigError(f"the name {name!r} is not allowed: give up to 500 printable characters")
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r}.{did_you_mean(method, METHODS)} Known: {', '.join(METHODS)}")
    asked = [attributes] if isinstance(attributes, str) else list(attributes)
    if not asked:
        raise ConfigError("name at least one attribute, such as gender or race=0.4,0.2,0.2,0.2")
    targets = targets_of(parse_targets(asked, ", ".join(asked)))
    place = base_place(str(base)) if isinstance(base, str | Path) else str(base.config.get("_name_or_path") or "")
    chosen, labels, source = _neutral_prompts(prompts, place, list(targets))
    pipe = _loaded(base, place, method, local_files_only)
    total, done, started = (
        len(chosen) * (1 + sum(len(row.classes) for row in targets.values())),
        0,
        time.perf_counter(),
    )

    def read(count: int) -> None:
        nonlocal done
        on_texts(done := done + count, total)

    tensors, directions = {}, {}
    training: dict[str, Any] = {"method": method}
    if method == "edit":
        tensors = fit_edit(pipe, chosen, labels, targets, on_texts=read)
        training |= {"concepts": list(labels), "ridge": OWN_RIDGE}
    elif method == "directions":
        directions = fit_directions(pipe, chosen, labels, targets, on_texts=read)
    ranks = [len(one) for key, one in tensors.items() if key.endswith(".lora_A.weight")]
    ranks += [one.shape[1] for key, one in directions.items() if key.endswith(".down")]
    if method != "words":
        seconds = round(time.perf_counter() - started, 1)
        training |= {"prompt_set": source, "prompts": len(chosen), "seconds": seconds}
    with written_aside(out) as aside:
        write_adaptor(
            aside,
            tensors,
            directions=directions,
            name=name,
            pipe=pipe,
            base_model=name_in_record(place, pipe) or type(pipe).__name__,
            attributes=targets,
            rank=max(ranks, default=0),
            default_weight=STRENGTH if directions else 1.0,
            training=training,
        )
        read_adaptor(aside)  # what was written can be read
        (aside / CARD_FILE).write_text(card_of(aside), encoding="utf-8")
    return out


def _neutral_prompts(
    prompts: str | Path | Sequence[str] | None, base: str, attributes: Sequence[str]
) -> tuple[list[str], list[str], str]:
    """Return prompts that name no class of the attributes, with the label of each, and the name of their set."""
    found = load_prompts(prompts or ("train" if plugin_of(base) else "occupations-train"), base=base)
    every = [
        pair
        for pair, is_open in zip(
            zip(found.prompts, found.labels, strict=True), found.leaves_open(attributes), strict=True
        )
        if is_open
    ]
    if len(every) < LEAST:
        raise ConfigError(
            f"`prompts` has {len(every)} prompts that name no {' or '.join(attributes)}; give {LEAST} or more"
        )
    step = max(1.0, len(every) / MOST)
    chosen = [every[int(index * step)] for index in range(min(MOST, len(every)))]
    return [prompt for prompt, _ in chosen], [label for _, label in chosen], found.name


def _loaded(base: Any, place: str, method: Method, local_files_only: bool) -> Any:
    if not isinstance(base, str | Path):
        return base
    network = () if method == "edit" else ("unet", "transformer")
    settings: dict[str, Any] = {"dtype": "auto", "local_files_only": local_files_only}
    pipe = load_pipeline(place, **settings, without=(*WITHOUT, *network))
    if network and lacking(pipe):  # the network tells how many zeros stand for them
        pipe = load_pipeline(place, **settings, without=WITHOUT)
    return pipe
