"""The form of a training: every command that it shows is one that image_train.py takes."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from image_train import create_parser
from sr_var.app.results import Refused
from sr_var.app.training import PRECISIONS, SECTIONS, Form
from utils.script_util import FlagParser

NASTY = ["a b", "it's", '$(touch x)"', "-x", "--dry_run", "~/photos", "a\nb", "`x`;&", "é", "*"]


@pytest.fixture(scope="module")
def form() -> Form:
    return Form(create_parser)


def _begin(form: Form) -> dict[str, Any]:
    return {name: form.begin(name) for name in form.flags}


def _parsed(command: str) -> Any:
    words = shlex.split(command)
    start = words.index("image_train.py")
    return create_parser().parse_args(words[start + 1 :])


def test_first_command_trains_in_the_folder_that_it_names(form: Form) -> None:
    command = form.command(_begin(form))
    assert command.startswith("python image_train.py --data_dir data/mine ")
    args = _parsed(command)
    for name in form.flags:
        assert getattr(args, name) == form.begin(name), name


@pytest.mark.parametrize("name", [name for names in SECTIONS.values() for name in names])
def test_every_value_of_a_flag_arrives_as_it_was_chosen(form: Form, name: str) -> None:
    field = form.flags[name]
    values: list[Any] = list(field.metadata["choices"] or ())
    if isinstance(field.default, bool):
        values = ["True", "False"]
    elif isinstance(field.default, int):
        values = [1, 3, 3.0]  # a page's numbers may be floats
    elif isinstance(field.default, float):
        values = [1e-5, 0.25]
    elif not values:
        values = ["0.5", "0.5,0.9"]
    beside = {"lr_anneal_steps": 10, "class_cond": True}
    beside |= {"crop": "native"} if name == "image_size" else {}
    if name == "init_from":
        beside["resume_checkpoint"] = ""
    for value in values:
        args = _parsed(form.command({**_begin(form), **beside, name: value}))
        wanted = value == "True" if isinstance(field.default, bool) else value
        assert getattr(args, name) == wanted, (name, value)


@pytest.mark.parametrize("text", NASTY)
def test_text_of_any_kind_is_one_word_of_the_command(form: Form, text: str) -> None:
    command = form.command({**_begin(form), "data_dir": text, "log_dir": text})
    args = _parsed(command)
    wanted = FlagParser.parse_args(create_parser(), [f"--data_dir={text}"]).data_dir
    assert args.data_dir == args.log_dir == wanted
    assert not args.dry_run


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_and_processes_are_chosen(form: Form, precision: str) -> None:
    command = form.command(_begin(form), precision, 4)
    assert command.startswith("torchrun --nproc_per_node 4 image_train.py ")
    args = _parsed(command)
    assert (args.use_fp16, args.use_bf16) == (precision == "fp16", precision == "bf16")


def test_emptied_number_is_the_default(form: Form) -> None:
    args = _parsed(form.command({**_begin(form), "lr": None, "num_channels": None}))
    assert (args.lr, args.num_channels) == (1e-4, 128)


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"batch_size": 0}, "--batch_size"),
        ({"batch_size": 1.5}, "--batch_size"),
        ({"data_dir": ""}, "--data_dir"),
        ({"data_dir": "a\0b"}, "data_dir"),
        ({"class_dropout": 0.1}, "--class_cond"),
        ({"lr_schedule": "cosine"}, "--lr_anneal_steps"),
        ({"optimizer": "other"}, "--optimizer"),
        ({"ema_rate": "1.5"}, "--ema_rate"),
        ({"init_from": "m.pt", "resume_checkpoint": "100"}, "--init_from"),
    ],
)
def test_what_the_parser_refuses_is_no_command(
    form: Form, values: dict[str, Any], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Refused, match=flag) as refusal:
        form.command({**_begin(form), **values})
    assert "\n" not in str(refusal.value)
    assert capsys.readouterr() == ("", "")


def test_numbers_of_processes_and_precisions_have_bounds(form: Form) -> None:
    for how in ({"num_processes": 0}, {"num_processes": 10**6}, {"precision": "fp8"}):
        with pytest.raises(Refused):
            form.command(_begin(form), **how)  # type: ignore[arg-type]
