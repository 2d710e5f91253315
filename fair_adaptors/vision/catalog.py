"""The words that name a classifier, an encoder or a detector: their grammar, and from a word to the thing itself.

A word is ``KIND:SOURCE``, such as ``clip:ORG/NAME@COMMIT`` or ``mobilenet:FILE``; ``NAME:ITEM`` of an embedded base;
or ``MODULE:OBJECT`` or ``FILE.py:OBJECT`` of the user's own, whose code is run. A new kind is a row in ``CLASSIFIERS``
or ``ENCODERS``. Of a classifier, ``margin=NUMBER:`` before the source says how widely faces are cut out for it:
``clip:margin=0.2:ORG/NAME``.
"""

import importlib
import importlib.util
import re
import sys
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from fair_adaptors.adaptor.bases import BASES, imported, plugin_of
from fair_adaptors.errors import ConfigError, did_you_mean
from fair_adaptors.hub.client import split_revision

from .types import Classifier, Encoder, margin_of

_T = TypeVar("_T")

CLASSIFIERS: Mapping[str, str] = {
    "clip:SOURCE": "fair_adaptors.vision.clip:clip_classifier",
    "transformers:SOURCE": "fair_adaptors.vision.image_classifier:image_classifier",
    "mobilenet:FILE": "fair_adaptors.vision.mobilenet_classifier:mobilenet_classifier",
    "authors:NAME": "fair_adaptors.vision.authors:authors_classifier",
    "onnx:FILE": "fair_adaptors.vision.onnx_models:onnx_classifier",
}
ENCODERS: Mapping[str, str] = {
    "clip:SOURCE": "fair_adaptors.vision.clip:clip_encoder",
    "dinov2:SOURCE": "fair_adaptors.vision.dinov2:dino_encoder",
    "onnx:FILE": "fair_adaptors.vision.onnx_models:onnx_encoder",
}
"""What loads each kind, as ``module:function`` of the source. SOURCE is a model's folder or a Hub repository, NAME one
of the paper authors' parts."""
_MARGIN = re.compile(r"(?P<before>([\w ]+=[^:]*:)*?)margin=(?P<margin>[^:]*):")


@dataclass(frozen=True)
class Word:
    """A word, taken apart.

    Attributes:
        text: the whole of it.
        kind: what stands before the first colon.
        source: what stands behind it; empty if there is no colon.
        margin: that of a classifier; None if the word does not say.
    """

    text: str
    kind: str
    source: str
    margin: float | None = None

    def place_in(self, kinds: Mapping[str, str]) -> str | None:
        """Return what loads this kind, of ``CLASSIFIERS`` or ``ENCODERS``; None if the word is of none of them."""
        found = next((place for form, place in kinds.items() if form.partition(":")[0] == self.kind), None)
        return found if self.source else None

    def is_of_hub(self, kinds: Mapping[str, str]) -> bool:
        """Tell whether the source is a folder of a model or a repository of the Hub."""
        return f"{self.kind}:SOURCE" in kinds and bool(self.source)


def parse(text: str) -> Word:
    """Take a word apart.

    Raises:
        ConfigError: its margin is not a number from -0.5 to 3.
    """
    kind, _, source = text.partition(":")
    if not (said := _MARGIN.match(source)):
        return Word(text, kind, source)
    return Word(text, kind, said["before"] + source[said.end() :], margin_of(said["margin"], text))


def split_specs(spec: str) -> list[str]:
    """Return the words that ``+`` joins in a classifier's name."""
    return re.split(r"\+(?=[\w.]+:|[\w./~-]+\.py:)", spec)


