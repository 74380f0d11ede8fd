"""Flags: every form of them works, every slip is an error that helps, and help comes at once."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.script_util import (
    FlagParser,
    defaults,
    flag,
    flags_of,
    from_args,
    make_parser,
    str2bool,
    whole_number,
)

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class _SharedFlags:
    use_fp16: bool = flag(False, "compute in fp16")
    log_dir: str = flag("", "folder of the log")


@dataclass(frozen=True)
class _ModelFlags(_SharedFlags):
    large_size: int = flag(256, "side of the image, pixels")
    num_heads_upsample: int = flag(-1, "heads; -1: as num_heads")
    dropout: float = flag(0.0, "probability, 50% is 0.5")
    channel_mult: str = flag("", "widths; empty: by large_size")
    noise_schedule: str = flag("linear", "how noise grows", ("linear", "cosine"))


@dataclass(frozen=True)
class _TrainFlags(_SharedFlags):
    batch_size: int = flag(1, "images per step")

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--batch_size {self.batch_size} must be at least 1")


def _parser() -> FlagParser:
    return make_parser("What it does.", model=_ModelFlags, training_flags=_TrainFlags)


def _parse(*words: str) -> Any:
    return _parser().parse_args(list(words))


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        _parse(*words)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("word", ["True", "true", "TRUE", "yes", "Yes", "y", "t", "1", " yes "])
def test_word_for_true(word: str) -> None:
    assert str2bool(word) is True
    assert _parse("--use_fp16", word).use_fp16 is True


@pytest.mark.parametrize("word", ["False", "false", "no", "NO", "n", "f", "0"])
def test_word_for_false(word: str) -> None:
    assert str2bool(word) is False
    assert _parse("--use_fp16", "True", "--use_fp16", word).use_fp16 is False


@pytest.mark.parametrize("word", ["", "2", "maybe", "truee", "None"])
def test_other_word_is_no_boolean(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="True or False"):
        str2bool(word)
    assert "--use_fp16" in _refused(capsys, "--use_fp16", word)


def test_repeated_flag_the_last_wins() -> None:
    args = _parse("--large_size", "64", "--large_size=128", "--dropout", ".1", "--dropout", "0.2")
    assert (args.large_size, args.dropout) == (128, 0.2)


def test_flags_that_are_not_given_have_their_defaults() -> None:
    assert from_args(_ModelFlags, _parse()) == _ModelFlags()
    assert defaults(_ModelFlags)["channel_mult"] == "" and len(defaults(_ModelFlags)) == 7


def test_negative_numbers_and_empty_words_are_values() -> None:
    args = _parse("--num_heads_upsample", "-1", "--dropout", "-.5", "--channel_mult", "")
    assert (args.num_heads_upsample, args.dropout, args.channel_mult) == (-1, -0.5, "")


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("--larg_size", "--large_size"),
        ("--large-size", "--large_size"),
        ("--batchsize=3", "--batch_size"),
        ("--use_fp_16", "--use_fp16"),
    ],
)
def test_unknown_flag_ends_with_2_and_the_nearest_name(
    word: str, nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _refused(capsys, "--large_size", "64", word, "7")
    # the sentence is held on purpose: a slip of the hand is common
    assert f"unknown flag {word.split('=')[0]} (did you mean {nearest}?)" in said


def test_every_unknown_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused(capsys, "--dropouts", "1", "--xyz", "2")
    assert "--dropout?" in said and "unknown flag --xyz" in said
    assert "--xyz (did" not in said


def test_abbreviation_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--large_size?" in _refused(capsys, "--large", "64")


def test_word_without_a_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "words: 64" in _refused(capsys, "64")


@pytest.mark.parametrize(
    "words", [["--large_size", "big"], ["--noise_schedule", "sine"], ["--dropout"]]
)
def test_value_that_does_not_fit_ends_with_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert words[0] in _refused(capsys, *words)


@pytest.mark.parametrize("words", [["--local_rank", "3"], ["--local-rank=3"]])
def test_both_spellings_of_the_launcher_are_accepted(words: list[str]) -> None:
    assert _parse(*words).local_rank == 3


def test_help_shows_groups_defaults_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        _parse("--help")
    assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for part in (
        "What it does.",
        "model:",
        "training flags:",
        "side of the image, pixels (default: 256)",
        "probability, 50% is 0.5 (default: 0.0)",
        'widths; empty: by large_size (default: "")',
        "{linear,cosine} how noise grows (default: linear)",
        "--use_fp16 BOOL",
    ):
        assert part in said
    assert said.count("compute in fp16") == 1  # one flag, one text
    assert "local_rank" not in said


def test_flag_of_two_groups_reaches_both() -> None:
    args = _parse("--use_fp16", "yes")
    assert from_args(_ModelFlags, args).use_fp16 and from_args(_TrainFlags, args).use_fp16


def test_value_that_the_dataclass_refuses_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        from_args(_TrainFlags, _parse("--batch_size", "0"))
    assert stop.value.code == 2
    # the sentence is held on purpose: all usage errors have its form
    assert capsys.readouterr().err == "error: --batch_size 0 must be at least 1\n"


def test_group_may_give_an_inherited_flag_another_default() -> None:
    @dataclass(frozen=True)
    class Flags(_ModelFlags):
        noise_schedule: str = "cosine"
        steps: int = flag(3, "how many")

    names = [field.name for field in flags_of(Flags)]
    assert names[0] == "steps" and names[-2:] == ["use_fp16", "log_dir"]  # its own come first
    (found,) = (field for field in flags_of(Flags) if field.name == "noise_schedule")
    assert found.default == "cosine" and found.metadata["choices"] == ("linear", "cosine")
    assert "noise grows (default: cosine)" in make_parser("", model=Flags).format_help()
    assert _ModelFlags().noise_schedule == "linear" == _parse().noise_schedule


def test_field_that_is_no_flag_is_a_programming_error() -> None:
    @dataclass(frozen=True)
    class Flags(_ModelFlags):
        noise_shedule: str = "cosine"

    with pytest.raises(ValueError, match="noise_shedule"):
        make_parser("", model=Flags)


@dataclass(frozen=True)
class _OtherDefault(_SharedFlags):
    log_dir: str = "logs"


@dataclass(frozen=True)
class _OtherText:
    log_dir: str = flag("", "where the log is")


@dataclass(frozen=True)
class _OtherKind:
    log_dir: str = flag("", "folder of the log", is_free=True)


@pytest.mark.parametrize("other", [_OtherDefault, _OtherText, _OtherKind])
def test_second_other_declaration_of_a_flag_is_a_programming_error(other: type[Any]) -> None:
    with pytest.raises(ValueError, match=r"--log_dir .*first group.*second group"):
        make_parser("", first_group=_ModelFlags, second_group=other)
    make_parser("", first_group=other, second_group=other)


@pytest.mark.parametrize("script", ["sr_mean_train", "sr_var_verification", "ddpm_sr_sample"])
def test_help_of_a_script_needs_neither_torch_nor_numpy(script: str) -> None:
    code = (
        f"import sys, {script}\n"
        "try:\n"
        f"    {script}.main(['--help'])\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "(default: " in done.stdout


@given(text=st.text(max_size=40) | st.from_regex(r"[-+]?[0-9]{1,30}(\.[0-9]*)?(e[0-9]{1,5})?"))
def test_any_text_is_a_number_of_64_bits_or_refused(text: str) -> None:
    for parse in (whole_number, str2bool):
        try:
            value = parse(text)
        except argparse.ArgumentTypeError as error:
            assert repr(text) in str(error)
        else:
            assert -(2**63) < value < 2**63


def test_number_beyond_64_bits_is_refused() -> None:
    for text in ("99999999999999999999", "1e19", "-9223372036854775808"):
        with pytest.raises(argparse.ArgumentTypeError, match="whole number"):
            whole_number(text)
