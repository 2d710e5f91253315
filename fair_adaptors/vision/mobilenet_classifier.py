"""MobileNetV3 state dicts as classifiers: those of the paper's authors, and folders of ``train-classifier``.

What is known of the authors' files is what their published code does with them: the face, cut out with a margin and
resized to 224, goes in as it comes from the decoder, in [-1, 1], without ImageNet's mean and deviation.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fair_adaptors.adaptor.modules import fingerprint
from fair_adaptors.adaptor.record import some
from fair_adaptors.attributes import labels
from fair_adaptors.devices import accelerator
from fair_adaptors.errors import ConfigError, InvalidAdaptorError
from fair_adaptors.state_dicts import read_state_dicts

from .heads import Head, consecutive, split_logits
from .mobilenet import SIZE, MobileNetV3
from .types import FACE_MARGIN, MARGIN, Classifier, margin_of

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURE = "mobilenet_v3_large"
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"

AUTHORS: Mapping[int, Mapping[str, int]] = {
    80: {"gender": 40},  # CelebA's 40 attributes, two columns each; Male is number 20
    8: {"gender": 0, "race": 2, "age": 6},
    6: {"gender": 0, "race": 2},
    4: {"race": 0},
    2: {"gender": 0, "age": 0},  # either
}
"""By number of outputs, the first column of each attribute's classes, in the table's order."""


def mobilenet_classifier(source: str) -> Classifier:
    """Return a MobileNetV3-Large with its heads.

    Args:
        source: a file of weights or a folder with one, safetensors or of torch.save; ``ATTRIBUTE:FILE`` for one
            attribute alone, which has to be said of a file with two outputs.

    Raises:
        ConfigError: no such file, hostile, incomplete, of another network, or with outputs that are not known.
    """
    asked, colon, rest = source.partition(":")
    attribute, path = (asked, rest) if colon and asked in labels() else (None, source)
    file = Path(path).expanduser()
    network = load_mobilenet(file)
    heads, margin = _heads(file, network.num_classes, attribute), MARGIN
    if (file / CONFIG_FILE).is_file():
        margin = margin_of(json.loads((file / CONFIG_FILE).read_text(encoding="utf-8")).get(FACE_MARGIN, MARGIN), path)
    prepare, how = mobilenet_preparation()
    network.eval().requires_grad_(False).to(accelerator())

    def logits(images: "Tensor") -> "dict[str, Tensor]":
        return split_logits(network(prepare(images).float()), heads)

    identity = f"{fingerprint({'model': network})} {how}"
    classes = {name: head.classes for name, head in heads.items()}
    name = f"mobilenet:{attribute + ':' if attribute else ''}{_name(file)}"
    return Classifier(name, identity, classes, logits, margin)


def load_mobilenet(path: Path) -> MobileNetV3:
    """Read the weights of a MobileNetV3-Large with any number of outputs; every tensor is accounted for.

    Raises:
        ConfigError: see ``mobilenet_classifier``.
    """
    import torch

    try:
        files, _ = read_state_dicts(path)
    except InvalidAdaptorError as error:
        raise ConfigError(str(error)) from error
    if len(files) > 1:
        raise ConfigError(f"{path} has several files of weights, {some([file.name for file in files])}: name one")
    tensors = files[0].tensors
    last = tensors.get("classifier.3.weight")
    outputs = len(last) if last is not None and last.dim() == 2 else 2
    with torch.device("meta"):
        network = MobileNetV3(outputs)
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    found = {name: value.shape for name, value in tensors.items()}
    if missing := shapes.keys() - found.keys():
        raise ConfigError(f"{path} is not a {ARCHITECTURE} with torchvision's names: it lacks {some(missing)}")
    if unknown := found.keys() - shapes.keys():
        raise ConfigError(f"{path} is not a {ARCHITECTURE} with torchvision's names: it has {some(unknown)} too")
    if wrong := {name for name in shapes if shapes[name] != found[name]}:
        raise ConfigError(f"{path} is not a {ARCHITECTURE}: {some(wrong)} have other shapes")
    network.load_state_dict(tensors, assign=True)
    return network.float()


def save_mobilenet(
    folder: Path, network: MobileNetV3, classes: Mapping[str, tuple[str, ...]], margin: float = MARGIN
) -> None:
    """Write weights and heads, one attribute after the other, for ``mobilenet_classifier``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous().cpu() for name, value in network.state_dict().items()}, folder / WEIGHTS_FILE)
    written = {name: list(names) for name, names in classes.items()}
    config = {"architecture": ARCHITECTURE, "classes": written, FACE_MARGIN: margin}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def mobilenet_preparation() -> "tuple[Callable[[Tensor], Tensor], str]":
    """Return what makes the input of images [N, 3, H, W] in [0, 1], and that in words."""
    from torch.nn.functional import interpolate

    device = accelerator()

    def prepare(images: "Tensor") -> "Tensor":
        images = images.to(device)
        if images.shape[2:] != (SIZE, SIZE):
            images = interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
        return 2 * images - 1

    return prepare, f"{SIZE}×{SIZE} bilinear in [-1, 1]"


def _heads(path: Path, outputs: int, attribute: str | None) -> dict[str, Head]:
    if (path / CONFIG_FILE).is_file():
        heads = _written_heads(path / CONFIG_FILE, outputs)
    elif outputs not in AUTHORS:
        known = ", ".join(map(str, AUTHORS))
        raise ConfigError(
            f"{path} has {outputs} outputs; only files of {known} outputs are known, and what each output means"
        )
    else:
        starts = AUTHORS[outputs]
        if outputs == 2 and attribute is None:
            raise ConfigError(
                f"{path} has two outputs, of gender or of age: write mobilenet:gender:{path} or mobilenet:age:{path}"
            )
        heads = {name: _head(name, start) for name, start in starts.items()}
    if attribute is None:
        return heads
    if attribute not in heads:
        raise ConfigError(f"{path} says nothing about {attribute}: its {outputs} outputs are {', '.join(heads)}")
    return {attribute: heads[attribute]}


def _head(attribute: str, start: int) -> Head:
    classes = tuple(labels()[attribute])
    return Head(classes, tuple((start + index,) for index in range(len(classes))))


def _written_heads(path: Path, outputs: int) -> dict[str, Head]:
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))["classes"]
        heads = consecutive({str(name): tuple(map(str, names)) for name, names in classes.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} does not say the classes of the outputs") from error
    if sum(len(head.classes) for head in heads.values()) != outputs:
        raise ConfigError(f"{path} names other classes than the {outputs} outputs of the weights")
    return heads


def _name(path: Path) -> str:
    """Return what tables call a file: its folder too, as the authors' files differ in that alone."""
    return path.resolve().name if path.is_dir() else "/".join(path.resolve().parts[-2:])
