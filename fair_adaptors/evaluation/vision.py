"""Published vision models as instruments, through transformers: what they see in a photograph of a person.

A source is a folder or a Hub id; ORG/NAME@COMMIT is one version of it. Gradients pass to the images.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fair_adaptors.hub.client import split_revision

from ..errors import ConfigError
from ..formats import fingerprint
from .attribute_heads import read_labels, split_logits
from .instruments import Classifier, Encoder, accelerator
from .preprocessing import load_preparation

if TYPE_CHECKING:
    from torch import Tensor

TRAINING_ENCODERS = (
    "clip:laion/CLIP-ViT-H-14-laion2B-s32B-b79K@1c2b8495b28150b8a4922ee1c8edee224c284c0c",
    "dinov2:facebook/dinov2-base@f9e44c814b77203eaa57a6bdbbd535f21ede1415",
)
EVALUATION_ENCODERS = (
    "clip:laion/CLIP-ViT-bigG-14-laion2B-39B-b160k@743c27bd53dfe508a0ade0f50698f99b39d03bec",
    "dinov2:facebook/dinov2-giant@611a9d42f2335e0f921f1e313ad3c1b7178d206d",
)
"""What the paper keeps images by and, unlike these, what it measures them with (§2, §6): CLIP by the MIT licence,
DINOv2 by Apache-2.0."""

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
    """Return a transformers image classifier of one attribute or several.

    Args:
        source: folder or Hub id, such as of a classifier trained on FairFace: its labels are classes of gender, race
            or age, or parts of them, whose probabilities are added; or a folder of ``train-classifier``.

    Raises:
        ConfigError: it cannot be loaded, or its labels belong to no known attribute.
    """
    model, prepare, how = load_image_model(source)
    labels = [str(model.config.id2label[index]) for index in range(model.config.num_labels)]
    heads = read_labels(source, labels)

    def judge(images: "Tensor") -> "dict[str, Tensor]":
        return split_logits(model(pixel_values=prepare(images)).logits, heads)

    classes = {attribute: head.classes for attribute, head in heads.items()}
    return Classifier(_name("transformers", source), _identity(model, how, str(labels)), classes, judge)


def load_image_model(source: str, **head: Any) -> "tuple[Any, Callable[[Tensor], Tensor], str]":
    """Return an image classifier of transformers, frozen, what makes its input of images, and that in words.

    Args:
        head: settings of another head than its own, as ``from_pretrained`` takes them.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoModelForImageClassification

    model = _loaded(AutoModelForImageClassification, source, **head)
    return model, *_preparation(source, model.device)


def clip_encoder(source: str, *, whole: bool = False) -> Encoder:
    """Return CLIP's image and text features: the cosines are CLIP-I and CLIP-T (paper §6).

    Args:
        source: folder or Hub id.
        whole: see the whole of each image, as in training; else what the model's processor leaves of it.

    Raises:
        ConfigError: it cannot be loaded.
    """
    model, tokenize, prepare, how = _load_clip(source, whole=whole)
    return Encoder(
        _name("clip", source),
        _identity(model, how),
        lambda images: _unit(model.get_image_features(pixel_values=prepare(images)).pooler_output),
        lambda texts: _unit(model.get_text_features(**tokenize(texts)).pooler_output),
    )


def dino_encoder(source: str, *, whole: bool = False) -> Encoder:
    """Return DINOv2's class-token features (Oquab et al. 2023).

    Args:
        source: folder or Hub id.
        whole: see the whole of each image, as in training; else what the model's processor leaves of it.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoModel

    model = _loaded(AutoModel, source)
    prepare, how = _preparation(source, model.device, whole=whole)
    return Encoder(
        _name("dinov2", source),
        _identity(model, how),
        lambda images: _unit(model(pixel_values=prepare(images)).last_hidden_state[:, 0]),
    )


def _load_clip(
    source: str, *, whole: bool = False
) -> "tuple[Any, Callable[[Sequence[str]], Any], Callable[[Tensor], Tensor], str]":
    from transformers import CLIPModel, CLIPTokenizer

    model, tokenizer = _loaded(CLIPModel, source), _loaded(CLIPTokenizer, source)
    length = model.config.text_config.max_position_embeddings

    def tokenize(texts: Sequence[str]) -> Any:
        return tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(model.device)  # fmt: skip

    return model, tokenize, *_preparation(source, model.device, whole=whole)


def _loaded(kind: Any, source: str, **settings: Any) -> Any:
    """Load a model, frozen, on the accelerator if there is one, or a tokenizer."""
    import torch

    place, revision = split_revision(source)
    try:
        found = kind.from_pretrained(place, revision=revision, **settings)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    if isinstance(found, torch.nn.Module):
        found = found.float().eval().requires_grad_(False).to(accelerator())
    return found


def _preparation(source: str, device: Any, *, whole: bool = False) -> "tuple[Callable[[Tensor], Tensor], str]":
    """Return what makes a model's input of images [N, 3, H, W] in [0, 1], and that in words."""
    place, revision = split_revision(source)
    return load_preparation(place, device, revision=revision, whole=whole)


def _name(kind: str, source: str) -> str:
    """Return what tables call a model: a Hub id whole, of a folder its name."""
    return f"{kind}:{Path(source).name if Path(source).is_dir() else split_revision(source)[0]}"


def _identity(model: Any, *words: str) -> str:
    """Return a word that changes with the weights and with what else decides what is seen."""
    return hashlib.sha256("\n".join([fingerprint({"model": model}), *words]).encode()).hexdigest()


def _unit(features: "Tensor") -> "Tensor":
    from torch.nn.functional import normalize

    return normalize(features.float(), dim=-1)
