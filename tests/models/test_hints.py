"""A checkpoint that does not fit is met with the flag that is wrong, and with no other."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Mapping
from typing import Any

import pytest

from models.config import EncoderConfig, UNetConfig
from models.encoder import EncoderUNet
from models.hints import explain_difference
from models.unet import SuperResModel, TimeConditionedUNet, UNetModel, VarianceModel

Changes = tuple[tuple[str, Any], ...]

BASE = {
    "image_size": 16,
    "model_channels": 16,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (8,),
    "num_heads": 1,
}
OF_DENOISERS = {"use_scale_shift_norm": True}
NETWORKS: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "mean": (UNetModel, BASE),
    "variance": (VarianceModel, BASE),
    "denoiser": (TimeConditionedUNet, BASE | OF_DENOISERS),
    "denoiser with classes": (TimeConditionedUNet, BASE | OF_DENOISERS | {"num_classes": 10}),
    "denoiser that resamples in blocks": (
        TimeConditionedUNet,
        BASE | OF_DENOISERS | {"resblock_updown": True},
    ),
    "upsampler": (SuperResModel, BASE | OF_DENOISERS),
    "deeper": (SuperResModel, BASE | {"channel_mult": (1, 1, 2), "num_res_blocks": 2}),
    "mean without convolutions": (UNetModel, BASE | {"conv_resample": False}),
    "classifier": (EncoderUNet, BASE | OF_DENOISERS),
    "classifier that resamples in blocks": (
        EncoderUNet,
        BASE | OF_DENOISERS | {"resblock_updown": True},
    ),
}
DEFAULTS = {field.name: field.default for field in dataclasses.fields(UNetConfig)}
# a change of a field → the flags that may be named for it
SINGLE: Mapping[Changes, set[str]] = {
    (("model_channels", 32),): {"--model_channels", "--num_channels"},
    (("model_channels", 48),): {"--model_channels", "--num_channels"},
    (("channel_mult", (1, 3)),): {"--channel_mult"},
    (("channel_mult", (2, 3)),): {"--channel_mult"},
    (("channel_mult", (1, 1, 1)),): {"--channel_mult"},
    (("channel_mult", (0.5, 1, 2)),): {"--channel_mult"},
    (("channel_mult", (1,)),): {"--channel_mult"},
    (("num_res_blocks", 3),): {"--num_res_blocks"},
    (("num_res_blocks", 4),): {"--num_res_blocks"},
    (("attention_resolutions", ()),): {"--attention_resolutions"},
    (("attention_resolutions", (16,)),): {"--attention_resolutions"},
    (("attention_resolutions", (16, 8, 4)),): {"--attention_resolutions"},
    (("resblock_updown", True),): {"--resblock_updown"},
    (("resblock_updown", False),): {"--resblock_updown"},
    (("conv_resample", False),): {"--conv_resample"},
    (("conv_resample", True),): {"--conv_resample"},
    (("dims", 1),): {"--dims"},
    (("dims", 3),): {"--dims"},
    (("in_channels", 1),): {"--in_channels"},
    (("in_channels", 6),): {"--in_channels"},
    (("out_channels", 6),): {"--out_channels", "--learn_sigma"},
    (("num_classes", None),): {"--class_cond"},
    (("num_classes", 5),): {"--class_cond", "--num_classes"},
    (("num_classes", 11),): {"--class_cond", "--num_classes", "--class_dropout"},
    (("use_scale_shift_norm", False),): {"--use_scale_shift_norm"},
    # what leaves no trace in names and shapes
    (("num_heads", 2),): set(),
    (("num_head_channels", 8),): set(),
    (("use_new_attention_order", True),): set(),
    (("act", "relu"),): set(),
    (("dropout", 0.5),): set(),
    (("use_checkpoint", True),): set(),
}
# more values of one field tell nothing new beside another field
IN_PAIRS = [
    change
    for change in SINGLE
    if SINGLE[change]
    and change[0]
    not in (
        ("model_channels", 48),
        ("channel_mult", (2, 3)),
        ("channel_mult", (0.5, 1, 2)),
        ("num_res_blocks", 4),
        ("attention_resolutions", (16,)),
        ("dims", 1),
        ("in_channels", 6),
        ("num_classes", 11),
    )
]
PAIRS = {
    (*one, *other): SINGLE[one] | SINGLE[other]
    for one, other in itertools.combinations(IN_PAIRS, 2)
    if one[0][0] != other[0][0]
}


@functools.cache
def _made(name: str, changes: Changes) -> tuple[UNetConfig, dict[str, tuple[int, ...]]] | None:
    """Configuration and shapes; None if there is no such network, or nothing is changed."""
    kind, base = NETWORKS[name]
    if any((DEFAULTS | base)[key] == value for key, value in changes):
        return None
    try:
        config = UNetConfig(**(base | dict(changes)))
        if kind is EncoderUNet:
            network = EncoderUNet(EncoderConfig(unet=config, num_classes=7, pool="adaptive"))
        else:
            network = kind(config)
    except ValueError:
        return None
    return config, {key: tuple(value.shape) for key, value in network.state_dict().items()}


def _hint(name: str, there: Changes, here: Changes) -> str | None:
    """The hint for a file of one network and the flags of another; None if they fit, or if not."""
    file, own = _made(name, there), _made(name, here)
    if file is None or own is None or file[1] == own[1]:
        return None
    return explain_difference(file[1], own[1], own[0])


def _named(name: str, hint: str) -> set[str]:
    """The flags that a hint names, without the two that may stand for each other."""
    is_open = name.startswith("classifier that") and "see --num_res_blocks or" in hint
    alternatives = {"--num_res_blocks", "--channel_mult"} if is_open else set()
    return set(re.findall(r"--[a-z_]+", hint)) - alternatives


@pytest.mark.parametrize("name", NETWORKS)
def test_the_flag_that_is_wrong_is_named_and_no_other(name: str) -> None:
    num_tried = 0
    for changes, allowed in SINGLE.items():
        for there, here in ((changes, ()), ((), changes)):
            hint = _hint(name, there, here)
            if hint is not None:
                assert "--" in hint and _named(name, hint) <= allowed, (there, here, hint)
                num_tried += 1
    assert num_tried > 25


@pytest.mark.parametrize("name", NETWORKS)
def test_of_two_wrong_flags_none_but_these_is_named(name: str) -> None:
    num_tried = 0
    for changes, allowed in PAIRS.items():
        for there, here in ((changes, ()), ((), changes), (changes[:1], changes[1:])):
            hint = _hint(name, there, here)
            if hint is not None:
                assert hint and _named(name, hint) <= allowed, (there, here, hint)
                num_tried += 1
    assert num_tried > 100


def test_what_leaves_no_trace_fits_without_a_hint() -> None:
    for changes, allowed in SINGLE.items():
        if not allowed:
            assert _hint("upsampler", changes, ()) is None


@pytest.mark.parametrize(
    ("name", "there", "here", "words"),
    [
        ("upsampler", (("num_classes", 10),), (), "--class_cond True"),
        ("upsampler", (), (("num_classes", 10),), "--class_cond False"),
        ("denoiser with classes", (("num_classes", 5),), (), "5 classes, not 10"),
        ("denoiser with classes", (("num_classes", 11),), (), "--class_dropout"),
        ("upsampler", (("out_channels", 6),), (), "--learn_sigma True"),
        ("upsampler", (), (("out_channels", 6),), "--learn_sigma False"),
        ("upsampler", (("use_scale_shift_norm", False),), (), "--use_scale_shift_norm False"),
        ("upsampler", (), (("use_scale_shift_norm", False),), "--use_scale_shift_norm True"),
        ("upsampler", (("channel_mult", (1, 3)),), (), "--channel_mult 1,3"),
        ("mean", (("channel_mult", (1, 0.3)),), (), "--channel_mult 1,0.25"),
        ("mean", (("channel_mult", (0.5, 1, 2)),), (), "--channel_mult 0.5,1,2"),
        ("mean", (("num_res_blocks", 3),), (), "--num_res_blocks 3"),
        ("mean", (("resblock_updown", True),), (), "--resblock_updown True"),
        ("mean", (), (("resblock_updown", True),), "--resblock_updown False"),
        ("mean", (("attention_resolutions", (16, 8)),), (), "the file are 16,8"),
        ("mean", (("attention_resolutions", ()),), (), "the file are ''"),
        ("mean", (("image_size", 32),), (), "see the image size, or"),
        ("classifier", (("num_res_blocks", 2),), (), "--num_res_blocks 2"),
    ],
)
def test_the_value_of_the_file_is_said(
    name: str, there: Changes, here: Changes, words: str
) -> None:
    assert words in str(_hint(name, there, here))


def test_a_multiplier_that_is_said_makes_the_width_of_the_file() -> None:
    """16 · 0.3 is cut to 4, and 4 / 16 would do; thirds have no end."""
    for width, base in itertools.product(range(1, 200, 7), (3, 48, 96, 1000)):
        mults = (1.0, width / base)
        hint = _hint_of_widths(mults, base)
        (said,) = re.findall(r"--channel_mult 1,(\S+)", hint) or [None]
        assert said is not None and int(float(said) * base) == int(mults[1] * base)


def _hint_of_widths(mults: tuple[float, ...], base: int) -> str:
    fields = {"image_size": 16, "model_channels": base, "num_heads": 1, "num_head_channels": 1}
    ours = UNetConfig(**fields, channel_mult=(1, 2, 3), num_res_blocks=1)
    return explain_difference(
        _first_layers((base, int(mults[1] * base))), _first_layers(ours.widths), ours
    )


def _first_layers(widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Of a mean net with one residual block per level and convolutions that resample."""
    shapes: dict[str, tuple[int, ...]] = {"input_blocks.0.0.weight": (widths[0], 3, 3, 3)}
    for level, width in enumerate(widths):
        shapes[f"input_blocks.{2 * level + 1}.0.in_layers.2.weight"] = (width, 1, 3, 3)
        if level:
            shapes[f"input_blocks.{2 * level}.0.op.weight"] = (width, width, 3, 3)
        shapes[f"output_blocks.{2 * level}.0.in_layers.0.weight"] = (width,)
    return shapes


