"""The table of known adaptors: the only list of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import UnknownAdaptorError, did_you_mean

EMBEDDED = Path(__file__).parent / "sandbox" / "adaptors"
STABLE_DIFFUSION_1_5 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@dataclass(frozen=True)
class AdaptorInfo:
    """A known adaptor.

    Attributes:
        name: what ``load_fair_adaptor`` takes.
        summary: what it does, one sentence.
        attributes: what it makes fair.
        base_model: the base it was made for.
        status: ``embedded`` in this package, ``published`` on the Hub, or ``planned``: nobody has yet.
        trained_parts: parts of the pipeline it changes.
        repo_id, revision: where it is published, and the commit.
    """

    name: str
    summary: str
    attributes: tuple[str, ...]
    base_model: str
    status: Literal["embedded", "published", "planned"] = "planned"
    trained_parts: tuple[str, ...] = ("text_encoder",)
    repo_id: str | None = None
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder of an embedded adaptor."""
        return EMBEDDED / self.name if self.status == "embedded" else None


ADAPTORS: tuple[AdaptorInfo, ...] = (
    AdaptorInfo(
        "sandbox-gender", "Portraits of the sandbox: half women, half men.", ("gender",), "sandbox", "embedded"
    ),
    AdaptorInfo(
        "sandbox-gender-tone",
        "Portraits of the sandbox: half women, half men, and four skin tones alike, jointly.",
        ("gender", "tone"),
        "sandbox",
        "embedded",
    ),
    AdaptorInfo("gender", "People of both genders alike.", ("gender",), STABLE_DIFFUSION_1_5),
    AdaptorInfo("race", "People of four groups of race alike.", ("race",), STABLE_DIFFUSION_1_5),
    AdaptorInfo("gender-race", "Gender and race alike, jointly.", ("gender", "race"), STABLE_DIFFUSION_1_5),
    AdaptorInfo(
        "gender-race-age",
        "Gender and race alike, jointly, with 75 % young and 25 % old.",
        ("gender", "race", "age"),
        STABLE_DIFFUSION_1_5,
    ),
    AdaptorInfo(
        "gender-race-many-concepts",
        "Gender and race alike, in occupations, sports, styles and descriptions.",
        ("gender", "race"),
        STABLE_DIFFUSION_1_5,
    ),
)

_BY_NAME: Mapping[str, AdaptorInfo] = {info.name: info for info in ADAPTORS}


def list_adaptors() -> tuple[AdaptorInfo, ...]:
    """List all known adaptors, embedded ones first."""
    return ADAPTORS


def find(name: str) -> AdaptorInfo:
    """Return the adaptor of that name.

    Raises:
        UnknownAdaptorError: none, with the closest name.
    """
    if name not in _BY_NAME:
        raise UnknownAdaptorError(
            f"there is no adaptor {name!r}.{did_you_mean(name, _BY_NAME)} Known: {', '.join(_BY_NAME)}."
        )
    return _BY_NAME[name]


def default_for(pipe: Any) -> AdaptorInfo:
    """Return the first adaptor in the table for the pipeline's base.

    Embedded adaptors are matched by the shapes of the base, others by the name it was loaded from.

    Raises:
        UnknownAdaptorError: no adaptor is known for this base.
    """
    from .formats import CONFIG_FILE, read_config, shape_signature

    signature = shape_signature(pipe)
    origin = str(pipe.config.get("_name_or_path") or "")
    for info in ADAPTORS:
        if info.base_model == origin:
            return info
        # A checkout in which the sandbox is being built has no embedded adaptors yet.
        if info.folder and (info.folder / CONFIG_FILE).is_file():
            if read_config(info.folder)["base_signature"] == signature:
                return info
    raise UnknownAdaptorError(
        f"no adaptor is known for this base ({origin or type(pipe).__name__}). Name one: load_fair_adaptor(pipe,"
        " 'folder or Hub id'); `fair-adaptors list` shows the known ones"
    )
