"""What a run names is looked at before anything large is loaded or fetched: a wrong name is refused at once."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from huggingface_hub import constants

from fair_adaptors.adaptor.architecture import load_architecture
from fair_adaptors.adaptor.bases import STABLE_DIFFUSION_1_5, by_short_name, find_base, plugin_of
from fair_adaptors.attributes import clip_words
from fair_adaptors.errors import ConfigError, HubError, HubUnreachableError, UnknownAdaptorError
from fair_adaptors.families.table import family_named, family_with
from fair_adaptors.hub.client import split_revision
from fair_adaptors.hub.parts import KIND, find_part, is_here
from fair_adaptors.pipelines import class_in_file, is_file
from fair_adaptors.vision.authors import AUTHORS_CLASSIFIERS
from fair_adaptors.vision.authors_faces import AUTHORS_ENCODERS
from fair_adaptors.vision.catalog import (
    CLASSIFIERS,
    ENCODERS,
    check_own,
    forms,
    is_folder,
    load_classifier,
    load_encoder,
    parse,
    split_specs,
)
from fair_adaptors.vision.face_encoders import PUBLISHED, load_face_encoder
from fair_adaptors.vision.faces import load_face_detector

from .config import Attribute, TrainConfig
from .downloads import hub_sources, main_file
from .keeping import kept_attributes
from .prompt_sets import check_prompts, named_classes

Classes = Mapping[str, tuple[str, ...]]


def check(config: TrainConfig) -> None:
    """Refuse a configuration that names what is not there, or what does not fit.

    Small files are read. Of repositories of the Hub their own description is fetched, a few hundred bytes each; where
    the Hub does not answer or may not be asked, they are let pass.

    Raises:
        ConfigError: with the setting's name, and what to do.
        MissingExtraError: a file cannot be read without a package that is not installed.
    """
    check_prompts(config)
    named_classes(config)
    for setting, spec in (("classifier", config.classifier), ("judge", config.judge)):
        if (classes := known_classes(setting, spec)) is not None:
            check_classes(spec, classes, config.attributes)
            if setting == "classifier":
                kept_attributes(config, classes)
    for spec in config.encoders:
        _check_encoder(spec)
    if config.gradient_decoder:
        _check_source("gradient_decoder", config.gradient_decoder, config.gradient_decoder)
    if config.faces:
        _check_detector(config.faces)
    if config.face_weight:
        _check_face_encoder(config.face_encoder)
        if config.face_bank:
            _check_bank(config)
    _check_file(config)
    _check_parts(config.parts, _components(config.shapes))
    _ask_hub(config)


def known_classes(setting: str, spec: str) -> Classes | None:
    """Check a classifier; return what it knows, if that can be told without loading something large.

    Args:
        setting: which one names it, for the message.
        spec: as ``load_classifier`` takes it.

    Raises:
        ConfigError: it is not there.
    """
    classes: dict[str, tuple[str, ...]] = {}
    told = True
    for one in split_specs(spec):
        known = _check_classifier(setting, one)
        told = told and known is not None
        classes = {**(known or {}), **classes}
    return classes if told else None


def check_classes(name: str, classes: Mapping[str, Sequence[str]], attributes: Iterable[Attribute]) -> None:
    """Check that a classifier knows the attributes of a recipe, by the same classes.

    Raises:
        ConfigError: it does not.
    """
    for attribute in attributes:
        known = tuple(classes.get(attribute.name, ()))
        if known != attribute.classes:
            raise ConfigError(
                f"{name} knows of {attribute.name} the classes {', '.join(known) or 'none'}; the recipe wants"
                f" {', '.join(attribute.classes)}. Name another classifier, or several joined by +"
            )


def _check_classifier(setting: str, spec: str) -> Classes | None:
    """Check one of the classifiers that ``+`` joins."""
    word = parse(spec)
    if word.kind == KIND and not is_here():  # what it knows can be told without it
        return find_part(AUTHORS_CLASSIFIERS, word.source, of="classifier").classes
    if (word.kind in ("mobilenet", "onnx", KIND) and word.source) or plugin_of(word.kind):
        return load_classifier(spec).classes  # at once: it is small
    _check_model(setting, spec, CLASSIFIERS)
    return {name: tuple(each) for name, each in clip_words().items()} if word.kind == "clip" else None


def _check_encoder(spec: str) -> None:
    if plugin_of(parse(spec).kind) or parse(spec).kind == "onnx":
        load_encoder(spec)
    else:
        _check_model("encoders", spec, ENCODERS)


def _check_model(setting: str, spec: str, kinds: Mapping[str, str]) -> None:
    """Check a model that is a folder, a repository of the Hub or an object of the user's own."""
    word = parse(spec)
    if not word.is_of_hub(kinds):
        check_own(setting, spec, forms(kinds))
    else:
        _check_source(setting, spec, word.source)


