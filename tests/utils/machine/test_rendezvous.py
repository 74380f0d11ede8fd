"""Where processes meet when a user, or an MPI, says it: places that are none are errors."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from tests.utils.machine.test_launch import OPEN_MPI, STEP
from utils.machine.launch import num_local_processes, set_rendezvous

BY_HAND = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "head", "MASTER_PORT": "1234"}
ALL_FOUR = "RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"


def test_place_that_is_set_is_left_as_it_is() -> None:
    environ = dict(BY_HAND)
    set_rendezvous(environ)
    assert environ == BY_HAND


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("name", ["MASTER_ADDR", "MASTER_PORT"])
def test_place_that_is_not_set_is_an_error_that_names_what_to_set(
    name: str, value: str | None
) -> None:
    environ = {key: text for key, text in BY_HAND.items() if key != name}
    environ |= {} if value is None else {name: value}
    with pytest.raises(ValueError, match=rf"{name} .*torchrun.*{ALL_FOUR}"):
        set_rendezvous(environ)


@pytest.mark.parametrize("port", ["abc", "-1", "0", "65536", "12.5", "²"])
@pytest.mark.parametrize("environ", [BY_HAND, STEP, OPEN_MPI])
def test_port_that_is_none_is_an_error_that_names_what_to_set(
    environ: dict[str, str], port: str
) -> None:
    with pytest.raises(ValueError, match=rf"MASTER_PORT='{port}' .*{ALL_FOUR}"):
        set_rendezvous({**environ, "MASTER_ADDR": "head", "MASTER_PORT": port})


def _stub_mpi4py(monkeypatch: pytest.MonkeyPatch, num_known: int) -> None:
    world = SimpleNamespace(
        Get_size=lambda: num_known, Get_rank=lambda: 5, bcast=lambda _, root: ("n1", "1234")
    )
    mpi = SimpleNamespace(COMM_WORLD=world)
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=mpi))  # type: ignore[arg-type]


def test_processes_of_mpiexec_meet_where_the_first_one_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _stub_mpi4py(monkeypatch, 8)
    environ = dict(OPEN_MPI)
    set_rendezvous(environ)
    assert environ == {**OPEN_MPI, "MASTER_ADDR": "n1", "MASTER_PORT": "1234"}


def test_mpi4py_of_another_mpi_is_an_error_and_no_endless_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _stub_mpi4py(monkeypatch, 1)
    parts = r"OMPI_COMM_WORLD_SIZE=8.*mpi4py.* 1 .*mpiexec"
    with pytest.raises(ValueError, match=parts):
        set_rendezvous(dict(OPEN_MPI))


def test_number_of_local_processes_that_python_cannot_read_counts_as_unsaid() -> None:
    assert num_local_processes({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "²"}) == 1
