"""How much memory a computation takes, counted on torch's meta device: nothing is computed and nothing is needed."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_megabytes(call: Callable[[], Any], there: Iterable[Tensor] = ()) -> float:
    """Return the most megabytes that the tensors made within ``call`` take at one time.

    A backward pass and what is computed again in it are counted like all else. Attention is taken as fused, as it is
    on a GPU: on the meta device it would make its matrices. What libraries take for their own work is not counted.

    Args:
        call: runs on the meta device.
        there: tensors that are there before and after, such as parameters, and do not count.
    """
    with patch.object(functional, "scaled_dot_product_attention", _fused_attention), _Alive(there) as alive:
        call()
    return alive.peak / 1e6


class _Alive(TorchDispatchMode):
    """Counts the bytes of all storages that are alive."""

    def __init__(self, there: Iterable[Tensor]):
        super().__init__()
        self.storages = {tensor.untyped_storage()._cdata for tensor in there}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.storages:
            self.storages.add(storage._cdata)
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())

    def _remove(self, number: int, nbytes: int) -> None:
        self.storages.discard(number)
        self.bytes -= nbytes


class _Attention(torch.autograd.Function):
    """Has the shapes of attention, and saves what the fused kernels save: queries, keys, values and the result."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        context.save_for_backward(query, key, value, result)
        return result

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.zeros_like(tensor) for tensor in context.saved_tensors[:3])


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **settings: Any) -> Tensor:
    return _Attention.apply(query, key, value)
