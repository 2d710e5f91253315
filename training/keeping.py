"""What a run leaves as the original model shows it, and what nobody in it can see."""

from collections.abc import Iterator, Mapping, Sequence

from fair_adaptors.adaptor.bases import imported, plugin_of
from fair_adaptors.attributes import ATTRIBUTES
from fair_adaptors.errors import ConfigError

from .config import TrainConfig

RULES = {
    "image": "image by image, the class of the original image from the same noise",
    "prompt": "prompt by prompt, as many images of each class as the original model shows",
}
"""What ``keep_by`` asks for, in words."""


def kept_attributes(config: TrainConfig, known: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the attributes that a run leaves as the original model shows them; none where ``keep_weight`` is 0.

    Args:
        known: classes of what the training classifier knows.

    Raises:
        ConfigError: one that it does not know is to be kept.
    """
    aimed = [attribute.name for attribute in config.attributes]
    others = [name for name in known if name not in aimed]
    kept = [one for name in config.keep_attributes for one in (others if name == "others" else [name])]
    if missing := [name for name in kept if name not in known]:
        raise ConfigError(
            f"keep_attributes has {', '.join(missing)}, which the classifier {config.classifier} does not know; it"
            f" knows {', '.join(known)}"
        )
    return tuple(dict.fromkeys(kept)) if config.keep_weight else ()


def keeping(config: TrainConfig, known: Mapping[str, Sequence[str]] | None) -> Iterator[str]:
    """Say what a run keeps, by which rule and weight, and what it does not.

    Args:
        known: classes of what the training classifier knows; None if that cannot be told before it is loaded.
    """
    stays = "stays as the original model shows it:"
    how = (
        f"Rule: {RULES[config.keep_by]}, where the classifier gives that class {config.keep_confidence:g} or more."
        f" Weight: {config.keep_weight:g}"
    )
    if known is None:
        wanted = ", ".join(config.keep_attributes if config.keep_weight else ())
        yield f"what {config.classifier} knows can only be told once it is loaded"
        yield f"{stays} {wanted}. {how}" if wanted else f"{stays} no attribute"
        return
    kept = kept_attributes(config, known)
    yield f"{stays} {', '.join(kept)}. {how}" if kept else f"{stays} no attribute"
    aimed = [attribute.name for attribute in config.attributes]
    if free := [name for name in known if name not in (*aimed, *kept)]:
        yield f"may change, though the classifier knows it: {', '.join(free)}"
    yield from unseen(config, known)


def unseen(config: TrainConfig, known: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Say which attributes of a base's people may change without anybody's noticing.

    Args:
        known: classes of what the training classifier knows.
    """
    plugin = plugin_of(config.base)
    people = list(imported(plugin.attributes)) if plugin else [attribute.name for attribute in ATTRIBUTES]
    if missing := [name for name in people if name not in known]:
        yield (
            f"{config.classifier} does not know {' or '.join(missing)}: nothing keeps it as it is. Only an evaluation"
            " whose classifier knows it can tell whether it changed"
        )
