"""The processes of a run as the engine sees them: who does which images, and what they tell each other.

Nothing else in training knows how many processes there are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fair_adaptors.errors import PeersLostError


class StopRequested(Exception):
    """A process was told to stop, and all stop at the same place: nothing of the work that is cut short has effect."""


@dataclass(frozen=True)
class World:
    """This process among all.

    Attributes:
        rank: its number, 0 to size − 1.
        size: how many there are.
        told_to_stop: whether this process was.
    """

    rank: int = 0
    size: int = 1
    told_to_stop: Callable[[], bool] = lambda: False

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return which of ``count`` items are this process's: contiguous, sizes differ by at most one."""
        return self._share(count, self.rank)

    def _share(self, count: int, rank: int) -> slice:
        each, rest = divmod(count, self.size)
        start = rank * each + min(rank, rest)
        return slice(start, start + each + (rank < rest))

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """Return all rows [count, ...] in every process, given each one's ``share`` of them."""
        if self.size == 1:
            return rows
        from accelerate.utils import gather

        most = -(-count // self.size)
        padded = F.pad(rows, [0, 0] * (rows.ndim - 1) + [0, most - len(rows)])
        with self._peers_needed():
            every = gather(padded.contiguous()).split(most)
        sizes = [range(count)[self._share(count, rank)] for rank in range(self.size)]
        return torch.cat([chunk[: len(size)] for chunk, size in zip(every, sizes, strict=True)])

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over the processes, the same in each."""
        if self.size == 1:
            return values
        from accelerate.utils import reduce

        with self._peers_needed():
            return reduce(values, "sum")

    def any(self, flag: bool, device: torch.device | str = "cpu") -> bool:
        """Tell whether ``flag`` is set in any process."""
        return bool(self.sum(torch.tensor([float(flag)], device=device)).item()) if self.size > 1 else flag

    def may_stop(self, device: torch.device | str = "cpu") -> None:
        """Stop here if any process was told to: this place lies between prompts, where it costs nothing.

        Raises:
            StopRequested: in every process.
        """
        if self.any(self.told_to_stop(), device):
            raise StopRequested

    def of_main(self, flags: Sequence[bool], device: torch.device | str = "cpu") -> list[bool]:
        """Return the main process's flags, in every process."""
        told = torch.tensor([float(flag and self.is_main) for flag in flags], device=device)
        return [value > 0 for value in self.sum(told).tolist()] if self.size > 1 else list(flags)

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            from accelerate.utils import wait_for_everyone

            with self._peers_needed():
                wait_for_everyone()

    @contextmanager
    def _peers_needed(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # all that torch.distributed raises is one
            raise PeersLostError(
                f"process {self.rank} of {self.size} lost the others: {' '.join(str(error).split())[:300]}"
            ) from error
