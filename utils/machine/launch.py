"""Which process this is, by whichever launcher started it. No torch.

In this order: RANK and WORLD_SIZE (torchrun, ``torch.distributed.launch``, a user's own); a step of
several tasks of Slurm; ``mpiexec``; a single process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from utils.machine import mpi as mpi_launch
from utils.machine import slurm as slurm_launch

_REMEDY = (
    "start the script by torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in each"
)
_ELASTIC, _SLURM, _MPI, _SINGLE = "torchrun", "srun", "mpiexec", ""


@dataclass(frozen=True)
class Launch:
    """What the launcher said: global rank, rank on this machine, number of processes."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1


def read_launch(environ: Mapping[str, str], local_rank_flag: int = 0) -> Launch:
    """Reads the launcher's variables.

    ``LOCAL_RANK`` of the environment is preferred to the flag of ``torch.distributed.launch``.

    Raises:
        ValueError: if the variables are there but are no numbers, or contradict each other.
    """
    launcher, variables = _told(environ, local_rank_flag)
    if launcher == _SINGLE:
        return Launch()
    rank, world_size, local_rank = (_number(name, text) for name, text in variables)
    (rank_name, _), (size_name, _), (local_name, _) = variables
    if not 0 <= rank < world_size:
        raise ValueError(
            f"{rank_name}={rank} does not fit {size_name}={world_size}; check the launcher"
        )
    if local_rank < 0 or (launcher == _SLURM and local_rank > rank):
        raise ValueError(
            f"{local_name}={local_rank} does not fit {rank_name}={rank}; check the launcher"
        )
    return Launch(rank, local_rank, world_size)


def _told(
    environ: Mapping[str, str], local_rank_flag: int = 0
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The launcher, and its variables for rank, number of processes and rank on the machine."""
    if "RANK" in environ and "WORLD_SIZE" in environ:
        local_rank = environ.get("LOCAL_RANK", str(local_rank_flag))
        ranks = ("RANK", environ["RANK"]), ("WORLD_SIZE", environ["WORLD_SIZE"])
        return _ELASTIC, (*ranks, ("LOCAL_RANK", local_rank))
    slurm = slurm_launch.slurm_variables(environ)
    mpi = mpi_launch.mpi_variables(environ)
    # srun sets PMI_* as well; but another number is that of an mpiexec, whose helpers are the tasks
    if slurm is not None and (mpi is None or mpi[1][1] == slurm[1][1]):
        return _SLURM, slurm
    return (_SINGLE, ()) if mpi is None else (_MPI, mpi)


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not a number; check the launcher") from None


def num_local_processes(environ: Mapping[str, str] = os.environ) -> int:
    """Processes on this machine; 1 where nobody says."""
    text = environ.get("LOCAL_WORLD_SIZE", "")
    if text.isdecimal():
        return max(1, int(text))
    if _told(environ)[0] == _SLURM:
        return slurm_launch.tasks_on_node(environ)
    return mpi_launch.num_local_processes(environ)


def meet(environ: MutableMapping[str, str] = os.environ) -> None:
    """Sets MASTER_ADDR and MASTER_PORT where the launcher did not.

    Raises:
        ValueError: if no place can be found, or it is none; the message says what to set.
    """
    launcher = _told(environ)[0]
    if launcher == _SLURM:
        slurm_launch.meet(environ)
    elif launcher == _MPI:
        mpi_launch.meet(environ)
    if launcher != _SINGLE:
        _require_place(environ)


def _require_place(environ: Mapping[str, str]) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environ.get(name):
            raise ValueError(f"several processes should meet, but {name} is not set; {_REMEDY}")
    port = environ["MASTER_PORT"]
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"MASTER_PORT={port!r} is not a port, a number from 1 to 65535; {_REMEDY}")
