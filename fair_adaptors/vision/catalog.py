"""From a word that names a classifier or an encoder to the thing itself: the grammar of these words, once."""

import importlib
import re
from typing import TYPE_CHECKING

from fair_adaptors.adaptor.bases import imported, plugin_of
from fair_adaptors.errors import ConfigError

if TYPE_CHECKING:
    pass
from .types import Classifier, Encoder


def load_object(spec: str) -> object:
    """Import ``module:object``, an instrument of the user's own.

    Raises:
        ConfigError: not of that form, or it cannot be imported.
    """
    module, colon, name = spec.partition(":")
    if not colon or not module or not name:
        raise ConfigError(f"{spec!r} names no instrument; write MODULE:OBJECT, or see `fair-adaptors evaluate --help`")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{spec}: {error}. Is its folder on PYTHONPATH?") from error


def split_specs(spec: str) -> list[str]:
    """Return the parts of a classifier's name that ``+`` joins."""
    return re.split(r"\+(?=[\w.]+:)", spec)


def load_classifier(spec: str) -> Classifier:
    """Load a classifier.

    Args:
        spec: ``sandbox:evaluation``, ``sandbox:training``, ``clip:SOURCE`` for zero-shot CLIP, ``transformers:SOURCE``
            for an image classifier, with a folder or Hub id, ``mobilenet:SOURCE`` for a state dict as of the paper's
            authors, or ``MODULE:OBJECT`` that is a ``Classifier``; several with ``+`` between them for one that knows
            the attributes of all, of the first one that knows it.

    Raises:
        ConfigError: no such classifier.
    """
    if len(specs := split_specs(spec)) > 1:
        from .joint import join

        return join([load_classifier(one) for one in specs])
    kind, _, source = spec.partition(":")
    if kind == "mobilenet" and source:
        from .mobilenet_classifier import mobilenet_classifier

        return mobilenet_classifier(source)
    if kind == "clip" and source:
        from .clip import clip_classifier

        return clip_classifier(source)
    if kind == "transformers" and source:
        from .image_classifier import image_classifier

        return image_classifier(source)
    if plugin := plugin_of(kind):
        return imported(plugin.classifier)(source)
    found = load_object(spec)
    if not isinstance(found, Classifier):
        raise ConfigError(f"{spec} is no fair_adaptors.vision.types.Classifier")
    return found


def load_encoder(spec: str, *, whole: bool = False) -> Encoder:
    """Load an encoder.

    Args:
        spec: ``clip:SOURCE`` or ``dinov2:SOURCE``, with a folder or Hub id, ``sandbox``, ``sandbox:portraits`` for the
            one its adaptors are trained with, or ``MODULE:OBJECT`` that is an ``Encoder``.
        whole: let a published model see the whole image, as the paper's training does, not what its processor crops.

    Raises:
        ConfigError: no such encoder.
    """
    kind, _, source = spec.partition(":")
    if kind == "clip" and source:
        from .clip import clip_encoder

        return clip_encoder(source, whole=whole)
    if kind == "dinov2" and source:
        from .dinov2 import dino_encoder

        return dino_encoder(source, whole=whole)
    if plugin := plugin_of(kind):
        return imported(plugin.encoder)(source)
    found = load_object(spec)
    if not isinstance(found, Encoder):
        raise ConfigError(f"{spec} is no fair_adaptors.vision.types.Encoder")
    return found
