"""The classifiers of the paper's authors by name, out of their data.zip: those to train against, and those for tests.

Their files are state dicts of a MobileNetV3-Large. Class order and columns are those of their
``eval-generated-images.py`` and of ``get_face_gender`` and ``get_face_gender_race`` in their training scripts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fair_adaptors.attributes import labels
from fair_adaptors.hub.parts import KIND, Part, find_part, unpacked

from .types import Classifier


@dataclass(frozen=True)
class AuthorsClassifier(Part):
    """A classifier of the authors'.

    Attributes:
        attributes: what it tells, in the order of its outputs.
        margin: of ``Classifier``. For all of theirs the authors cut faces out 1.5 times as wide as their boxes.
    """

    attributes: tuple[str, ...]
    margin: float = 0.5

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Names of the classes of each attribute, in index order; known without the file."""
        return {name: tuple(labels()[name]) for name in self.attributes}


_TRAINED, _TEST = "2-trained-classifiers", "5-trained-test-classifiers"

AUTHORS_CLASSIFIERS: Mapping[str, AuthorsClassifier] = {
    "gender": AuthorsClassifier(
        f"{_TRAINED}/CelebA_MobileNetLarge_08060852/epoch=9-step=12660_MobileNetLarge.pt",
        "trained on CelebA; 40 attributes with two outputs each, of which gender is number 20",
        ("gender",),
    ),
    "gender-race": AuthorsClassifier(
        f"{_TRAINED}/fairface_MobileNetLarge_GenderRace4_09041216/epoch=9-step=3380_MobileNetLarge.pt",
        "trained on FairFace; two outputs of gender, four of race",
        ("gender", "race"),
    ),
    "gender-race-age": AuthorsClassifier(
        f"{_TRAINED}/fairface_MobileNetLarge_GenderRace4Age2_09151907/epoch=9-step=3380_MobileNetLarge.pt",
        "trained on FairFace; two outputs of gender, four of race, two of age",
        ("gender", "race", "age"),
    ),
    "test-gender": AuthorsClassifier(
        f"{_TEST}/CelebA-MobileNetLarge-Gender-09191318/epoch=19-step=25320_MobileNetLarge.pt",
        "for evaluation; trained on CelebA",
        ("gender",),
    ),
    "test-race": AuthorsClassifier(
        f"{_TEST}/fairface-MobileNetLarge-Race4-09191318/epoch=19-step=6760_MobileNetLarge.pt",
        "for evaluation; trained on FairFace",
        ("race",),
    ),
    "test-age": AuthorsClassifier(
        f"{_TEST}/fairface-MobileNetLarge-Age2-09191319/epoch=19-step=6760_MobileNetLarge.pt",
        "for evaluation; trained on FairFace",
        ("age",),
    ),
}
"""By the name behind ``authors:``."""


def authors_classifier(name: str) -> Classifier:
    """Load a classifier of the authors'; their archive is fetched if it is not in the cache.

    Args:
        name: of ``AUTHORS_CLASSIFIERS``.

    Raises:
        ConfigError: there is none of that name, or its file is not as it should be.
        ArchiveError: the archive cannot be had.
    """
    from .mobilenet_classifier import mobilenet_classifier

    row = find_part(AUTHORS_CLASSIFIERS, name, of="classifier")
    # A file with two outputs does not say of which attribute they are.
    alone = f"{row.attributes[0]}:" if len(row.attributes) == 1 else ""
    return replace(mobilenet_classifier(f"{alone}{unpacked(row)}"), name=f"{KIND}:{name}", margin=row.margin)


def classifiers_for_tests(attributes: Iterable[str]) -> str:
    """Return the word for the authors' classifiers for tests of some attributes, as ``load_classifier`` takes it."""
    return "+".join(f"{KIND}:test-{attribute}" for attribute in attributes)
