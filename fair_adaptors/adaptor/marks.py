"""Which adaptors a model has in its weights, in its own configuration: a copy of it and a saved one say it too."""

from typing import Any

_KEY = "_fair_adaptors"  # diffusers writes what begins so into config.json, and asks nothing when it reads it


def marks(model: Any) -> dict[str, str]:
    """Return the names of the adaptors that a model says it has in its weights, by their identity."""
    config = model.config
    found = config.get(_KEY) if isinstance(config, dict) else getattr(config, _KEY, None)
    return dict(found) if isinstance(found, dict) else {}


def mark(model: Any, identity: str, name: str | None) -> None:
    """Let a model say that it has an adaptor in its weights, or with None for a name that it has not."""
    before = marks(model)
    others = {known: its for known, its in before.items() if known != identity}
    after = others | ({identity: name} if name is not None else {})
    if after == before:
        return
    plain = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if isinstance(plain.config, dict):  # diffusers', which nobody may write into, but whoever replaces it
        rest = {key: value for key, value in plain.config.items() if key != _KEY}
        plain._internal_dict = type(plain.config)(rest | ({_KEY: after} if after else {}))
    elif after:
        setattr(plain.config, _KEY, after)
    else:
        delattr(plain.config, _KEY)