def _check_source(setting: str, spec: str, source: str) -> None:
    """Check a model's folder, or a repository of the Hub."""
    if not is_folder(source):
        _check_hub_id(setting, source)
    elif not (path := Path(split_revision(source)[0]) / "config.json").is_file():
        raise ConfigError(f"{setting} is {spec}: {path.parent} is not a folder of a model, it has no config.json")


def _check_hub_id(setting: str, source: str) -> None:
    if split_revision(source)[0].count("/") != 1:
        raise ConfigError(f"{setting} is {source!r}: there is no such folder, and a Hub id is written ORG/NAME")


def _check_detector(spec: str) -> None:
    if ":" in spec and parse(spec).kind != "yunet":
        check_own("faces", spec, ("yunet:PATH", "MODULE:OBJECT"))
    elif spec not in ("yunet", "insightface"):  # the one is there, the other yet to be fetched
        load_face_detector(spec)


def _check_face_encoder(spec: str) -> None:
    word = parse(spec)
    if word.kind == KIND:
        find_part(AUTHORS_ENCODERS, word.source, of="face encoder")
    elif word.kind == "onnx" and word.source:
        if not Path(word.source).expanduser().is_file():
            raise ConfigError(f"face_encoder is {spec!r}: there is no file {word.source}")
    elif ":" in spec:
        check_own("face_encoder", spec, (*PUBLISHED, "onnx:FILE", "MODULE:OBJECT"))
    elif spec not in PUBLISHED:
        load_face_encoder(spec)  # says what there is


def _check_bank(config: TrainConfig) -> None:
    """Read a bank, but do not compare its encoder with the run's, which may be a large download."""
    from fair_adaptors.training.faces.authors import find_bank
    from fair_adaptors.training.faces.bank import load_face_bank

    word = parse(config.face_bank)
    if word.kind == KIND:
        find_bank(word.source, config.face_encoder)
    else:
        bank = load_face_bank(Path(config.face_bank).expanduser(), encoder=None)
        bank.check({attribute.name: attribute.classes for attribute in config.attributes})


def _check_file(config: TrainConfig) -> None:
    """Check a base that is one file, which does not say the shapes that it has."""
    if not is_file(config.base):
        if config.base_config:
            raise ConfigError(f"base_config is for a base that is one file; {config.base} has its own configuration")
        return
    class_in_file(config.base)  # or an error
    if not config.base_config:
        raise ConfigError(
            f"base is {config.base}, one file, which has weights and no configurations: give base_config too, the"
            f" folder or Hub id of a pipeline alike, such as {STABLE_DIFFUSION_1_5}"
        )


def _components(base: str) -> set[str] | None:
    """Return the names of a base's models; None if it is one of the Hub that does not answer."""
    if plugin_of(base) or is_folder(base):
        folder = Path(split_revision(base)[0])
        if not plugin_of(base) and not (folder / "model_index.json").is_file():
            raise ConfigError(f"base is {base}: that is not the folder of a pipeline, which has a model_index.json")
        try:
            models = vars(load_architecture(str(folder)).pipe)
        except ConfigError as error:
            raise ConfigError(str(error).removeprefix("--")) from error
        return {name for name, model in models.items() if model is not None}
    if known := by_short_name(base):
        raise ConfigError(f"base is {base!r}: write its Hub id, {known.names[0]}, or a folder")
    _check_hub_id("base", base)
    if known := find_base(split_revision(base)[0]):
        return {*family_named(known.family).parts, family_named(known.family).autoencoder[0]}
    index = _described("base", "pipeline", base)
    return None if index is None else {name for name, value in index.items() if isinstance(value, list)}


def _check_parts(parts: Sequence[str], components: set[str] | None) -> None:
    if components is None:
        return
    for part in parts:
        if part != "tokens" and part not in components:
            raise ConfigError(f"parts has {part}, and the base has none: take it out of parts")
    family = family_with(components)
    if family is not None and "tokens" in parts and not family.token_encoder:
        instead = [part for part in family.parts if part in family.text_encoders] or [family.network]
        raise ConfigError(
            f"parts has tokens, and {family.title} takes no soft tokens: train LoRAs instead,"
            f" parts={','.join(instead)}"
        )


def _ask_hub(config: TrainConfig) -> None:
    """Ask whether the Hub has what is named; no further where it does not answer."""
    for setting, kind, source in hub_sources(config):
        if _described(setting, kind, source) is None:
            return


def _described(setting: str, kind: str, source: str) -> Mapping[str, object] | None:
    try:
        return main_file(kind, source)
    except HubUnreachableError:
        return None
    except (HubError, UnknownAdaptorError) as error:
        if constants.HF_HUB_OFFLINE:
            return None
        raise ConfigError(f"{setting}: {error}") from error