def _kinds() -> dict[str, Any]:
    return {name: _made(name, ()) for name in ("mean", "variance", "denoiser", "classifier")}


def test_a_file_of_another_kind_of_net_is_recognised() -> None:
    expected = {
        ("denoiser", "mean"): "of a diffusion model",
        ("mean", "denoiser"): "describe a diffusion model",
        ("variance", "mean"): "mean or variance net?",
        ("classifier", "denoiser"): "the file is of a classifier",
        ("denoiser", "classifier"): "the file is of a whole U-Net",
    }
    for (there, here), words in expected.items():
        config, own = _kinds()[here]
        assert words in explain_difference(_kinds()[there][1], own, config)


@pytest.mark.parametrize("here", ["mean", "denoiser", "classifier"])
def test_a_file_of_another_architecture_is_no_classifier(here: str) -> None:
    config, own = _kinds()[here]
    foreign: dict[str, tuple[int, ...]] = {"conv_in.weight": (16, 3, 3, 3), "out.3.weight": (5, 4)}
    for shapes in (foreign, {}, {"wrapped." + name: shape for name, shape in own.items()}):
        assert "another kind" in explain_difference(shapes, own, config)


def test_names_and_shapes_of_anybody_are_no_error() -> None:
    config, own = _kinds()["denoiser"]
    odd: list[dict[str, tuple[int, ...]]] = [
        {**own, "input_blocks.0.0.weight": ()},
        {**own, "input_blocks.999999999999.0.op.weight": (1,)},
        {**own, "input_blocks.².0.op.weight": (1,), "output_blocks..": ()},
        {**own, "input_blocks.1.0.in_layers.2.weight": ()},
        {**own, "time_embed.0.weight": (0, 0), "label_emb.weight": ()},
        {name: (0,) * len(shape) for name, shape in own.items()},
        {name: (1 << 62,) * len(shape) for name, shape in own.items()},
        dict(list(own.items())[:9]),
    ]
    for shapes in odd:
        assert isinstance(explain_difference(shapes, own, config), str)


def test_nothing_is_guessed_where_nothing_differs() -> None:
    config, own = _kinds()["mean"]
    assert explain_difference(own, own, config) == ""
