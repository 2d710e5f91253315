"""How a process joins the others of its run, through accelerate, and which device is its own."""

import os

import torch
from fair_adaptors.training.engine.processes import World

from fair_adaptors.errors import ConfigError


def join_world() -> World:
    """Join the processes that torchrun, ``accelerate launch`` or SLURM started; alone if none did.

    Raises:
        ConfigError: processes were asked for that a launcher silently did not start.
    """
    environment = os.environ
    if "MASTER_ADDR" in environment and "ACCELERATE_USE_CPU" in environment and "WORLD_SIZE" not in environment:
        raise ConfigError(
            "`accelerate launch --cpu` was asked for several processes and started one. Use torchrun:"
            " ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 -m fair_adaptors train …, or fair-adaptors train …"
            " --num-processes 2"
        )
    from accelerate import PartialState

    state = PartialState(cpu=not torch.accelerator.is_available())
    return World(state.process_index, state.num_processes)


def this_device() -> torch.device:
    """Return the device of this process; ``join_world`` first."""
    from accelerate import PartialState

    return PartialState().device
