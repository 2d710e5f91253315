"""The table of known adaptors: the only list of them."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fair_adaptors.errors import UnknownAdaptorError, WrongBaseError, did_you_mean
from fair_adaptors.families.table import family_of
from fair_adaptors.files import cache_folder

from . import archives
from .archives import ARCHIVES, Checkpoint
from .base_model import BaseModel
from .bases import (
    EMBEDDED,
    FLUX_1_DEV,
    FLUX_2_KLEIN,
    SANDBOX,
    STABLE_DIFFUSION_1_5,
    STABLE_DIFFUSION_2_1,
    STABLE_DIFFUSION_3_5_MEDIUM,
    STABLE_DIFFUSION_XL,
    Z_IMAGE_TURBO,
    find_base,
)
from .record import CONFIG_FILE, read_record

if TYPE_CHECKING:
    from .results import Results

NAMESPACE = "FAIR_ADAPTORS_NAMESPACE"
"""Environment variable: a user or organisation of the Hub that has adaptors of the table under their names there. What
the table knows only a recipe for is then loaded from ``NAMESPACE/name``, as whoever published it there left it."""
AUTHORS = "https://github.com/sail-sg/finetune-fair-diffusion"
"""Page of the paper's authors, which links to their checkpoints. Their code is under the MIT licence."""


