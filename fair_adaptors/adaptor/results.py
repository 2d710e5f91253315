"""What an evaluation measured, as typed records: the content of ``results.json``.

The fields are the keys of the file, see ``results_file``; docs/evaluation.md tells what they mean. A figure that is
not finite or cannot be told is NaN here and ``null`` in the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from .results_settings import Calibration, Settings


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; NaN for what there is none of."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class FlooredEstimate(Estimate):
    """A figure beside what a perfectly fair model would score."""

    floor: float


@dataclass(frozen=True)
class ClassShare(Estimate):
    """How often a class was seen, beside how often it should be."""

    target: float


@dataclass(frozen=True)
class PromptFigures:
    """What was seen for one prompt: images that count, and the share of each class, [K].

    Bias and total variation are NaN where the prompt names the class: it is to show that one.
    """

    images: int
    bias: Estimate
    total_variation: Estimate
    frequencies: tuple[float, ...]


@dataclass(frozen=True)
class PairedChange(Estimate):
    """After less before of a figure, and both, from the pairs of images with the same noise."""

    before: float
    after: float


@dataclass(frozen=True)
class ClassChange(PairedChange):
    """The change of a class's share."""


@dataclass(frozen=True)
class Shift(FlooredEstimate):
    """How far an attribute moved from the original: the mean over prompts of the total variation before to after.

    The floor is what is left when before and after are swapped at random within pairs: images that change their class
    without a direction.
    """

    floor_removed: Estimate


@dataclass(frozen=True)
class Change:
    """After less before, from images with the same noise, and the share of these that keep their class.

    ``classes`` has the change of each class's share over prompts, [K]; ``prompts`` for each prompt, [P][K], those too
    that name the class. ``effective_classes`` is None in older files.
    """

    bias: Estimate
    total_variation: Estimate
    same_class: float
    shift: Shift
    classes: tuple[ClassChange, ...]
    prompts: tuple[tuple[ClassChange, ...], ...]
    effective_classes: Estimate | None = None


@dataclass(frozen=True)
class Figures:
    """Every figure of one target, as one classifier sees one variant; ``change`` is None for the original.

    All but ``undetermined`` are over the prompts that leave the target open, see ``Results.open_prompts``.
    ``effective_classes`` is how many classes a prompt shows, from 1 to K, beside what shows the target's shares; None
    in older files.
    """

    bias: FlooredEstimate
    squared_bias: Estimate
    floor_removed: Estimate
    total_variation: FlooredEstimate
    divergence: FlooredEstimate
    frequencies: tuple[ClassShare, ...]
    worst_decile: FlooredEstimate
    undetermined: Estimate
    prompts: tuple[PromptFigures, ...]
    change: Change | None = None
    effective_classes: FlooredEstimate | None = None


@dataclass(frozen=True)
class Agreement:
    """Cohen's κ of two classifiers on one target."""

    classifiers: tuple[str, ...]
    target: str
    kappa: Estimate


@dataclass(frozen=True)
class Flips:
    """How often images change their class of an attribute: where another attribute's class changed too, and where not.

    Of pairs of images with the same noise, with a face in both.
    """

    attribute: str
    beside: str
    where_changed: Estimate
    where_same: Estimate


@dataclass(frozen=True)
class Erasure:
    """A class that has all but gone: over all prompts, or in one of them.

    Attributes:
        target: the attribute.
        class_name: the class.
        prompt: number of the prompt; None for all of them together.
        change: of its share, with the shares before and after.
        p_value: of the sign test on images that changed, after Holm's correction for all that was looked at.
    """

    target: str
    class_name: str
    prompt: int | None
    change: ClassChange
    p_value: float


@dataclass(frozen=True)
class WithinClass:
    """Distance of two images of a prompt that show the same class; ``change`` is None for the original.

    The change is over the classes of which both the original and the variant show two images or more.
    """

    distance: Estimate
    change: PairedChange | None = None


