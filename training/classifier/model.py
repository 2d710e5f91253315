"""The network that ``train-classifier`` finetunes: an image classifier of transformers, or MobileNetV3-Large."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fair_adaptors.devices import accelerator
from fair_adaptors.errors import TrainingError
from fair_adaptors.hub.client import split_revision
from fair_adaptors.vision.heads import write_labels
from fair_adaptors.vision.image_classifier import load_image_model
from fair_adaptors.vision.mobilenet import mobilenet_v3_large
from fair_adaptors.vision.mobilenet_classifier import load_mobilenet, mobilenet_preparation, save_mobilenet
from fair_adaptors.vision.types import FACE_MARGIN, MARGIN

from .data import on_hub

MOBILENET = "mobilenet"


@dataclass(frozen=True)
class Trainee:
    """A network with a new last layer, whose outputs are the classes of one attribute after the other.

    Attributes:
        network: what is trained.
        classes: of each attribute.
        prepare: images [N, 3, H, W] in [0, 1] → its input, on its device.
        logits: its input → logits [N, C].
        save: writes the folder that ``transformers:`` or ``mobilenet:`` loads.
    """

    network: nn.Module
    classes: Mapping[str, tuple[str, ...]]
    prepare: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor]
    save: Callable[[Path], None]

    def split(self, logits: Tensor) -> dict[str, Tensor]:
        """Return each attribute's logits [N, K]."""
        parts = logits.split([len(names) for names in self.classes.values()], dim=1)
        return dict(zip(self.classes, parts, strict=True))

    def divide(self, temperatures: Mapping[str, float], probe: Tensor) -> None:
        """Divide each attribute's logits by its temperature, for good, in the last layer's weights.

        Args:
            probe: any input, to see that it was the last layer.

        Raises:
            TrainingError: the logits do not come from one linear layer.
        """
        outputs = sum(map(len, self.classes.values()))
        linear = [one for one in self.network.modules() if isinstance(one, nn.Linear) and one.out_features == outputs]
        factors = torch.cat([torch.full((len(self.classes[name]),), 1 / t) for name, t in temperatures.items()])
        with torch.no_grad():
            before = self.logits(probe)
            for values in linear[-1].parameters() if linear else ():
                values.mul_(factors.to(values).reshape(-1, *[1] * (values.dim() - 1)))
            if not torch.allclose(self.logits(probe), before * factors.to(before), rtol=1e-3, atol=1e-4):
                raise TrainingError(
                    f"the logits of a {type(self.network).__name__} are not those of one linear layer, so that they"
                    " cannot be calibrated; choose another model"
                )


def load_trainee(source: str, classes: Mapping[str, tuple[str, ...]], margin: float = MARGIN) -> Trainee:
    """Load a network to finetune, with a new last layer.

    Args:
        source: folder, Hub id or ORG/NAME@COMMIT of an image classifier of transformers; ``mobilenet`` for random
            weights; ``mobilenet:FILE`` for a state dict, such as torchvision's of ImageNet.
        margin: how much wider than a face's box the pictures are: it is saved with the weights.

    Raises:
        ConfigError: it cannot be loaded.
    """
    kind, _, file = source.partition(":")
    if kind == MOBILENET:
        return _mobilenet(Path(file).expanduser() if file else None, classes, margin)
    from transformers import AutoImageProcessor

    labels = write_labels(classes)
    model, prepare, _ = load_image_model(
        source,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        ignore_mismatched_sizes=True,
    )
    model.float().requires_grad_(True)

    def save(folder: Path) -> None:
        setattr(model.config, FACE_MARGIN, margin)
        model.save_pretrained(folder)
        place, commit = split_revision(source)
        AutoImageProcessor.from_pretrained(place, revision=commit).save_pretrained(folder)

    return Trainee(model, classes, prepare, lambda pixels: model(pixel_values=pixels).logits, save)


def describe_model(source: str) -> str:
    """Say where a network comes from."""
    kind, _, file = source.partition(":")
    if kind == MOBILENET:
        return f"model: MobileNetV3-Large from {file or 'random weights'}; nothing is downloaded"
    if Path(source).expanduser().is_dir():
        return f"model: the folder {source}; nothing is downloaded"
    place, commit = split_revision(source)
    newest, licence = on_hub("model", place)
    revision = commit or newest or "main"
    return f"model: {place} on the Hub, revision {revision}; licence: {licence or 'as its page says'}"


def _mobilenet(file: Path | None, classes: Mapping[str, tuple[str, ...]], margin: float) -> Trainee:
    network = mobilenet_v3_large(len(write_labels(classes)))
    if file is not None:
        known = load_mobilenet(file).state_dict()
        network.load_state_dict({n: v for n, v in known.items() if not n.startswith("classifier.3.")}, strict=False)
    prepare, _ = mobilenet_preparation()
    network.to(accelerator())
    return Trainee(network, classes, prepare, network, lambda folder: save_mobilenet(folder, network, classes, margin))
