"""CLIP, through transformers: a zero-shot classifier, and an encoder of images and texts."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fair_adaptors.attributes import clip_words

from .types import Classifier, Encoder

if TYPE_CHECKING:
    from torch import Tensor
from .pretrained import identity, loaded, name, preparation, unit


def clip_classifier(source: str, words: Mapping[str, Mapping[str, Sequence[str]]] | None = None) -> Classifier:
    """Return CLIP as a zero-shot classifier (Radford et al. 2021): the class whose words are nearest to the image.

    Args:
        source: folder or Hub id of a CLIPModel with its tokenizer and preprocessor_config.json.
        words: by attribute and class, what to compare images with; None for the table of attributes.

    Raises:
        ConfigError: it cannot be loaded.
    """
    import torch

    words = words or clip_words()
    model, tokenize, prepare, how = _load_clip(source)
    texts = [f"a photo of {text}" for classes in words.values() for each in classes.values() for text in each]
    with torch.no_grad():
        known = unit(model.get_text_features(**tokenize(texts)).pooler_output)
    known_by = identity(model, how, str(texts))
    _forget_texts(model)
    places = iter(range(len(texts)))
    columns = {
        name: [[next(places) for _ in each] for each in classes.values()] for name, classes in words.items()
    }  # fmt: skip

    def logits(images: "Tensor") -> "dict[str, Tensor]":
        cosines = unit(model.get_image_features(pixel_values=prepare(images)).pooler_output) @ known.T
        scores = model.logit_scale.exp() * cosines
        return {
            name: torch.stack([scores[:, places].amax(1) for places in classes], 1)
            for name, classes in columns.items()
        }

    classes = {name: tuple(each) for name, each in words.items()}
    return Classifier(name("clip", source), known_by, classes, logits)


def clip_encoder(source: str, *, whole: bool = False) -> Encoder:
    """Return CLIP's image and text features: the cosines are CLIP-I and CLIP-T (paper §6).

    Args:
        source: folder or Hub id.
        whole: see the whole of each image, as in training, where there are no texts to compare with; else what the
            model's processor leaves of it.

    Raises:
        ConfigError: it cannot be loaded.
    """
    model, tokenize, prepare, how = _load_clip(source, whole=whole)
    known_by = identity(model, how)
    if whole:
        _forget_texts(model)
    return Encoder(
        name("clip", source),
        known_by,
        lambda images: unit(model.get_image_features(pixel_values=prepare(images)).pooler_output),
        None if whole else lambda texts: unit(model.get_text_features(**tokenize(texts)).pooler_output),
    )


def _forget_texts(model: Any) -> None:
    """Free what only texts need, up to a third of the weights; the model's identity is that of all of them."""
    model.text_model = model.text_projection = None


def _load_clip(
    source: str, *, whole: bool = False
) -> "tuple[Any, Callable[[Sequence[str]], Any], Callable[[Tensor], Tensor], str]":
    from transformers import CLIPModel, CLIPTokenizer

    model, tokenizer = loaded(CLIPModel, source), loaded(CLIPTokenizer, source)
    length = model.config.text_config.max_position_embeddings

    def tokenize(texts: Sequence[str]) -> Any:
        return tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(model.device)  # fmt: skip

    return model, tokenize, *preparation(source, model.device, whole=whole)
