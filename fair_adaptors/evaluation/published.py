"""What the paper publishes of its adaptors, figure by figure, and how it was measured (Shen et al., ICLR 2024, §5).

These are numbers of others. They are shown beside what is measured here, in a column of their own.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

SOURCE = "Shen et al., Finetuning Text-to-Image Diffusion Models for Fairness, ICLR 2024 (arXiv 2311.07604)"
OLD, TEXT, IMAGE, DINO = "share of old", "CLIP-T", "CLIP-I", "DINO"
GENDER, RACE, BOTH = "gender", "race", "gender × race"
"""What the figures are called: a bias goes by the name of its target."""
STEPS, GUIDANCE = 30, 7.5
DETECTOR = "insightface"
ENCODERS: Mapping[str, str] = {TEXT: "CLIP ViT-bigG/14", IMAGE: "CLIP ViT-bigG/14", DINO: "DINOv2 ViT-g/14"}
"""What the paper measured with."""


@dataclass(frozen=True)
class PublishedFigure:
    """A figure of the paper.

    Attributes:
        value: the mean over prompts.
        spread: the standard deviation over prompts, which is not an error of the mean; None where none is given.
    """

    value: float
    spread: float | None = None

    def __str__(self) -> str:
        digits = 3 if round(self.value, 2) != self.value else 2
        return f"{self.value:.{digits}f}" + (f" ± {self.spread:.{digits}f}" if self.spread is not None else "")


Figures = Mapping[str, PublishedFigure]


def _figures(rows: str) -> Figures:
    """Read figures as the paper prints them: ``gender .23±.16, race .44``."""
    found = {}
    for row in rows.split(", "):
        name, _, text = row.rpartition(" ")
        value, _, spread = text.partition("±")
        found[name] = PublishedFigure(float(value), float(spread) if spread else None)
    return found


OCCUPATIONS = "occupations"
ORIGINAL: Mapping[str, Figures] = {
    OCCUPATIONS: _figures("gender .67±.29, race .42±.06, gender × race .21±.03, CLIP-T .39, share of old .202±.263")
}
"""Of Stable Diffusion v1-5 as it is, by the prompts."""

PUBLISHED: Mapping[str, Mapping[str, Figures]] = {
    "gender": {
        OCCUPATIONS: _figures("gender .23±.16, race .44±.06, gender × race .20±.03, CLIP-T .39, CLIP-I .77, DINO .70")
    },
    "race": {
        OCCUPATIONS: _figures("gender .74±.27, race .12±.05, gender × race .14±.03, CLIP-T .39, CLIP-I .73, DINO .67")
    },
    "gender-race": {
        OCCUPATIONS: _figures("gender .16±.13, race .09±.04, gender × race .06±.02, CLIP-T .39, CLIP-I .67, DINO .58")
    },
    "gender-race-age": {
        OCCUPATIONS: _figures(
            "gender .15, race .09, gender × race .06, share of old .248±.091, CLIP-T .38, CLIP-I .66, DINO .58"
        )
    },
    "gender-race-many-concepts": {
        OCCUPATIONS: _figures("gender .23, race .10, gender × race .07"),
        "sports": _figures("gender .37, race .11, gender × race .08"),
        "styles": _figures("gender .31, race .19, gender × race .11"),
        "descriptors": _figures("gender .18, race .13, gender × race .07"),
    },
}
"""By the name of the adaptor and the prompts: those of the authors' test lists, ``authors:PROMPTS-test``."""


def comparisons(adaptor: str) -> list[tuple[str, str, PublishedFigure | None, PublishedFigure]]:
    """Return prompts, name, and value of the original model and of the adaptor, of every figure of an adaptor."""
    return [
        (prompts, name, ORIGINAL.get(prompts, {}).get(name), figure)
        for prompts, figures in PUBLISHED.get(adaptor, {}).items()
        for name, figure in figures.items()
    ]


def images_per_prompt(attributes: Collection[str]) -> int:
    """Return how many images of a prompt the paper evaluates an adaptor for these attributes on."""
    alone = {"gender": 60, "race": 80}
    return alone.get(next(iter(attributes)), 160) if len(attributes) == 1 else 160
