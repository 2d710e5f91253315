"""Labelled images to train a classifier on: known data sets, any of the Hub (streamed), or a folder."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetsError
from PIL import Image, ImageOps

from fair_adaptors.attributes import labels as known_labels
from fair_adaptors.errors import ConfigError, did_you_mean, first_line
from fair_adaptors.vision.heads import class_of

HELD_OUT = ("test", "validation", "valid", "val")
"""Names of splits that are held out, the first one there is."""
SHARE_HELD_OUT = 0.2
"""Of a folder that has no such split."""
_BUFFER = 2_000  # streamed images among which the next one is drawn

Example = tuple[Image.Image, dict[str, int]]
"""A picture, and the class index of each attribute."""


@dataclass(frozen=True)
class Source:
    """Where labelled images are.

    Attributes:
        place: Hub id or folder.
        licence: of the data, as its owners name it.
        config: of several that a Hub repository has.
        revision: commit; None for what is there now.
        held_out: name of the split; None for the first of ``HELD_OUT``.
        columns: by attribute, where they are not columns of the same name.
        words: what a column's values mean, by attribute, where they are no labels of their own.
        gigabytes: that are read; None where it is not known.
    """

    place: str
    licence: str
    config: str | None = None
    revision: str | None = None
    held_out: str | None = None
    columns: Mapping[str, str] | None = None
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    gigabytes: float | None = None

    @property
    def streamed(self) -> bool:
        """Whether images come while they are needed, and the order cannot be drawn at once."""
        return not Path(self.place).expanduser().is_dir()


KNOWN: Mapping[str, Source] = {
    "fairface": Source(
        "HuggingFaceM4/FairFace",
        "CC BY 4.0 (Kärkkäinen and Joo 2021)",
        config="0.25",  # the margin around faces in FairFace's own main experiments
        revision="54d573cdb8b5af490ba8da9da2799628f6e5c496",
        held_out="validation",
        columns={"gender": "gender", "race": "race", "age": "age"},
        gigabytes=0.56,
    ),
    "celeba": Source(
        "flwrlabs/celeba",
        "CelebA release agreement: non-commercial research only (Liu et al. 2015)",
        config="img_align+identity+attr",
        revision="2d738f56e0e7f925ea36ae7c808ea925264aacec",
        held_out="test",
        columns={"gender": "Male", "age": "Young"},
        words={"gender": {"True": "male", "False": "female"}, "age": {"True": "young", "False": "old"}},
        gigabytes=10.6,
    ),
}


def find_source(dataset: str) -> Source:
    """Return a known data set by name, a folder, or a repository of the Hub.

    Raises:
        ConfigError: it is none of them.
    """
    if dataset in KNOWN:
        return KNOWN[dataset]
    if Path(dataset).expanduser().is_dir():
        return Source(str(Path(dataset).expanduser()), "as the folder's owner says")
    if dataset.count("/") != 1 or dataset.startswith((".", "/", "~")):
        raise ConfigError(
            f"dataset is {dataset!r}: there is no such folder, and no data set of this name is known."
            f"{did_you_mean(dataset, KNOWN)} Known: {', '.join(KNOWN)}; or ORG/NAME of the Hub"
        )
    return Source(dataset, "as its page on the Hub says")


def pinned(source: Source) -> Source:
    """Return a source of the Hub with the commit that is there now, and its licence, if the Hub tells them."""
    if source.revision or not source.streamed:
        return source
    revision, licence = on_hub("dataset", source.place)
    return dataclasses.replace(source, revision=revision, licence=licence or source.licence)


def on_hub(kind: str, repo: str) -> tuple[str | None, str | None]:
    """Return the newest commit of a model or dataset of the Hub, and its licence; None for what cannot be told."""
    from huggingface_hub import HfApi

    try:
        info: Any = HfApi().repo_info(repo, repo_type=kind)
    except (OSError, ValueError):  # every error of the Hub, and a name that it does not allow
        return None, None
    licence = info.card_data.license if info.card_data is not None else None
    return info.sha, licence if isinstance(licence, str) else None


def describe_source(source: Source) -> list[str]:
    """Say what would be read, line by line."""
    if not source.streamed:
        return [f"data: the folder {source.place}; licence: {source.licence}; nothing is downloaded"]
    size = "of unknown size" if source.gigabytes is None else f"about {source.gigabytes:g} GB an epoch"
    return [
        f"data: {source.place} on the Hub{f', {source.config}' if source.config else ''}, streamed, {size}",
        f"  revision: {source.revision or 'main, whatever it is now'}",
        f"  licence: {source.licence}",
    ]


class Labelled:
    """The images of a source, with the classes of some attributes.

    Attributes:
        source: where they are.
        classes: of each attribute, in index order.
        num_train: images to train on; None if that is not known before they are read.
        num_held_out: images that are held out; None likewise.
    """

    def __init__(self, source: Source, attributes: Sequence[str], *, seed: int = 0, limit: int | None = None):
        """Open a source; nothing but its description is read.

        Args:
            attributes: names; each is a column, or of a known data set what it has a column for.
            seed: of the order, and of what is held out of a folder without splits.
            limit: at most so many images of each split.

        Raises:
            ConfigError: it cannot be read, or lacks a column, a split, or labels.
        """
        self.source, self._seed, self._limit = source, seed, limit
        columns = {name: _column_of(source, name) for name in attributes}
        self._train, self._held_out = _open_splits(source, seed)
        features = self._train.features or {}
        self._picture = _column(source, "image", features)
        self._columns = {name: _column(source, column, features) for name, column in columns.items()}
        self.classes = {name: self._classes_of(name, features[self._columns[name]]) for name in attributes}
        self.num_train, self.num_held_out = _length(self._train, limit), _length(self._held_out, limit)
        for rows in (self._train, self._held_out):  # of a folder, a wrong label shows before anything is trained
            for name, column in self._columns.items() if isinstance(rows, Dataset) else ():
                for value in rows.unique(column):
                    self._index(name, value)

    def check_size(self, least: int) -> None:
        """Check that there are enough images, before anything is trained; of a stream, as far as its length is known.

        Args:
            least: how many must be held out.

        Raises:
            ConfigError: fewer are, or a folder has no picture of a class to train on.
        """
        held_out = self.num_held_out
        if held_out is None:
            held_out = sum(1 for _ in islice(self.held_out(), least))
        if held_out < least:
            whole = f": {round(least / SHARE_HELD_OUT)} pictures in all" if not self.source.streamed else ""
            raise ConfigError(f"{self.source.place} holds out {held_out} images; at least {least} are needed{whole}")
        for name, column in self._columns.items() if isinstance(self._train, Dataset) else ():
            found = {self._index(name, value) for value in self._train.unique(column)}
            if missing := [each for index, each in enumerate(self.classes[name]) if index not in found]:
                raise ConfigError(
                    f"{self.source.place} has no picture to train on whose {name} is {' or '.join(missing)}"
                )

    def train(self, epoch: int) -> Iterator[Example]:
        """Yield the images to train on, in another order each epoch."""
        return self._examples(self._train, self._seed + epoch)

    def held_out(self) -> Iterator[Example]:
        """Yield the images that are not trained on, in one order."""
        return self._examples(self._held_out, self._seed)

    def _examples(self, rows: Any, seed: int) -> Iterator[Example]:
        streamed = isinstance(rows, IterableDataset)
        shuffled = iter(rows.shuffle(seed=seed, buffer_size=_BUFFER) if streamed else rows.shuffle(seed=seed))
        for number in islice(count(1), self._limit):
            try:
                row = next(shuffled)
                picture = ImageOps.exif_transpose(row[self._picture]).convert("RGB")
            except StopIteration:
                return
            except (OSError, ValueError, SyntaxError) as error:  # what PIL raises for damaged files
                raise ConfigError(f"{self.source.place}: picture {number} cannot be read: {error}") from error
            yield picture, {name: self._index(name, row[column]) for name, column in self._columns.items()}

    def _classes_of(self, attribute: str, feature: Any) -> tuple[str, ...]:
        if attribute in known_labels():
            return tuple(known_labels()[attribute])
        names = feature.names if isinstance(feature, ClassLabel) else None
        if names is None and isinstance(self._train, IterableDataset):
            raise ConfigError(
                f"{self.source.place} is streamed and does not list the classes of {attribute!r} beforehand. Only"
                f" those of {', '.join(known_labels())} are known without a list; or give the pictures as a folder"
            )
        column = self._columns[attribute]
        found = tuple(names or sorted({self._label(attribute, value) for value in self._train.unique(column)}))
        if not 2 <= len(found) <= 100:
            raise ConfigError(f"{self.source.place}: {attribute!r} has {len(found)} classes; it must have 2 to 100")
        return found

    def _label(self, attribute: str, value: Any) -> str:
        feature = self._train.features[self._columns[attribute]]
        plain = feature.int2str(value) if isinstance(feature, ClassLabel) and value is not None else str(value)
        return self.source.words.get(attribute, {}).get(plain, plain)

    def _index(self, attribute: str, value: Any) -> int:
        label, classes = self._label(attribute, value), self.classes[attribute]
        name = class_of(attribute, label) if attribute in known_labels() else label
        if name not in classes:
            allowed = [each for group in known_labels().get(attribute, {}).values() for each in group] or classes
            raise ConfigError(
                f"{self.source.place}: {attribute} is {label!r}, which is not a label of it."
                f"{did_you_mean(label, allowed)} Labels: {', '.join(allowed)}"
            )
        return classes.index(name)


def _open_splits(source: Source, seed: int) -> tuple[Any, Any]:
    """Return the rows to train on and those held out, of the datasets library."""
    try:
        splits = load_dataset(source.place, source.config, revision=source.revision, streaming=source.streamed)
    except (OSError, ValueError, DatasetsError) as error:
        raise ConfigError(f"{source.place} cannot be read: {first_line(error)}") from error
    names = list(splits)
    held_out = source.held_out or next((name for name in HELD_OUT if name in names), None)
    if "train" in names and held_out in names:
        return splits["train"], splits[held_out]
    if len(names) == 1 and not source.streamed:
        if len(splits[names[0]]) < 2:
            raise ConfigError(f"{source.place} has too few images to hold some out: {len(splits[names[0]])}")
        parts = splits[names[0]].train_test_split(test_size=SHARE_HELD_OUT, seed=seed)
        return parts["train"], parts["test"]
    raise ConfigError(
        f"{source.place} has the splits {', '.join(names)}; it needs train and one of {', '.join(HELD_OUT)}"
    )


def _column(source: Source, name: str, features: Mapping[str, Any]) -> str:
    if name not in features:
        raise ConfigError(
            f"{source.place} has no column {name!r}.{did_you_mean(name, features)} Columns: {', '.join(features)}"
        )
    return name


def _column_of(source: Source, attribute: str) -> str:
    """Return the name of an attribute's column, which is the attribute's own where no others are known."""
    columns = source.columns
    if columns is not None and attribute not in columns:
        raise ConfigError(
            f"{source.place} has no labels of {attribute!r}.{did_you_mean(attribute, columns)} It has labels of"
            f" {', '.join(columns)}"
        )
    return columns[attribute] if columns is not None else attribute


def _length(rows: Any, limit: int | None) -> int | None:
    split = (rows.info.splits or {}).get(str(rows.split))
    known = len(rows) if isinstance(rows, Dataset) else split.num_examples if split is not None else None
    return min((number for number in (known, limit) if number), default=None)


def batches(examples: Iterator[Example], size: int) -> Iterator[list[Example]]:
    """Yield lists of up to ``size`` examples."""
    while batch := list(islice(examples, size)):
        yield batch
