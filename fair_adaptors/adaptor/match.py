"""Pairs an adaptor's tensors with the modules of a pipeline, or says why it was made for another one."""

from typing import TYPE_CHECKING, Any

from fair_adaptors.errors import FairAdaptorError, WrongBaseError
from fair_adaptors.families.family import Family
from fair_adaptors.families.table import family_of

from .folder import AdaptorFiles
from .injected import misfit_beside
from .modules import all_modules, weight_shape
from .patches import Change
from .writable import obstacle, on_disk

if TYPE_CHECKING:
    from torch import Tensor, nn


def match(pipe: Any, files: AdaptorFiles, *, inject: bool = False) -> Change:
    """Pair each module that an adaptor changes with its two factors; soft tokens are checked to fit.

    Only what it changes is compared. Other layers may come and go, as those of an IP-Adapter, a first convolution for
    inpainting or AnimateDiff's motion modules do; a part that it does not change may be missing.

    Args:
        inject: change all modules beside their weights, not only those whose weights cannot be written.

    Raises:
        WrongBaseError: the pipeline is of another family, or lacks a module, or has one of another shape.
        FairAdaptorError: a module can be changed neither in place nor beside its weights.
    """
    record, family = files.record, family_of(pipe)
    made_for = record.family_of_base
    if made_for is not family and (made_for or record.family):
        other = made_for.title if made_for else f"the family {record.family!r}, which this version does not know"
        raise _another_model(pipe, files, [f"it is {family.title}, and the adaptor is for {other}"])
    changed = {key.partition(".")[0] for key in (*files.tensors, *files.tokens)}
    if missing := sorted(part for part in changed if getattr(pipe, part, None) is None):
        raise WrongBaseError(
            f"the adaptor {record.name!r} changes the {' and the '.join(missing)}, which this pipeline does not have."
            " Load it into a pipeline that does. Nothing was changed"
        )
    modules, models = all_modules(pipe), tuple(getattr(pipe, part) for part in sorted(changed))
    away = on_disk(models)
    layers, beside, problems = [], [], _misfits_of_tokens(pipe, family, files.tokens)
    for key in sorted(key for key in files.tensors if key.endswith(".lora_A.weight")):
        stem = key.removesuffix(".lora_A.weight")
        module, down, up = modules.get(stem), files.tensors[key], files.tensors[stem + ".lora_B.weight"]
        if module is None:
            problems.append(f"no module {stem}")
        elif misfit := _misfit(module, down, up):
            problems.append(f"{stem} is {misfit}")
        elif not inject and module not in away and not obstacle(module):
            layers.append((module, down, up))
        elif reason := misfit_beside(module, down, up):
            raise FairAdaptorError(f"{record.name!r} cannot be injected: {stem} {reason}. Nothing was changed")
        else:
            beside.append((module, down, up))
    if problems:
        raise _another_model(pipe, files, problems)
    return Change(record.identity, record.name, layers, beside, models)


def _another_model(pipe: Any, files: AdaptorFiles, problems: list[str]) -> WrongBaseError:
    details = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
    origin = pipe.config.get("_name_or_path") or type(pipe).__name__
    return WrongBaseError(
        f"the adaptor {files.record.name!r} was made for {files.record.base_model}, and this pipeline ({origin}) is"
        f" another model: {details}. Nothing was changed"
    )


def _misfit(module: "nn.Linear | nn.Conv2d", down: "Tensor", up: "Tensor") -> str | None:
    """Say why a module's weight is none for a product of these factors; None if it is."""
    shape = weight_shape(module)
    if (up.shape[0], down.shape[1]) != shape[:2] or down.ndim != len(shape):
        return f"{list(shape)}, the adaptor's {[up.shape[0], down.shape[1]]}"
    if shape[2:] != down.shape[2:] or any(side != 1 for side in up.shape[2:]):
        return "a convolution of another kernel"
    return None


def _misfits_of_tokens(pipe: Any, family: Family, tokens: "dict[str, Tensor]") -> list[str]:
    """Say why a pipeline's text encoders cannot take soft tokens; empty if they can."""
    problems = []
    if tokens and not family.token_encoder:
        problems.append(f"{family.title} takes no soft tokens, which the adaptor has")
    for part, rows in tokens.items():
        config = getattr(pipe, part).config
        room = config.max_position_embeddings - 2
        if rows.shape[1] != config.hidden_size or len(rows) > room:
            problems.append(
                f"{part} takes up to {room} tokens of {config.hidden_size}, the adaptor has {list(rows.shape)}"
            )
    return problems
