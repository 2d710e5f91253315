"""A small world of portraits whose bias is known: who holds which occupation, and what a portrait of them looks like.

``sample_people`` draws people, ``render`` draws their portraits. Both are functions of a ``torch.Generator``. The
joint distribution is biased on purpose, and the bias of an occupation is the sum of its words' biases in log-odds:

    logit P(female | sector, role) = a[sector] + b[role]
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .prompts import ROLES, SECTORS

IMAGE_SIZE = 64

FEMALE_LOGIT_OF_SECTOR = torch.tensor([0.9, 0.6, -0.7, -0.9, -0.4, 0.7, 0.4, -0.6, -0.5, 0.5])
FEMALE_LOGIT_OF_ROLE = torch.tensor([-2.5, -2.8, -2.6, -2.3, 2.5, 2.8, 2.6, 2.3])
TONE_OF_SECTOR = torch.tensor([2, 1, 3, 3, 0, 1, 0, 0, 2, 1])
TONE_OF_ROLE = torch.tensor([0, 3, 1, 2, 1, 0, 3, 2])
TONE_LOGITS = (4.2, 1.5)
"""Log-odds that a sector, and a role, add to their favourite skin tone."""
OLD_LOGIT_OF_ROLE = torch.tensor([1.4, 0.2, -0.2, 1.2, -1.4, -0.6, 0.6, -1.2])


@dataclass(frozen=True)
class People:
    """N people. Attributes are class indices [N]; everything else that a portrait shows is a number in [-1, 1] [N]."""

    gender: Tensor
    tone: Tensor
    age: Tensor
    sector: Tensor
    role: Tensor
    skin: Tensor  # shade within the tone
    hair: Tensor  # hair colour, from black to blond
    hair_length: Tensor
    beard: Tensor
    smile: Tensor
    x: Tensor
    y: Tensor
    scale: Tensor
    tilt: Tensor
    light: Tensor

    def __len__(self) -> int:
        return len(self.gender)

    def __getitem__(self, index: slice | Tensor) -> "People":
        return People(*(getattr(self, field.name)[index] for field in fields(self)))


NUISANCES = tuple(field.name for field in fields(People))[5:]


def female_probability(sector: Tensor, role: Tensor) -> Tensor:
    """Return P(female | occupation), [N], for sector and role indices [N]."""
    return torch.sigmoid(FEMALE_LOGIT_OF_SECTOR[sector] + FEMALE_LOGIT_OF_ROLE[role])


def tone_probabilities(sector: Tensor, role: Tensor) -> Tensor:
    """Return P(tone | occupation), [N, 4]."""
    logits = torch.zeros(len(sector), 4)
    for favourite, weight in zip((TONE_OF_SECTOR[sector], TONE_OF_ROLE[role]), TONE_LOGITS, strict=True):
        logits[torch.arange(len(sector)), favourite] += weight
    return logits.softmax(1)


def old_probability(role: Tensor) -> Tensor:
    """Return P(old | role), [N]."""
    return torch.sigmoid(OLD_LOGIT_OF_ROLE[role])


def sample_people(sector: Tensor, role: Tensor, *, generator: torch.Generator, named: Tensor | None = None) -> People:
    """Draw one person for each occupation.

    Args:
        sector, role: indices into ``SECTORS`` and ``ROLES``, [N].
        generator: source of all randomness.
        named: bool [N, 3] for gender, tone and age; these attributes are uniform instead of following the world's
            bias, as in pictures whose caption names them.
    """
    count = len(sector)
    named = torch.zeros(count, 3, dtype=torch.bool) if named is None else named
    draw = torch.rand(2, count, generator=generator)
    p_female = torch.where(named[:, 0], 0.5, female_probability(sector, role))
    p_old = torch.where(named[:, 2], 0.5, old_probability(role))
    p_tone = torch.where(named[:, 1:2], 0.25, tone_probabilities(sector, role))
    nuisances = 2 * torch.rand(len(NUISANCES), count, generator=generator) - 1
    return People(
        (draw[0] >= p_female).long(),
        torch.multinomial(p_tone, 1, generator=generator)[:, 0],
        (draw[1] < p_old).long(),
        sector,
        role,
        *nuisances,
    )


def random_occupations(count: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw sector and role indices [N], uniformly over all pairs."""
    return (
        torch.randint(len(SECTORS), (count,), generator=generator),
        torch.randint(len(ROLES), (count,), generator=generator),
    )
