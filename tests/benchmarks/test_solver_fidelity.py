"""The measurement of the solvers: known figures come out, sampled and exact ones agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.exact_problems import GaussianProblem, exact_model, oracle_problems
from benchmarks.fidelity import (
    LOG_SNR,
    SOLVERS,
    UNIFORM,
    WITHOUT_ZERO,
    ChainFlags,
    Fidelity,
    Solver,
    build_process,
    linear_std,
    measure,
    sampler_options,
)
from benchmarks.fidelity_report import Measured, draw, fewest_steps, format_tables
from benchmarks.solver_fidelity import ROOT, main
from diffusion.samplers import std_share_of_last_jump
from diffusion.types import ModelVarType

STD = 5 / 127.5
CHAIN = ChainFlags()


def exact_share(solver: Solver, num_steps: int, std: float = STD) -> float:
    process = build_process(CHAIN, solver, num_steps)
    model = exact_model(
        GaussianProblem(0.0, std, (1, 1, 1)), process, solver.var_type is ModelVarType.LEARNED
    )
    return linear_std(process, model, sampler_options(solver, CHAIN)) / std


@pytest.mark.parametrize(
    ("solver", "num_steps", "share"),
    [
        (Solver("", "ancestral"), 25, 0.35),
        (Solver("", "ancestral"), 250, 0.78),
        (Solver("", "ddim"), 25, 0.47),
        (Solver("", "ddim"), 250, 0.87),
        (Solver("", "dpmpp_2m", WITHOUT_ZERO), 25, 0.26),
        (Solver("", "dpmpp_2m", WITHOUT_ZERO), 250, 0.83),
        (Solver("", "dpmpp_2m", LOG_SNR), 25, 0.97),
        (Solver("", "dpmpp_2m", LOG_SNR), 250, 0.97),
        (Solver("", "dpmpp_3m", LOG_SNR), 250, 0.97),
        (Solver("", "dpm_solver_2", LOG_SNR), 250, 0.97),
        # with timestep 0 kept the last jump is short, and the steps before it are too long
        (Solver("", "dpmpp_2m", UNIFORM), 25, 0.68),
        (Solver("", "dpmpp_2m", UNIFORM), 250, 1.00),
    ],
)
def test_share_of_five_grey_levels_is_the_known_one(
    solver: Solver, num_steps: int, share: float
) -> None:
    """Without `clip_denoised`, which is no part of a linear problem."""
    assert exact_share(solver, num_steps) == pytest.approx(share, abs=0.006)


@pytest.mark.parametrize("num_steps", [25, 250])
def test_uniform_spacing_without_timestep_0_is_limited_by_its_last_jump(num_steps: int) -> None:
    solver = Solver("", "dpmpp_2m", WITHOUT_ZERO)
    alpha_bar = float(build_process(CHAIN, solver, num_steps).coefficients.alphas_cumprod[0])
    limit = std_share_of_last_jump(STD, alpha_bar)
    assert exact_share(solver, num_steps) == pytest.approx(limit, abs=0.002)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.title)
def test_sampled_and_propagated_std_agree(solver: Solver) -> None:
    process = build_process(CHAIN, solver, 12)
    problem = GaussianProblem(0.2, STD, (1, 16, 16))
    options = sampler_options(solver, CHAIN)
    fidelity = measure([problem], process, options, 64, torch.Generator().manual_seed(0))
    # Four standard errors of the std of 16 384 values, 0.55 % each.
    assert fidelity.std_share == pytest.approx(exact_share(solver, 12), rel=0.022)
    assert fidelity.mean_error < 0.2 * max(fidelity.std_share, 1.0)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "plms", "dpmpp_2m_sde"])
def test_25_log_snr_steps_keep_the_variance_of_the_oracle(sampler: str) -> None:
    """Bimodal and heteroscedastic, so no linear problem."""
    crop = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    solver = Solver("", sampler, LOG_SNR)
    process = build_process(CHAIN, solver, 25)
    generator = torch.Generator().manual_seed(1)
    options = sampler_options(solver, CHAIN)
    fidelity = measure(oracle_problems([crop], 4, 0.5), process, options, 64, generator)
    assert fidelity.variance_standard_error < 0.01
    assert abs(fidelity.variance_error) < 0.03 + 3 * fidelity.variance_standard_error
    assert fidelity.mean_error < 0.08


def test_a_variance_that_passes_through_the_truth_is_not_yet_right() -> None:
    solver = Solver("a", "plms")
    errors = {5: -0.2, 10: 0.01, 15: 0.06, 20: 0.02, 25: -0.02}
    cells = [
        Measured("p", solver, count, Fidelity(1.0 + error, error, 0.001, 0.0))
        for count, error in errors.items()
    ]
    assert fewest_steps(cells, "p", solver) == 20
    assert fewest_steps(cells[:3], "p", solver) is None
    assert "| a | uniform | 20 |" in format_tables(cells)


def test_picture_has_a_curve_of_its_own_for_every_solver_without_eta() -> None:
    cells = [Measured("p", one, 5, Fidelity(0.9, -0.19, 0.001, 0.0)) for one in SOLVERS]
    for axis, spacing in zip(draw(cells).axes, (UNIFORM, LOG_SNR), strict=True):
        curves = [line for line in axis.lines if line.get_label() != "_"]
        wanted = [s.name for s in SOLVERS if s.spacing == spacing and s.eta == 0.0]
        assert [str(line.get_label()) for line in curves] == wanted
        assert len({line.get_color() for line in curves}) == len(wanted)


def test_script_writes_figures_table_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--steps", "3,5", "--num_images", "1", "--num_samples", "4", "--small_size", "4"]
    assert main([*words, "--output_dir", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("solver_fidelity_*.json")
    results = json.loads(path.read_text())["results"]
    assert len(results) == 2 * len(SOLVERS) * 2
    exact = [r["exact_std_share"] for r in results if r["problem"].startswith("Gaussian")]
    assert all(value > 0.0 for value in exact)
    tables = path.with_suffix(".md").read_text()
    assert "| dpmpp_2m | logsnr |" in tables and tables in capsys.readouterr().out
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "part"),
    [(["--steps", "1"], "--steps 1"), (["--num_samples", "1"], "--num_samples 1")],
)
def test_bad_flag_of_the_script_is_a_usage_error(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert part in capsys.readouterr().err


@pytest.mark.parametrize("page", ["benchmarks/README.md", "docs/samplers.md"])
def test_tables_of_the_pages_are_those_of_the_latest_results(page: str) -> None:
    latest = sorted((ROOT / "benchmarks/results").glob("solver_fidelity_*.md"))[-1]
    tables = latest.read_text(encoding="utf-8").split("\n\n**")
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = [table for table in tables if table.strip("*\n").split("**")[0] in text]
    assert len(shown) >= 2
    for table in shown:
        assert table.strip("\n") in text
