"""The portraits that the sandbox's models are trained on: rendered people, and what is said of each."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fair_adaptors.sandbox import world
from fair_adaptors.sandbox.prompts import AGES, GENDERS, ROLES, SECTORS, TEMPLATE, TONES
from fair_adaptors.sandbox.renderer import render


@dataclass(frozen=True)
class Portraits:
    """Rendered people: pixels uint8 [N, 3, 64, 64], their truth, and a caption each."""

    pixels: Tensor
    people: world.People
    captions: list[str]

    def images(self, index: Tensor) -> Tensor:
        """Return images in [0, 1]."""
        return self.pixels[index].float() / 255


def render_portraits(
    count: int, *, generator: torch.Generator, advance: Callable[[], None], even: bool = False
) -> Portraits:
    """Draw people and their portraits. Two in five captions name attributes, which are then uniform.

    Args:
        even: every caption names all attributes, so that none of them goes with another, or with an occupation.
    """
    sector, role = world.random_occupations(count, generator=generator)
    named = torch.rand(count, 3, generator=generator) < torch.tensor([0.8, 0.6, 0.4])
    named &= torch.rand(count, 1, generator=generator) < 0.4
    named |= torch.tensor(even)
    people = world.sample_people(sector, role, generator=generator, named=named)
    chunks = []
    for index in torch.arange(count).split(200):
        chunks.append((render(people[index]) * 255).round().to(torch.uint8))
        advance()
    return Portraits(torch.cat(chunks), people, _captions(people, named))


def _captions(people: world.People, named: Tensor) -> list[str]:
    captions = []
    for i in range(len(people)):
        words = [AGES[people.age[i]], TONES[people.tone[i]], GENDERS[people.gender[i]]]
        words = [word for word, use in zip(words, named[i, [2, 1, 0]], strict=True) if use]
        captions.append(TEMPLATE.format(" ".join([*words, SECTORS[people.sector[i]], ROLES[people.role[i]]])))
    return captions
