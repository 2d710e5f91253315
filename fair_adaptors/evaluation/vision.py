"""Published vision models as instruments, through transformers: what they see in a photograph of a person.

Images are resized whole to a model's input, bicubic and antialiased, in torch, so that gradients pass.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..formats import fingerprint
from .instruments import Classifier, Encoder, accelerator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "gender": {"female": ("female", "woman"), "male": ("male", "man")},
    "race": {
        "WMELH": ("white", "middle eastern", "latino hispanic"),
        "Black": ("black",),
        "Indian": ("indian",),
        "Asian": ("east asian", "southeast asian", "asian"),
    },
    "age": {
        "young": ("0-2", "3-9", "10-19", "20-29", "30-39", "young"),
        "old": ("40-49", "50-59", "60-69", "more than 70", "70+", "old"),
    },
}
"""Classes of the paper's attributes and the labels that belong to each, such as FairFace's seven races and nine ages.
That old begins at 40 is this package's choice."""

WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "gender": {"female": ("a woman",), "male": ("a man",)},
    "race": {
        "WMELH": ("a white person", "a Middle Eastern person", "a Latino person"),
        "Black": ("a Black person",),
        "Indian": ("an Indian person",),
        "Asian": ("an East Asian person", "a Southeast Asian person"),
    },
    "age": {"young": ("a young person",), "old": ("an old person",)},
}
"""What CLIP is asked for each class, in its authors' template "a photo of …"; of several the likeliest counts."""


def clip_classifier(source: str, words: Mapping[str, Mapping[str, Sequence[str]]] = WORDS) -> Classifier:
    """Return CLIP as a zero-shot classifier (Radford et al. 2021): the class whose words are nearest to the image.

    Args:
        source: folder or Hub id of a CLIPModel with its tokenizer and preprocessor_config.json.
        words: by attribute and class, what to compare images with.

    Raises:
        ConfigError: it cannot be loaded.
    """
    import torch

    model, tokenize, prepare, how = _load_clip(source)
    texts = [f"a photo of {text}" for classes in words.values() for each in classes.values() for text in each]
    with torch.no_grad():
        known = _unit(model.get_text_features(**tokenize(texts)).pooler_output)
    places = iter(range(len(texts)))
    columns = {
        name: [[next(places) for _ in each] for each in classes.values()] for name, classes in words.items()
    }  # fmt: skip

    def judge(images: "Tensor") -> "dict[str, Tensor]":
        cosines = _unit(model.get_image_features(pixel_values=prepare(images)).pooler_output) @ known.T
        logits = model.logit_scale.exp() * cosines
        return {
            name: torch.stack([logits[:, places].amax(1) for places in classes], 1)
            for name, classes in columns.items()
        }

    classes = {name: tuple(each) for name, each in words.items()}
    return Classifier(_name("clip", source), _identity(model, how, str(texts)), classes, judge)


def image_classifier(source: str) -> Classifier:
    """Return a transformers image classifier whose labels are classes of gender, race or age, or parts of them.

    Args:
        source: folder or Hub id, such as of a classifier trained on FairFace. Of labels that belong to one class the
            probabilities are added.

    Raises:
        ConfigError: it cannot be loaded, or its labels belong to no known attribute.
    """
    import torch
    from transformers import AutoModelForImageClassification

    model = _loaded(AutoModelForImageClassification, source)
    labels = [str(model.config.id2label[index]) for index in range(model.config.num_labels)]
    attribute, columns = _grouped(source, labels)
    prepare, how = _preparation(source, model.device)

    def judge(images: "Tensor") -> "dict[str, Tensor]":
        logits = model(pixel_values=prepare(images)).logits.log_softmax(1)
        return {attribute: torch.stack([logits[:, places].logsumexp(1) for places in columns], 1)}

    return Classifier(
        _name("transformers", source), _identity(model, how, str(labels)), {attribute: tuple(GROUPS[attribute])}, judge
    )


