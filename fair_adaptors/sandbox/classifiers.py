"""Classifiers of portraits, trained on renders whose truth is known, and an encoder for preservation.

Four networks of different seed and width: two to train an adaptor against, one to evaluate it with, and one whose
features tell whether two portraits show the same person, scene and occupation. One of the first two has learned from
blends of portraits (mixup), so that it is not sure of a person who is changed by half.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pipeline import WEIGHTS
from .prompts import AGES, GENDERS, ROLES, SECTORS, TONES
from .world import NUISANCES

CLASSES = {"gender": len(GENDERS), "tone": len(TONES), "age": len(AGES), "sector": len(SECTORS), "role": len(ROLES)}
NEUTRAL = ("sector", "role")
"""What the encoder is trained to tell apart, beside the nuisances: nothing that an adaptor is meant to change."""


class PortraitNetwork(nn.Module):
    """Small convolutional network on portraits [N, 3, 64, 64] in [0, 1]: features [N, D], a linear head per label."""

    def __init__(self, width: int, heads: dict[str, int]):
        super().__init__()
        channels = (3, width, 2 * width, 3 * width, 4 * width)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.GroupNorm(4, o), nn.SiLU())
            for i, o in zip(channels, channels[1:], strict=False)
        )
        self.project = nn.Linear(16 * channels[-1], 96)
        self.heads = nn.ModuleDict({name: nn.Linear(96, classes) for name, classes in heads.items()})

    def features(self, images: Tensor) -> Tensor:
        """Return features before the heads, [N, 96]."""
        hidden = 2 * images - 1
        for stage in self.stages:
            hidden = stage(hidden)
        return F.silu(self.project(hidden.flatten(1)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits of each head, [N, K]."""
        features = self.features(images)
        return {name: head(features) for name, head in self.heads.items()}


class Encoder(nn.Module):
    """Unit features of a portrait: what a ``PortraitNetwork`` says of scene, occupation and nuisances.

    The logits of a label are centred. They say more than the features before the heads, whose cosine hardly notices
    when one occupation becomes another.
    """

    def __init__(self, network: PortraitNetwork):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Encode images [N, 3, 64, 64] in [0, 1]."""
        said = self.network(images)
        rows = [said[name] - said[name].mean(1, keepdim=True) for name in NEUTRAL]
        return F.normalize(torch.cat([*rows, said["nuisances"]], 1), dim=1)


ENCODER_HEADS = {**{name: CLASSES[name] for name in NEUTRAL}, "nuisances": len(NUISANCES)}
NETWORKS: dict[str, tuple[int, dict[str, int]]] = {
    "training": (16, CLASSES),
    "blends": (16, CLASSES),
    "evaluation": (12, CLASSES),
    "encoder": (16, ENCODER_HEADS),
}


def load_classifier(which: Literal["training", "blends", "evaluation"]) -> PortraitNetwork:
    """Load one of the classifiers, frozen, in eval mode: gender, tone, age, sector and role."""
    return _load(which)


def load_encoder() -> Encoder:
    """Load the preservation encoder, frozen, in eval mode."""
    return Encoder(_load("encoder"))


def _load(which: str) -> PortraitNetwork:
    from safetensors.torch import load_file

    width, heads = NETWORKS[which]
    network = PortraitNetwork(width, heads)
    state = load_file(WEIGHTS / "classifiers" / f"{which}.safetensors")
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return network.eval().requires_grad_(False)
