"""The demo's commands are ones that a user could type, and fit together."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from demo import DemoFlags, pick_preset
from sr_var.data.oracle import CALIBRATION_FILE
from sr_var.demo.commands import (
    CPU,
    GPU,
    ITAKURA_SAITO,
    QUICK,
    Command,
    Preset,
    calibration_commands,
    commands,
    oracle_commands,
    photograph_commands,
)
from sr_var.demo.steps import demo_steps, record_path, what_was_trained
from sr_var.demo.words import in_plain_words
from sr_var.script_util import create_mean_model, create_var_model, sr_create_model_and_diffusion
from tests import cpus
from utils.runs.scripts import Taken

PRESETS = pytest.mark.parametrize("preset", [CPU, QUICK, GPU], ids=lambda preset: preset.name)


def _parse(steps: list[Command]) -> dict[str, dict[str, object]]:
    parsed = {}
    for script, words in steps:
        module = script.removesuffix(".py").replace("/", ".")
        parser = importlib.import_module(module).create_parser()
        parsed[script] = vars(parser.parse_args(words))
    return parsed


def _of_oracle(preset: Preset) -> list[Command]:
    """Those that neither calibrate nor test for it."""
    further = preset.oracle.calibrate(ITAKURA_SAITO)
    return [line for line in oracle_commands(preset) if line not in further]


@PRESETS
def test_the_parsers_take_every_command_of_the_demo(preset: Preset) -> None:
    assert len(_parse(commands(preset))) == 9
    assert len(_parse(calibration_commands(preset))) == 5
    assert len(_parse(oracle_commands(preset))) == 8


@pytest.mark.parametrize(("cpu", "is_bf16"), [(cpus.ZEN_4, True), (cpus.AVX2, False)])
def test_trainings_are_in_bf16_where_the_cpu_has_it(
    cpu: cpus.Cpu, is_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus.compute_on(cpu, monkeypatch)
    preset = pick_preset(DemoFlags())
    for lines in (commands(preset), oracle_commands(preset), calibration_commands(preset)):
        for script, args in _parse(lines).items():
            assert args.get("use_bf16", False) is (is_bf16 and script.endswith("_train.py"))
    assert not pick_preset(DemoFlags(quick=True)).nets.in_bf16


@PRESETS
def test_the_oracle_check_reads_what_it_wrote_and_nothing_of_the_photographs(
    preset: Preset,
) -> None:
    parsed = _parse(_of_oracle(preset))
    data, verification = parsed["oracle_data.py"], parsed["sr_var_verification.py"]
    assert verification["ddpm_sr_output_dir"] == data["sample_dir"]
    assert verification["num_samples"] == data["num_samples"]
    assert verification["data_dir"] == f"{data['output_dir']}/images"
    assert verification["log_dir"] == parsed["oracle_budget.py"]["log_dir"]
    train, test = parsed["sr_mean_train.py"], parsed["sr_mean_test.py"]
    assert test["model_path"] == f"{train['model_save_dir']}/model{train['max_step']:06d}.pt"
    assert verification["mean_model_step"] == train["max_step"]
    own = {args["log_dir"] for args in parsed.values()}
    others = _parse(commands(preset)).values()
    assert not own & {args["log_dir"] for args in others if "log_dir" in args}


@PRESETS
def test_a_command_reads_what_an_earlier_one_wrote(preset: Preset) -> None:
    parsed = _parse(commands(preset))
    train, test = parsed["sr_mean_train.py"], parsed["sr_mean_test.py"]
    model = f"{train['model_save_dir']}/model{train['max_step']:06d}.pt"
    assert test["model_path"] == model == parsed["sr_var_train.py"]["mean_model_path"]
    assert test["log_dir"] == train["log_dir"]
    verification = parsed["sr_var_verification.py"]
    assert verification["mean_model_step"] == train["max_step"]
    assert verification["var_model_step"] == parsed["sr_var_train.py"]["max_step"]
    assert verification["num_samples"] == parsed["ddpm_sr_sample.py"]["num_samples_per_image"]
    assert verification["ddpm_sr_output_dir"] == parsed["ddpm_sr_sample.py"]["output_dir"]
    tiles, info = (parsed["sr_data_info.py"][name] for name in ("data_dir", "output_dir"))
    assert parsed["data/demo/make_tiles.py"]["output_dir"] == Path(str(tiles))
    assert verification["data_info_dict_path"] == f"{info}/to_sample_data_info.pkl"


@PRESETS
def test_the_calibration_is_of_the_nets_and_of_other_photographs(preset: Preset) -> None:
    parsed, demo = _parse(calibration_commands(preset)), _parse(commands(preset))
    made, verification = parsed["sr_calibrate.py"], demo["sr_var_verification.py"]
    assert verification["calibration"] == f"{made['output_dir']}/calibration.json"
    for name in ("mean_model_step", "var_model_step", "large_size"):
        assert made[name] == verification[name]
    for script in ("sr_mean_test.py", "sr_var_test.py"):
        assert parsed[script]["model_path"] == demo[script]["model_path"]
        assert parsed[script]["output_dir"] == made["sr_model_output_dir"]
        assert made["sr_model_output_dir"] != verification["sr_model_output_dir"]
    assert parsed["data/demo/make_tiles.py"]["splits"] == "calibration"


@PRESETS
def test_the_oracle_is_calibrated_on_further_images_of_its_own(preset: Preset) -> None:
    demo = _parse(_of_oracle(preset))
    parsed, data = _parse(preset.oracle.calibrate(ITAKURA_SAITO)), demo["oracle_data.py"]
    made, verification = parsed["sr_calibrate.py"], demo["sr_var_verification.py"]
    assert made["method"] == "risk_control" and data["num_calibration_crops"] == 400
    assert made["cluster"] == "image"  # pieces of twelve photographs, which would be too few
    assert verification["calibration"] == f"{made['output_dir']}/calibration.json"
    for name in ("mean_model_step", "var_model_step", "large_size", "data_dir"):
        assert made[name] == verification[name]
    for script in ("sr_mean_test.py", "sr_var_test.py"):
        assert parsed[script]["model_path"] == demo[script]["model_path"]
        assert parsed[script]["output_dir"] == made["sr_model_output_dir"]
        assert made["sr_model_output_dir"] != verification["sr_model_output_dir"]
        images = f"{data['output_dir']}/{CALIBRATION_FILE}"
        assert parsed[script]["data_info_dict_path"] == made["data_info_dict_path"] == images


@PRESETS
def test_another_seed_has_its_own_folders_and_the_same_sizes(preset: Preset) -> None:
    other = preset.with_seed(3)
    assert preset.with_seed(0) == preset
    for make in (commands, calibration_commands, oracle_commands):
        first, second = _parse(make(preset)), _parse(make(other))
        for script, args in first.items():
            theirs = second[script]
            for name, value in args.items():
                if (
                    name.endswith(("_dir", "_path", "calibration"))
                    and f"/{preset.name}" in str(value)
                    and str(value) != "data/demo"
                ):
                    own = f"/{other.name}".join(str(value).rsplit(f"/{preset.name}", 1))
                    assert str(theirs[name]) == own
                elif name not in ("given_flags", "seed"):
                    assert theirs[name] == value, (script, name)
            if "sr_" in script and ("train" in script or "sample" in script):
                assert (args["seed"], theirs["seed"]) == (0, 3)


@PRESETS
def test_the_flags_of_the_demo_make_networks_and_a_process(preset: Preset) -> None:
    from dataclasses import fields

    from ddpm.flags import DiffusionFlags
    from sr_var.flags import scripts as flags

    def take(args: dict[str, object], *classes: type) -> dict[str, object]:
        names = {field.name for group in classes for field in fields(group)}
        return {name: args[name] for name in names}

    parsed = _parse(commands(preset))
    create_mean_model(**take(parsed["sr_mean_train.py"], flags.MeanModelFlags))
    create_var_model(**take(parsed["sr_var_train.py"], flags.VarModelFlags))
    groups = flags.SRDiffusionModelFlags, DiffusionFlags
    _, process = sr_create_model_and_diffusion(**take(parsed["ddpm_sr_sample.py"], *groups))
    assert process.num_timesteps == sum(int(part) for part in preset.respacing.split(","))


@PRESETS
def test_the_steps_are_the_commands_in_order_each_in_words_of_its_own(preset: Preset) -> None:
    plain = [*photograph_commands(preset), *oracle_commands(preset)]
    steps = demo_steps(preset)
    assert [step.command[0] for step in steps] == [script for script, _ in plain]
    assert len({step.what for step in steps}) == len({step.line for step in steps}) == len(plain)
    assert all(step.guess > 0 for step in steps)
    for step, (script, words) in zip(steps, plain, strict=True):
        is_verification = script == "sr_var_verification.py"
        more = ["--print_table", "False"] if is_verification else []
        assert list(step.command[1]) == [*words, *more]
    _parse([(script, list(words)) for script, words in (step.command for step in steps)])
    assert record_path(preset).startswith("logs/demo/demo")  # as make clean removes it


def test_what_was_trained_is_told_with_steps_and_seconds() -> None:
    steps = demo_steps(CPU)
    seconds = dict.fromkeys((step.line for step in steps), 6.0)
    mean = next(step for step in steps if step.command[0] == "sr_mean_train.py")
    seconds[mean.line] = 95.4
    times = {line: Taken(value, True) for line, value in seconds.items()}
    trained, whole = what_was_trained(CPU, times)
    assert trained == (
        f"Trained: mean net {CPU.mean_steps} steps, 95 s; variance net {CPU.var_steps} steps, 6 s; "
        f"diffusion model {CPU.diffusion_steps} steps, 6 s."
    )
    assert whole == f"The demo took {(95.4 + 6 * 23) / 60:.1f} min in all."
    del times[steps[3].line]
    assert what_was_trained(CPU, times) == []


def test_findings_are_told_in_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos = {
        "num_images": 3,
        "num_samples": 8,
        "calibration": {
            "nets": {"coverage_95": 0.9512, "z2": 1.04},
            "samples": {"coverage_95": 0.76, "z2": 8.0},
        },
        "calibrated": {
            "level": 0.9,
            "cluster": "photograph",
            "num_units": 12,
            "num_test_units": 11,
            "raw_coverage": 0.874,
            "coverage": 0.953,
        },
        "high_res": {"psnr_net": 26.0, "psnr_bilinear": 24.6, "psnr_samples": 26.5},
        "cost": {"nets": {"evaluations_per_image": 2}, "samples": {"evaluations_per_image": 96}},
    }
    routes = {"nets": (0.004, 0.05), "samples": (0.01, 0.11)}
    truth = {
        kind: dict(zip(("relative_mse", "relative_var_error"), pair, strict=True))
        for kind, pair in routes.items()
    }
    with_probability = {
        "level": 0.9,
        "delta": 0.1,
        "num_units": 400,
        "raw_coverage": 0.893,
        "coverage": 0.931,
    }
    oracle = {"truth": truth, "calibrated": with_probability}
    folders = (QUICK.log_dir, QUICK.oracle.log_dir(ITAKURA_SAITO))
    for folder, results in zip(folders, (photos, oracle), strict=True):
        Path(folder).mkdir(parents=True)
        Path(folder, "results.json").write_text(json.dumps(results))
    said = "\n".join(in_plain_words(QUICK))
    for part in ("hold 87.4 %; calibrated on 12 other photographs, 95.3 %", "of 11 photographs"):
        assert part in said
    for part in ("hold 89.3 %; calibrated on 400 further images, 93.1 %", "probability of 90 %"):
        assert part in said
    for part in ("95.1 %", "1.04", "+1.4 dB", "-0.5 dB", "0.40 %", "5.0 %", "11.0 %", "of 96"):
        assert part in said