def clip_encoder(source: str) -> Encoder:
    """Return CLIP's image and text features: the cosines are CLIP-I and CLIP-T (paper §6).

    Raises:
        ConfigError: it cannot be loaded.
    """
    model, tokenize, prepare, how = _load_clip(source)
    return Encoder(
        _name("clip", source),
        _identity(model, how),
        lambda images: _unit(model.get_image_features(pixel_values=prepare(images)).pooler_output),
        lambda texts: _unit(model.get_text_features(**tokenize(texts)).pooler_output),
    )


def dino_encoder(source: str) -> Encoder:
    """Return DINOv2's class-token features (Oquab et al. 2023).

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoModel

    model = _loaded(AutoModel, source)
    prepare, how = _preparation(source, model.device)
    return Encoder(
        _name("dinov2", source),
        _identity(model, how),
        lambda images: _unit(model(pixel_values=prepare(images)).last_hidden_state[:, 0]),
    )


def _load_clip(source: str) -> "tuple[Any, Callable[[Sequence[str]], Any], Callable[[Tensor], Tensor], str]":
    from transformers import CLIPModel, CLIPTokenizer

    model, tokenizer = _loaded(CLIPModel, source), _loaded(CLIPTokenizer, source)
    length = model.config.text_config.max_position_embeddings

    def tokenize(texts: Sequence[str]) -> Any:
        return tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(model.device)  # fmt: skip

    return model, tokenize, *_preparation(source, model.device)


def _loaded(kind: Any, source: str) -> Any:
    """Load a model, frozen, on the accelerator if there is one, or a tokenizer."""
    import torch

    try:
        found = kind.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    if isinstance(found, torch.nn.Module):
        found = found.eval().requires_grad_(False).to(accelerator())
    return found


def _preparation(source: str, device: "torch.device") -> "tuple[Callable[[Tensor], Tensor], str]":
    """Return what makes a model's input of images [N, 3, H, W] in [0, 1], and that in words."""
    import torch
    from torch.nn.functional import interpolate
    from transformers import AutoImageProcessor

    processor = _loaded(AutoImageProcessor, source)
    crop = getattr(processor, "crop_size", None)
    size = crop if crop is not None else processor.size
    height = size.get("height") or size["shortest_edge"]
    width = size.get("width") or size["shortest_edge"]
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))

    def prepare(images: "Tensor") -> "Tensor":
        images = images.to(device)
        resized = interpolate(images, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
        return (resized - mean.to(images)) / deviation.to(images)

    return prepare, f"{height}×{width} {processor.image_mean} {processor.image_std}"


def _grouped(source: str, labels: Sequence[str]) -> tuple[str, list[list[int]]]:
    """Find the attribute that all labels belong to; return it and the labels' places by class."""
    plain = [label.lower().replace("_", " ").strip() for label in labels]
    for attribute, groups in GROUPS.items():
        places = [[index for index, label in enumerate(plain) if label in names] for names in groups.values()]
        if sum(map(len, places)) == len(labels) and all(places):
            return attribute, places
    raise ConfigError(
        f"{source} tells {', '.join(labels[:12])}; these are not the classes of {', '.join(GROUPS)}. Write a"
        " fair_adaptors.evaluation.instruments.Classifier for it and name it MODULE:OBJECT"
    )


def _name(kind: str, source: str) -> str:
    """Return what tables call a model: a Hub id whole, of a folder its name."""
    return f"{kind}:{Path(source).name if Path(source).is_dir() else source}"


def _identity(model: Any, *words: str) -> str:
    """Return a word that changes with the weights and with what else decides what is seen."""
    return hashlib.sha256("\n".join([fingerprint({"model": model}), *words]).encode()).hexdigest()


def _unit(features: "Tensor") -> "Tensor":
    from torch.nn.functional import normalize

    return normalize(features.float(), dim=-1)