@dataclass(frozen=True)
class AdaptorInfo:
    """A known adaptor.

    Attributes:
        name: what ``load_fair_adaptor`` takes.
        summary: what it does, one sentence.
        attributes: what it makes fair.
        base_model: the base it was made for.
        status: ``embedded`` in this package, ``published`` by the paper's authors or on the Hub, or ``recipe-only``:
            nobody has published it.
        trained_parts: parts of the pipeline it changes.
        repo_id, revision: where it is published, and the commit.
        sha256: of its file of weights; of several, in the order of their names, with a plus between them.
        recipe: what ``fair-adaptors train`` makes it by.
        checkpoint: where the paper's authors published it. It is fetched and converted on first use.
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
    checkpoint: Checkpoint | None = None

    @property
    def base_models(self) -> tuple[str, ...]:
        """All names of the base."""
        base = find_base(self.base_model)
        return base.names if base else (self.base_model,)

    @property
    def licence(self) -> str | None:
        """The licence that it is under."""
        base = find_base(self.base_model)
        return base.terms if base else None

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
        if self.checkpoint is not None:
            page = ARCHIVES[self.checkpoint.archive].page
            return f"a download, once: {self.checkpoint.member} in the authors' {self.checkpoint.archive} ({page})"
        return f"train it (`fair-adaptors train {self.recipe}`)" if self.recipe else "its weights, which nobody has"

    @property
    def is_here(self) -> bool:
        """Whether to load it takes no download: it comes with this package, or was converted into its cache."""
        return self.status == "embedded" or (folder_in_cache(self.name) / CONFIG_FILE).is_file()


def folder_in_cache(name: str, cache_dir: str | Path | None = None) -> Path:
    """Return where an adaptor that the authors published is in the cache, or would be."""
    return (cache_folder() if cache_dir is None else Path(cache_dir).expanduser()) / "adaptors" / name


def _published(
    name: str,
    summary: str,
    checkpoint: Checkpoint,
    attributes: tuple[str, ...] = ("gender",),
    *,
    parts: tuple[str, ...] = ("text_encoder",),
) -> AdaptorInfo:
    return AdaptorInfo(
        name,
        summary,
        attributes,
        STABLE_DIFFUSION_1_5,
        "published",
        trained_parts=parts,
        recipe=name,
        checkpoint=checkpoint,
    )


def _recipe(name: str, base: str, *parts: str) -> AdaptorInfo:
    """Return a row of what nobody has published."""
    summary, attributes = "Gender and race alike, jointly.", ("gender", "race")
    return AdaptorInfo(name, summary, attributes, base, trained_parts=parts, recipe=name)


ADAPTORS: tuple[AdaptorInfo, ...] = (
    AdaptorInfo(
        "sandbox-gender",
        "Portraits of the sandbox: half women, half men.",
        ("gender",),
        SANDBOX,
        "embedded",
        sha256="d568e77705f65fb14df1d70641dd89a805f76ceb4707e719d3f0d3451be27830",
        trained_parts=("text_encoder", "unet"),
        recipe="sandbox-gender",
    ),
    AdaptorInfo(
        "sandbox-gender-tone",
        "Portraits of the sandbox: half women, half men, and four skin tones alike, jointly.",
        ("gender", "tone"),
        SANDBOX,
        "embedded",
        sha256="560ed6cba8370026019e292d46e5fbb222488da471ef2027bf42fd2d7452fee8",
        trained_parts=("text_encoder", "unet"),
        recipe="sandbox-gender-tone",
    ),
    # The first of a base is its default.
    _published("gender-race", "Gender and race alike, jointly.", archives.GENDER_RACE, ("gender", "race")),
    _published(
        "gender-race-many-concepts",
        "Gender and race alike, in occupations, sports, styles and descriptions.",
        archives.MANY_CONCEPTS,
        ("gender", "race"),
    ),
    _published(
        "gender-race-age",
        "Gender and race alike, jointly, with 75 % young and 25 % old.",
        archives.GENDER_RACE_AGE,
        ("gender", "race", "age"),
    ),
    _published("race", "People of four groups of race alike.", archives.RACE, ("race",)),
    _published("gender", "People of both genders alike.", archives.TEXT_ENCODER),
    _published("gender-unet", "People of both genders alike, by the U-Net.", archives.UNET, parts=("unet",)),
    _published(
        "gender-both",
        "People of both genders alike, by text encoder and U-Net.",
        archives.BOTH,
        parts=("text_encoder", "unet"),
    ),
    _published("gender-tokens", "People of both genders alike, by soft tokens.", archives.TOKENS, parts=("tokens",)),
    _recipe("sd21-gender-race", STABLE_DIFFUSION_2_1, "text_encoder"),
    _recipe("sdxl-gender-race", STABLE_DIFFUSION_XL, "text_encoder", "text_encoder_2"),
    _recipe("sd35-gender-race", STABLE_DIFFUSION_3_5_MEDIUM, "transformer"),
    _recipe("flux-gender-race", FLUX_1_DEV, "transformer"),
    _recipe("klein-gender-race", FLUX_2_KLEIN, "transformer"),
    _recipe("z-image-gender-race", Z_IMAGE_TURBO, "transformer"),
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


def check_base(names: Iterable[str], base: str) -> None:
    """Refuse known adaptors that were made for another base than this embedded one, before they are fetched.

    Args:
        base: its name; what an adaptor for any other base fits, its shapes tell.

    Raises:
        WrongBaseError: one of them is for another base.
    """
    own = find_base(base)
    if own is None or own.plugin is None:
        return
    for info in (_BY_NAME[name] for name in names if name in _BY_NAME and not Path(name).exists()):
        if find_base(info.base_model) is not own:
            fitting = ", ".join(one.name for one in ADAPTORS if find_base(one.base_model) is own) or "none yet"
            raise WrongBaseError(
                f"{info.name} is for {info.base_model}, not for {base}. Give that base, or an adaptor for {base}:"
                f" {fitting}"
            )


def default_for(pipe: Any) -> AdaptorInfo:
    """Return the first adaptor in the table for the pipeline's base.

    The base is known by the name that it was loaded from. Else, as for a file or a model that was made from it, the
    shapes tell it.

    Raises:
        UnknownAdaptorError: no adaptor is known for this base.
    """
    from .modules import shape_signature

    origin = str(pipe.config.get("_name_or_path") or "")
    if named := next((info for info in list_adaptors() if origin in info.base_models), None):
        return named
    signature = shape_signature(pipe)
    for info in list_adaptors():
        # A checkout in which the sandbox is being built has no embedded adaptors yet.
        if info.folder and (info.folder / CONFIG_FILE).is_file():
            if read_record(info.folder).base_signature == signature:
                return info
        elif (base := find_base(info.base_model)) and _has_widths_of(pipe, base):
            return info
    raise UnknownAdaptorError(
        f"no adaptor is known for this base ({origin or type(pipe).__name__}). Name one: load_fair_adaptor(pipe,"
        " 'folder or Hub id'); `fair-adaptors list` shows the known ones"
    )


_WIDTHS = (
    *("hidden_size", "num_hidden_layers", "cross_attention_dim"),
    *("num_layers", "num_attention_heads", "joint_attention_dim", "guidance_embeds"),
)


def _has_widths_of(pipe: Any, base: BaseModel) -> bool:
    """Tell whether a pipeline's parts are as wide and deep as those of a published base."""
    family = family_of(pipe)
    return (
        bool(base.configurations)
        and family.name == base.family
        and all(
            getattr(model.config, key, None) == base.configurations[part][key]
            for part in family.parts
            if (model := getattr(pipe, part, None)) is not None
            for key in _WIDTHS
            if key in base.configurations[part]
        )
    )


def _located(info: AdaptorInfo) -> AdaptorInfo:
    namespace = os.environ.get(NAMESPACE)
    if not namespace or info.status != "recipe-only":
        return info
    return replace(info, status="published", repo_id=f"{namespace}/{info.name}")
