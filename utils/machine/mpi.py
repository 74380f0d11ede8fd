"""Processes that ``mpiexec`` started: who they are, and where they meet. No torch.

Only ranks and one address go over MPI; everything else is ``torch.distributed``'s.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping

# (rank, number of processes, rank on the machine) as Open MPI, and as MPICH and Intel MPI, say it
_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
)


def mpi_variables(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...] | None:
    """Name and text of the rank, the number of processes and the rank on this machine, or None."""
    for rank, size, local_rank in _VARIABLES:
        if rank in environ and size in environ:
            names = (rank, size, local_rank if local_rank in environ else rank)
            return tuple((name, environ[name]) for name in names)
    return None


def num_local_processes(environ: Mapping[str, str]) -> int:
    """How many of the processes are on this machine; 1 where nobody says."""
    names = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
    said = next((environ[name] for name in names if name in environ), "1")
    return int(said) if said.isdecimal() and int(said) else 1


def meet(environ: MutableMapping[str, str] = os.environ) -> None:
    """Sets MASTER_ADDR and MASTER_PORT to a place that the first process tells the others.

    Where both are set they are left as they are.

    Raises:
        ValueError: if mpi4py is missing and they are not set, or does not know the processes.
    """
    if "MASTER_ADDR" in environ and "MASTER_PORT" in environ:
        return
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"mpiexec started several processes, and mpi4py cannot be used ({error}); run "
            "./setup.sh mpi, or set MASTER_ADDR and MASTER_PORT to the first process's"
        ) from None
    _require_same_size(environ, MPI.COMM_WORLD.Get_size())
    address = None
    if MPI.COMM_WORLD.Get_rank() == 0:
        address = _own_address()
    environ["MASTER_ADDR"], environ["MASTER_PORT"] = MPI.COMM_WORLD.bcast(address, root=0)


def _require_same_size(environ: Mapping[str, str], num_known: int) -> None:
    """Refuses an mpi4py of another MPI, for which each process is alone: all would wait."""
    _, (name, text), _ = mpi_variables(environ) or ((), ("", str(num_known)), ())
    if text != str(num_known):
        raise ValueError(
            f"{name}={text}, but mpi4py knows {num_known} process(es): it belongs to another MPI; "
            "install mpi4py for the mpiexec in use (pip install --force-reinstall --no-binary "
            "mpi4py mpi4py), or set MASTER_ADDR and MASTER_PORT to the first process's"
        )


def _own_address() -> tuple[str, str]:
    """This machine's address for the others, and a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = str(probe.getsockname()[1])
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        name = "127.0.0.1"  # a machine that does not know its own name
    return name, port
