"""The table of known adaptors: the only list of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fair_adaptors.errors import UnknownAdaptorError, did_you_mean

from .bases import EMBEDDED, SANDBOX, STABLE_DIFFUSION_1_5, STABLE_DIFFUSION_2_1, STABLE_DIFFUSION_XL, find_base

if TYPE_CHECKING:
    from .results import Results

NAMESPACE = "FAIR_ADAPTORS_NAMESPACE"
"""Environment variable: a user or organisation of the Hub that has adaptors of the table under their names there. What
the table knows only a recipe for is then loaded from ``NAMESPACE/name``, as whoever published it there left it."""
AUTHORS = "https://github.com/sail-sg/finetune-fair-diffusion"
"""Page of the paper's authors, which links to their checkpoints."""


@dataclass(frozen=True)
class AdaptorInfo:
    """A known adaptor.

    Attributes:
        name: what ``load_fair_adaptor`` takes.
        summary: what it does, one sentence.
        attributes: what it makes fair.
        base_model: the base it was made for.
        status: ``embedded`` in this package, ``published`` on the Hub, or ``recipe-only``: nobody has published it.
        trained_parts: parts of the pipeline it changes.
        repo_id, revision: where it is published, and the commit.
        sha256: of its file of weights; of several, in the order of their names, with a plus between them.
        recipe: what ``fair-adaptors train`` makes it by.
        checkpoint: which of the paper authors' released checkpoints it can be converted from.
    """

    name: str
    summary: str
    attributes: tuple[str, ...]
    base_model: str
    status: Literal["embedded", "published", "recipe-only"] = "recipe-only"
    trained_parts: tuple[str, ...] = ("text_encoder",)
    repo_id: str | None = None
    revision: str | None = None
    sha256: str | None = None
    recipe: str | None = None
    checkpoint: str | None = None

    @property
    def base_models(self) -> tuple[str, ...]:
        """All names of the base."""
        base = find_base(self.base_model)
        return base.names if base else (self.base_model,)

    @property
    def licence(self) -> str | None:
        """The licence that it is under, as the Hub spells it."""
        base = find_base(self.base_model)
        return base.licence if base else None

    @property
    def folder(self) -> Path | None:
        """The folder of an embedded adaptor, with its results and its card."""
        return EMBEDDED / self.name if self.status == "embedded" else None

    @property
    def results(self) -> "Results | None":
        """What was measured, of its ``results.json``; None if that is not in this package."""
        from .results_file import read_results

        return read_results(self.folder) if self.folder else None

    @property
    def how_to_get(self) -> str:
        """What it takes to have it, one sentence without a full stop."""
        if self.status == "embedded":
            return "nothing: it comes with this package"
        if self.repo_id is not None:
            at = f", commit {self.revision[:12]}" if self.revision else ""
            return f"a download: it is {self.repo_id} on the Hub{at}"
        ways = [f"train it (`fair-adaptors train {self.recipe}`)"] if self.recipe else []
        if self.checkpoint:
            ways.append(
                f"convert the paper authors' checkpoint {self.checkpoint!r}, linked from {AUTHORS} (`fair-adaptors"
                f" convert FILE --name {self.name} --out {self.name}`)"
            )
        return " or ".join(ways) or "its weights, which nobody has published"


def _of_recipe(
    name: str,
    summary: str,
    checkpoint: str | None,
    attributes: tuple[str, ...] = ("gender",),
    base_model: str = STABLE_DIFFUSION_1_5,
    *,
    parts: tuple[str, ...] = ("text_encoder",),
) -> AdaptorInfo:
    return AdaptorInfo(name, summary, attributes, base_model, trained_parts=parts, recipe=name, checkpoint=checkpoint)


