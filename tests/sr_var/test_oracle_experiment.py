"""The commands of an experiment on the oracle: parsers take them, and they fit together."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from sr_var.demo.commands import ROUTES, Command, Nets, OracleExperiment, Route

EXPERIMENT = OracleExperiment(
    name="some",
    nets=Nets(16, channel_mult="1,1,2"),
    batch_size=8,
    lr=1e-3,
    num_crops=20,
    num_test_crops=3,
    mean_steps=30,
    var_steps=40,
)
EVERY_ROUTE = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)


def _parse(commands: list[Command]) -> list[tuple[str, Mapping[str, Any]]]:
    """Every script's flags are checked as the script does."""
    found = []
    for script, words in commands:
        parser = importlib.import_module(script.removesuffix(".py")).create_parser()
        found.append((script, vars(parser.parse_args(words))))
    return found


@EVERY_ROUTE
def test_what_is_tested_and_judged_was_trained(route: Route) -> None:
    parsed = _parse(EXPERIMENT.commands([route]))
    trained = {
        f"{args['model_save_dir']}/model{args['max_step']:06d}.pt"
        for script, args in parsed
        if script.endswith("_train.py")
    }
    tested = [args for script, args in parsed if script.endswith("_test.py")]
    assert {args["model_path"] for args in tested} <= trained
    verification = dict(parsed)["sr_var_verification.py"]
    assert {args["output_dir"] for args in tested} == {verification["sr_model_output_dir"]}
    steps = (verification["mean_model_step"], verification["var_model_step"])
    assert steps == (70 if route.is_baseline else 30, 70 if route.is_baseline else 40)
    assert verification["log_dir"] == EXPERIMENT.log_dir(route)


@EVERY_ROUTE
def test_intervals_of_every_route_are_calibrated_on_images_that_are_not_judged(
    route: Route,
) -> None:
    parsed = _parse(replace(EXPERIMENT, num_calibration_crops=22).commands([route]))
    by_script = dict(parsed)
    made, judged = by_script["sr_calibrate.py"], by_script["sr_var_verification.py"]
    assert judged["calibration"] == f"{made['output_dir']}/calibration.json"
    assert made["data_info_dict_path"] != judged["data_info_dict_path"]
    assert made["mean_model_step"] == judged["mean_model_step"]
    tests = [args for script, args in parsed if script.endswith("_test.py")]
    results = [made["sr_model_output_dir"], judged["sr_model_output_dir"]]
    assert len({*results}) == 2 and {args["output_dir"] for args in tests} == {*results}
    assert len(_parse(EXPERIMENT.commands([route]))) == len(parsed) - 1 - len(tests) // 2


@EVERY_ROUTE
def test_residuals_come_from_the_nets_of_the_folds(route: Route) -> None:
    parsed = _parse(EXPERIMENT.train(route))
    folds = [args for script, args in parsed if script == "sr_mean_train.py"]
    assert [args["fold"] for args in folds] == list(range(route.num_folds))
    for args in folds:
        var_args = dict(parsed)["sr_var_train.py"]
        path = var_args["mean_model_path"].replace("{fold}", str(args["fold"]))
        assert path == f"{args['model_save_dir']}/model{args['max_step']:06d}.pt"
        assert var_args["cross_fit"] == args["cross_fit"] == route.num_folds


def test_routes_share_nothing_but_data_and_mean_net() -> None:
    folders = [
        args["model_save_dir"] for route in ROUTES for _, args in _parse(EXPERIMENT.train(route))
    ]
    assert len(folders) == len(set(folders)) == len(ROUTES) + 2
