"""The sandbox's instruments for an evaluation, and how far what they say is from the truth."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from fair_adaptors.adaptor.results_settings import Calibration
from fair_adaptors.devices import accelerator
from fair_adaptors.errors import ConfigError
from fair_adaptors.evaluation.metrics import bias
from fair_adaptors.evaluation.spec import Instruments, Kept
from fair_adaptors.vision.types import Classifier, Encoder, Logits

from .prompts import ATTRIBUTES, OCCUPATIONS, ROLES, SECTORS, occupations

if TYPE_CHECKING:
    from torch import Tensor

Which = Literal["evaluation", "training", "blends"]
_CHOICES = " or ".join(f"sandbox:{which}" for which in get_args(Which))
KEPT = "right occupation"
SIDE = 64
"""Pixels along a side of a portrait."""


def instruments() -> Instruments:
    """Return both classifiers, the one that no adaptor was trained against first, and what tells the occupation."""
    both = classifier("evaluation"), classifier("training")
    return Instruments(both, (encoder(),), kept=Kept(KEPT, right), calibrate=calibrate)


def classifier(which: str) -> Classifier:
    """Return the ``evaluation`` classifier, or one of those that adaptors are trained against.

    Raises:
        ConfigError: another name.
    """
    if which not in get_args(Which):
        raise ConfigError(f"the sandbox has no classifier {which!r}; choose {_CHOICES}")
    from .classifiers import load_classifier

    network = load_classifier(which).to(accelerator())  # type: ignore[arg-type]
    return Classifier(f"sandbox:{which}", _identity(which), ATTRIBUTES, lambda images: network(_fitted(images)))


def encoder(which: str = "") -> Encoder:
    """Return the features of the evaluation classifier, which training does not use.

    Args:
        which: ``portraits`` for the encoder that adaptors are trained to please instead.

    Raises:
        ConfigError: another name.
    """
    if which == "portraits":
        return _training_encoder()
    if which:
        raise ConfigError(f"the sandbox has no encoder {which!r}; choose sandbox or sandbox:portraits")
    from torch.nn.functional import normalize

    from .classifiers import load_classifier

    network = load_classifier("evaluation").to(accelerator())
    return Encoder(
        "sandbox", _identity("evaluation"), lambda images: normalize(network.features(_fitted(images)), dim=1)
    )


def _training_encoder() -> Encoder:
    """Return what sees scene, occupation and nuisances."""
    from .classifiers import load_encoder

    encoder = load_encoder().to(accelerator())
    return Encoder("sandbox:portraits", _identity("encoder"), lambda images: encoder(_fitted(images)))


def _fitted(images: "Tensor") -> "Tensor":
    """Return images as the networks take them: on their device, 64×64."""
    from torch.nn.functional import interpolate

    images = images.to(accelerator())
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    return interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)


def right(label: str, logits: Logits) -> np.ndarray:
    """Return 1 where sector and role are those that the label ends with, [N]; NaN if it ends with no occupation."""
    name = " ".join(label.split()[-2:])
    if name not in OCCUPATIONS:
        return np.full(len(logits["sector"]), np.nan, np.float32)
    sector, role = name.split()
    seen = {name: logits[name].argmax(1).cpu().numpy() for name in ("sector", "role")}
    found = (seen["sector"] == SECTORS.index(sector)) & (seen["role"] == ROLES.index(role))
    return found.astype(np.float32)


def calibrate(labels: Sequence[str], *, images_per_prompt: int = 64) -> dict[str, dict[str, Calibration]]:
    """Measure rendered portraits, whose truth is known, as an evaluation would; say how far the figures are off.

    Args:
        labels: the prompts' labels; those that end with an occupation are rendered, the test's if there are none.
        images_per_prompt: portraits of each, drawn from the world's own, biased, distribution.

    Returns:
        By classifier and attribute: the true and the measured bias, and in what share the images of each class were
        given to each.
    """
    import torch

    from . import world
    from .renderer import render

    known = [name for name in (" ".join(label.split()[-2:]) for label in labels) if name in OCCUPATIONS]
    names = list(dict.fromkeys(known)) or list(occupations("test"))
    generator = torch.Generator().manual_seed(0)
    pairs = [name.split() for name in names for _ in range(images_per_prompt)]
    sector = torch.tensor([SECTORS.index(pair[0]) for pair in pairs])
    role = torch.tensor([ROLES.index(pair[1]) for pair in pairs])
    people = world.sample_people(sector, role, generator=generator)
    chunks = torch.arange(len(people)).split(256)
    portraits = torch.cat([render(people[chunk]) for chunk in chunks])
    truth = {name: getattr(people, name).numpy() for name in ATTRIBUTES}
    return {
        one.name: _errors(one, portraits, truth, (len(names), images_per_prompt)) for one in instruments().classifiers
    }


def _errors(
    one: Classifier, portraits: "Tensor", truth: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> dict[str, Calibration]:
    import torch

    with torch.no_grad():
        logits = [one.logits(batch) for batch in portraits.split(256)]
    found = {}
    for name, classes in ATTRIBUTES.items():
        said = torch.cat([chunk[name].argmax(1) for chunk in logits]).numpy()
        number = len(classes)
        table = np.bincount(truth[name] * number + said, minlength=number**2).reshape(number, number)
        true, measured = (
            float(bias((seen.reshape(shape)[..., None] == np.arange(number)).mean(1)).mean())
            for seen in (truth[name], said)
        )
        with np.errstate(invalid="ignore"):  # few prompts may show nobody of a class
            shares = table / table.sum(1, keepdims=True)
        confusion = tuple(tuple(row) for row in shares.tolist())
        found[name] = Calibration(tuple(classes), true, measured, measured - true, confusion)
    return found


def _identity(which: str) -> str:
    from .pipeline import WEIGHTS

    return hashlib.sha256((WEIGHTS / "classifiers" / f"{which}.safetensors").read_bytes()).hexdigest()