ADAPTORS: tuple[AdaptorInfo, ...] = (
    AdaptorInfo(
        "sandbox-gender",
        "Portraits of the sandbox: half women, half men.",
        ("gender",),
        SANDBOX,
        "embedded",
        sha256="053ac23b3ea1a015eaf65e2a0facb4124b6f648993975c7523de31faf0d2f9a8",
        trained_parts=("text_encoder", "unet"),
        recipe="sandbox-gender",
    ),
    AdaptorInfo(
        "sandbox-gender-tone",
        "Portraits of the sandbox: half women, half men, and four skin tones alike, jointly.",
        ("gender", "tone"),
        SANDBOX,
        "embedded",
        sha256="4ef9207d6d2717433515534d237158f3fd7185758cd94033a93fc4ba9cc66e5e",
        trained_parts=("text_encoder", "unet"),
        recipe="sandbox-gender-tone",
    ),
    _of_recipe("gender", "People of both genders alike.", "gender, text encoder"),
    _of_recipe("race", "People of four groups of race alike.", "race", ("race",)),
    _of_recipe("gender-race", "Gender and race alike, jointly.", "gender and race", ("gender", "race")),
    _of_recipe(
        "gender-race-age",
        "Gender and race alike, jointly, with 75 % young and 25 % old.",
        "gender, race and age",
        ("gender", "race", "age"),
    ),
    _of_recipe(
        "gender-race-many-concepts",
        "Gender and race alike, in occupations, sports, styles and descriptions.",
        "gender and race, many concepts",
        ("gender", "race"),
    ),
    _of_recipe("gender-unet", "People of both genders alike, by the U-Net.", "gender, U-Net", parts=("unet",)),
    _of_recipe(
        "gender-both",
        "People of both genders alike, by text encoder and U-Net.",
        "gender, text encoder and U-Net",
        parts=("text_encoder", "unet"),
    ),
    _of_recipe(
        "gender-tokens", "People of both genders alike, by soft tokens.", "gender, soft tokens", parts=("tokens",)
    ),
    _of_recipe("sd21-gender-race", "Gender and race alike, jointly.", None, ("gender", "race"), STABLE_DIFFUSION_2_1),
    _of_recipe(
        "sdxl-gender-race",
        "Gender and race alike, jointly.",
        None,
        ("gender", "race"),
        STABLE_DIFFUSION_XL,
        parts=("text_encoder", "text_encoder_2"),
    ),
)

_BY_NAME: Mapping[str, AdaptorInfo] = {info.name: info for info in ADAPTORS}


def list_adaptors() -> tuple[AdaptorInfo, ...]:
    """List all known adaptors, embedded ones first; see ``NAMESPACE`` for where others are looked for."""
    return tuple(map(_located, ADAPTORS))


def find(name: str) -> AdaptorInfo:
    """Return the adaptor of that name; see ``NAMESPACE`` for where it is looked for.

    Raises:
        UnknownAdaptorError: none, with the closest name.
    """
    if name not in _BY_NAME:
        raise UnknownAdaptorError(
            f"there is no adaptor {name!r}.{did_you_mean(name, _BY_NAME)} Known: {', '.join(_BY_NAME)}."
        )
    return _located(_BY_NAME[name])


def default_for(pipe: Any) -> AdaptorInfo:
    """Return the first adaptor in the table for the pipeline's base.

    Embedded adaptors are matched by the shapes of the base, others by a name it was loaded from.

    Raises:
        UnknownAdaptorError: no adaptor is known for this base.
    """
    from .modules import shape_signature
    from .record import CONFIG_FILE, read_record

    signature = shape_signature(pipe)
    origin = str(pipe.config.get("_name_or_path") or "")
    for info in list_adaptors():
        if origin in info.base_models:
            return info
        # A checkout in which the sandbox is being built has no embedded adaptors yet.
        if info.folder and (info.folder / CONFIG_FILE).is_file():
            if read_record(info.folder).base_signature == signature:
                return info
    raise UnknownAdaptorError(
        f"no adaptor is known for this base ({origin or type(pipe).__name__}). Name one: load_fair_adaptor(pipe,"
        " 'folder or Hub id'); `fair-adaptors list` shows the known ones"
    )


def _located(info: AdaptorInfo) -> AdaptorInfo:
    namespace = os.environ.get(NAMESPACE)
    if not namespace or info.status != "recipe-only":
        return info
    return replace(info, status="published", repo_id=f"{namespace}/{info.name}")
