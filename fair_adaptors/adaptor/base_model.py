"""What is to be said of a base model, in a row of the table of bases."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
        licence: as the Hub spells it; ``other`` where it has a name of its own. An adaptor is under that of its base.
        licence_name: that name.
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
    licence_name: str = ""

    @property
    def terms(self) -> str:
        """What its licence is called."""
        return self.licence_name or self.licence