@dataclass(frozen=True)
class VariantResults:
    """What was measured of one variant; the figures by classifier and target, or by encoder.

    ``aimed`` names the targets that it was made for. ``kept`` is in what share of images the thing that should stay is
    right, ``kept_prompts`` the same for each prompt, [P]; None where nothing tells. ``text_prompts`` is the alignment
    with each prompt, [P] by encoder. ``flips`` and ``erasures`` compare with the original, as the first classifier
    that knows an attribute sees it. ``obeyed`` is by classifier and attribute, None where no prompt names one.
    ``diversity`` is the distance of two images of a prompt, ``within_class`` the same for each attribute.
    """

    name: str
    summary: str
    identity: str
    adaptor: str | None
    weight: float | None
    no_face: Estimate | None
    kept: Estimate | None
    kept_change: Estimate | None
    bias: Mapping[str, Mapping[str, Figures]]
    agreement: tuple[Agreement, ...]
    preservation: Mapping[str, Estimate]
    text_alignment: Mapping[str, Estimate]
    diversity: Mapping[str, Estimate]
    aimed: tuple[str, ...]
    flips: tuple[Flips, ...]
    erasures: tuple[Erasure, ...]
    kept_prompts: tuple[Estimate, ...] | None
    text_prompts: Mapping[str, tuple[Estimate, ...]]
    obeyed: Mapping[str, Mapping[str, Estimate]] | None = None
    diversity_change: Mapping[str, PairedChange] | None = None
    within_class: Mapping[str, Mapping[str, WithinClass]] | None = None


@dataclass(frozen=True)
class TargetClasses:
    """A target: its attributes, the names of its classes, or of their combinations, and the shares that are wanted.

    ``declared`` is whether somebody asked for these shares: the user, or an adaptor that was made for them. Otherwise
    they are equal and only what a bias is counted from, and nobody is to be moved towards them.
    """

    attributes: tuple[str, ...]
    classes: tuple[str, ...]
    shares: tuple[float, ...]
    declared: bool

    @property
    def is_uniform(self) -> bool:
        """Whether the shares are equal, so that a bias of 0 is what it asks for."""
        return max(self.shares) - min(self.shares) < 1e-6


@dataclass(frozen=True)
class Results:
    """All that an evaluation measured. The original model is the first of the variants.

    ``expected`` has the classes that each prompt names, [P] by attribute; it is empty where no prompt names any.
    """

    schema: int
    settings: Settings
    prompt_source: str
    labels: tuple[str, ...]
    versions: Mapping[str, str]
    classifiers: tuple[str, ...]
    encoders: tuple[str, ...]
    face_detector: str | None
    kept: str | None
    calibration: Mapping[str, Mapping[str, Calibration]] | None
    targets: Mapping[str, TargetClasses]
    variants: tuple[VariantResults, ...]
    expected: tuple[Mapping[str, str], ...] = ()

    @property
    def classifier(self) -> str:
        """The classifier whose figures are the headline: the first one."""
        return self.classifiers[0]

    @property
    def original(self) -> VariantResults:
        """The model as it is."""
        return self.variants[0]

    def figures(self, variant: VariantResults, target: str) -> Figures:
        """Return the figures of a target, as the first classifier that knows it sees a variant."""
        return variant.bias[self.seen_by(target)][target]

    def seen_by(self, target: str) -> str:
        """Return the first classifier that knows a target."""
        return next(name for name in self.classifiers if target in self.original.bias[name])

    def named(self, target: str, prompt: int) -> str:
        """Return what a prompt names of a target: a class, or for a combination those that it names; else nothing."""
        expected = self.expected[prompt] if self.expected else {}
        return " ".join(expected[name] for name in self.targets[target].attributes if name in expected)

    def open_prompts(self, target: str) -> list[int]:
        """Return the numbers of the prompts that leave a target open: those that name no class of it."""
        return [prompt for prompt in range(len(self.labels)) if not self.named(target, prompt)]


E_co = TypeVar("E_co", bound=Estimate, covariant=True)


class HasHeadline(Protocol[E_co]):
    """Figures of a target, of a prompt, or of a change."""

    @property
    def bias(self) -> E_co:
        """What is read where the target is the same share for every class."""
        ...

    @property
    def total_variation(self) -> E_co:
        """What is read elsewhere."""
        ...


def headline(found: HasHeadline[E_co], target: TargetClasses) -> E_co:
    """Return a target's headline figure: the bias, or the total variation where the target is not uniform.

    A bias is 0 at equal shares, which nobody asked for there.
    """
    return found.bias if target.is_uniform else found.total_variation
