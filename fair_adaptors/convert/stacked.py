"""LoRAs on layers that a network's original code keeps as one, such as query, key and value: joined and taken apart.

The weight of such a layer is those of its members, one above the other. So of LoRAs BᵢAᵢ on the members its change is
exactly [B₁A₁; …; BₖAₖ] = diag(B₁, …, Bₖ) · [A₁; …; Aₖ], a LoRA of all their ranks together.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fair_adaptors.families.family import Part

if TYPE_CHECKING:
    from torch import Tensor

    Pair = tuple[Tensor, Tensor]

_BLOCK = re.compile(r"\.(\d+)\.")


def original_layers(part: Part, modules: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the layers of the original code that have one of these modules, with all their members' names.

    Args:
        part: its ``original`` is the table, in which # is the number of a block.
        modules: names inside the part; those that the table does not have are left out.
    """
    layer_of = {member: layer for layer, members in part.original.items() for member in members}
    found = {}
    for module in modules:
        block = _BLOCK.search(module)
        number = block[1] if block else ""
        if layer := layer_of.get(_BLOCK.sub(".#.", module, count=1)):
            found[layer.replace("#", number)] = tuple(name.replace("#", number) for name in part.original[layer])
    return found


def join(members: "Mapping[str, Pair]", layer: tuple[str, ...], part: Part) -> "Pair":
    """Return A and B of a layer of the original code.

    Args:
        members: A and B of some of its members, at least one.
        layer: the names of all, in their order.
    """
    import torch

    times = [part.rows.get(name.rpartition(".")[2], 1) for name in layer]
    unit = next(len(members[name][1]) // times[i] for i, name in enumerate(layer) if name in members)
    columns, start = [], 0
    rows = sum(times) * unit
    for name, count in zip(layer, times, strict=True):
        if name in members:
            up = members[name][1]
            column = up.new_zeros(rows, up.shape[1])
            column[start : start + len(up)] = up
            columns.append(column)
        start += count * unit
    return torch.cat([members[name][0] for name in layer if name in members]), torch.cat(columns, 1)


def take_apart(down: "Tensor", up: "Tensor", rows: Mapping[str, int]) -> "dict[str, Pair]":
    """Return A and B of each member that is changed, without the components that do not reach it.

    Args:
        rows: of each member, in their order.
    """
    found = {}
    for (name, _), own in zip(rows.items(), up.split(list(rows.values())), strict=True):
        reaching = own.any(0)
        if reaching.any():
            found[name] = (down[reaching].contiguous(), own[:, reaching].contiguous())
    return found