def forms(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return how a word may be written, for messages: these kinds, an embedded base's, and the user's own."""
    own = dict.fromkeys(base.plugin.word for base in BASES if base.plugin)
    return (*kinds, *(f"{word}:NAME" for word in own), "MODULE:OBJECT", "FILE.py:OBJECT")


def is_folder(source: str) -> bool:
    """Tell whether a model's source is a folder, there or not, and not a repository of the Hub.

    Libraries take a folder of a repository's name for it, whatever its commit.
    """
    return source[:1] in ("", ".", "/", "~") or Path(split_revision(source)[0]).exists()


def load_own(spec: str, kind: type[_T]) -> _T:
    """Import ``MODULE:OBJECT`` or ``FILE.py:OBJECT``, which the user has written: this runs the code of the file.

    Raises:
        ConfigError: not of that form, it cannot be imported, or it is of another type.
    """
    word = parse(spec)
    if not (word.kind and word.source):
        raise ConfigError(
            f"{spec!r} is not known; write KIND:SOURCE, such as clip:ORG/NAME, or for your own MODULE:OBJECT or"
            " FILE.py:OBJECT"
        )
    try:
        module = _module_in(word.kind) if is_own_file(word.kind) else importlib.import_module(word.kind)
        found = getattr(module, word.source)
    except (ImportError, AttributeError) as error:
        remedy = "" if is_own_file(word.kind) else ". Is its folder on PYTHONPATH?"
        raise ConfigError(f"{spec}: {error}{remedy}") from error
    if not isinstance(found, kind):
        raise ConfigError(f"{spec} is not a {kind.__module__}.{kind.__name__}")
    return found


def is_own_file(place: str) -> bool:
    """Tell whether what stands before the colon is a Python file, and not a module's name."""
    return place.endswith(".py")


def _module_in(place: str) -> ModuleType:
    """Run a Python file, once, and return its module."""
    path = Path(place).expanduser().resolve()
    name = f"fair_adaptors_own_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"there is no file {path}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def check_own(setting: str, spec: str, known: Iterable[str]) -> None:
    """Check that there is the module of a ``MODULE:OBJECT``, without importing it: that may load something large.

    Args:
        setting: which one names it, for the message.
        known: how the word may be written, see ``forms``.

    Raises:
        ConfigError: there is none.
    """
    word, known = parse(spec), list(known)
    if is_own_file(word.kind) and word.source:
        if not Path(word.kind).expanduser().is_file():
            raise ConfigError(f"{setting} is {spec!r}: there is no file {word.kind}")
        return
    try:
        found = word.kind in sys.modules or importlib.util.find_spec(word.kind or " ") is not None
    except (ImportError, ValueError):
        found = False
    if not (found and word.source):
        named = word.kind and word.source
        reason = f"there is no module {word.kind!r} on PYTHONPATH" if named else "that is not of this form"
        hint = did_you_mean(word.kind, (form.partition(":")[0] for form in known))
        raise ConfigError(f"{setting} is {spec!r}: {reason}.{hint} Known: {', '.join(known)}")


def load_classifier(spec: str) -> Classifier:
    """Load a classifier.

    Args:
        spec: ``clip:SOURCE`` for zero-shot CLIP, ``transformers:SOURCE`` for an image classifier, ``mobilenet:FILE``
            for a state dict as of the paper's authors, ``authors:NAME`` for one of their own, ``onnx:SETTINGS:FILE``
            (see ``onnx_models``), ``NAME:ITEM`` of an embedded base, or ``MODULE:OBJECT`` that is a ``Classifier``;
            several with ``+`` between them for one that knows the attributes of all; of what several know, their mean.
            Before a source ``margin=0.2:`` says how widely faces are cut out for it.

    Raises:
        ConfigError: no such classifier.
    """
    if len(specs := split_specs(spec)) > 1:
        from .joint import join

        return join([load_classifier(one) for one in specs])
    word = parse(spec)
    if place := word.place_in(CLASSIFIERS):
        found: Classifier = imported(place)(word.source)
    elif plugin := plugin_of(word.kind):
        found = imported(plugin.classifier)(word.source)
    else:
        found = load_own(spec, Classifier)
    return found if word.margin is None else replace(found, margin=word.margin)


def load_encoder(spec: str, *, whole: bool = False) -> Encoder:
    """Load an encoder.

    Args:
        spec: ``clip:SOURCE``, ``dinov2:SOURCE``, ``onnx:SETTINGS:FILE``, ``NAME`` or ``NAME:ITEM`` of an embedded
            base, or ``MODULE:OBJECT`` that is an ``Encoder``.
        whole: let a published model see the whole image, as the paper's training does, not what its processor crops.

    Raises:
        ConfigError: no such encoder.
    """
    word = parse(spec)
    if word.margin is not None:
        raise ConfigError(f"{spec}: an encoder sees whole images: leave the margin out")
    if place := word.place_in(ENCODERS):
        return imported(place)(word.source, whole=whole)
    if plugin := plugin_of(word.kind):
        return imported(plugin.encoder)(word.source)
    return load_own(spec, Encoder)
