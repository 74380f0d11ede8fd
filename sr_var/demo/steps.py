"""What each step of `make demo` does, in plain words, how long it may take, and what was trained.

The commands themselves are in `sr_var.demo.commands`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sr_var.demo.commands import (
    ITAKURA_SAITO,
    QUICK,
    Command,
    Preset,
    calibration_commands,
    oracle_commands,
    photograph_commands,
)
from utils.runs.scripts import Step, Times

_VERIFICATION = "sr_var_verification.py"


@dataclass(frozen=True)
class _Work:
    """What a script does, and the seconds of `make demo` and of `make demo QUICK=1`.

    From their `steps.json`; larger presets count as the former.
    """

    what: str
    seconds: float
    quick: float


# by script; on photographs, and on images of the oracle
_PHOTOGRAPHS: Mapping[str, _Work] = MappingProxyType(
    {
        "data/demo/make_tiles.py": _Work("cutting photographs into tiles", 8, 5),
        "sr_data_info.py": _Work("listing the tiles, for training and for testing", 4, 2),
        "sr_mean_train.py": _Work("training the net for the mean", 80, 11),
        "sr_var_train.py": _Work("training the net for the variance", 95, 13),
        "ddpm_sr_train.py": _Work("training the diffusion model to compare with", 140, 25),
        "ddpm_sr_sample.py": _Work("drawing its samples of every test image", 35, 5),
        "sr_mean_test.py": _Work("the mean of every test image, by one pass", 2, 1),
        "sr_var_test.py": _Work("the variance of every test image, by one pass", 2, 1),
        _VERIFICATION: _Work("comparing nets, samples and the real images", 7, 4),
    }
)
_CALIBRATION: Mapping[str, _Work] = MappingProxyType(
    {
        "data/demo/make_tiles.py": _Work("cutting photographs to calibrate on into tiles", 2, 1),
        "sr_data_info.py": _Work("listing these tiles", 2, 2),
        "sr_mean_test.py": _Work("their means", 2, 1),
        "sr_var_test.py": _Work("their variances", 2, 1),
        "sr_calibrate.py": _Work("making the intervals hold their level", 2, 2),
    }
)
_ORACLE: Mapping[str, _Work] = MappingProxyType(
    {
        "oracle_data.py": _Work("drawing images from a law that is known", 22, 8),
        "sr_mean_train.py": _Work("training the net for the mean on them", 38, 7),
        "sr_var_train.py": _Work("training the net for the variance on them", 50, 8),
        "sr_mean_test.py": _Work("the mean of every test image of theirs", 2, 1),
        "sr_var_test.py": _Work("the variance of every test image of theirs", 2, 1),
        "oracle_budget.py": _Work("telling whose error it is", 6, 6),
        _VERIFICATION: _Work("comparing nets and exact samples with the truth", 6, 4),
    }
)
_ORACLE_CALIBRATION: Mapping[str, _Work] = MappingProxyType(
    {
        "sr_mean_test.py": _Work("the means of further images of theirs", 5, 3),
        "sr_var_test.py": _Work("the variances of these", 5, 3),
        "sr_calibrate.py": _Work("making intervals hold with a stated probability", 4, 4),
    }
)
_TRAINED: Mapping[str, str] = MappingProxyType(
    {
        "sr_mean_train.py": "mean net",
        "sr_var_train.py": "variance net",
        "ddpm_sr_train.py": "diffusion model",
    }
)


def record_path(preset: Preset) -> str:
    """Where the seconds of the steps are kept."""
    return f"logs/demo/{preset.name}/steps.json"


def demo_steps(preset: Preset) -> list[Step]:
    """All steps of the demo in order: on photographs, with a calibration, then on the oracle.

    The tables of the verifications go to their logs alone: the demo ends in plain words.
    """
    is_quick = preset.name.startswith(QUICK.name)
    calibration = calibration_commands(preset)
    photographs = photograph_commands(preset)
    works = [_CALIBRATION if line in calibration else _PHOTOGRAPHS for line in photographs]
    oracle, further = oracle_commands(preset), preset.oracle.calibrate(ITAKURA_SAITO)
    works += [_ORACLE_CALIBRATION if line in further else _ORACLE for line in oracle]
    lines = zip([*photographs, *oracle], works, strict=True)
    return [_step(line, table[line[0]], is_quick=is_quick) for line, table in lines]


def _step(line: Command, work: _Work, *, is_quick: bool) -> Step:
    script, words = line
    more = ["--print_table", "False"] if script == _VERIFICATION else []
    return Step((script, [*words, *more]), work.what, work.quick if is_quick else work.seconds)


def what_was_trained(preset: Preset, times: Times) -> list[str]:
    """Which networks were trained on photographs, with how many steps, and how long all took.

    `times` are those of the steps of `demo_steps`; nothing is said where one is missing.
    """
    steps = demo_steps(preset)
    if any(step.line not in times for step in steps):
        return []
    parts = []
    for step in steps[: len(_PHOTOGRAPHS)]:
        script, words = step.command
        if script in _TRAINED:
            count = words[list(words).index("--max_step") + 1]
            seconds = times[step.line].seconds
            parts.append(f"{_TRAINED[script]} {count} steps, {seconds:.0f} s")
    minutes = sum(times[step.line].seconds for step in steps) / 60
    return [f"Trained: {'; '.join(parts)}.", f"The demo took {minutes:.1f} min in all."]
