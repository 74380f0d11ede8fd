"""Mean and variance nets that know the class: what labels change, and what they leave alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.config import SubpixelConfig
from models.hints import explain_subpixel, shapes_of
from models.subpixel import SubpixelModel, SubpixelVarianceModel
from models.unet import UNetModel, VarianceModel
from tests.models.nets import noise, small_config
from tests.tiny import shake

NUM_CLASSES = 3
KINDS: dict[str, Callable[..., nn.Module]] = {
    "unet mean": lambda **own: UNetModel(small_config(**own)),
    "unet variance": lambda **own: VarianceModel(small_config(last_layer_type="softplus", **own)),
    "subpixel mean": lambda **own: SubpixelModel(_subpixel(consistent=True, **own)),
    "subpixel variance": lambda **own: SubpixelVarianceModel(
        _subpixel(last_layer_type="softplus", **own)
    ),
}


def _subpixel(**own: Any) -> SubpixelConfig:
    return SubpixelConfig(factor=2, model_channels=8, num_res_blocks=2, **own)


def _new(kind: str, **own: Any) -> nn.Module:
    torch.manual_seed(0)
    return KINDS[kind](**own)


def _output(net: nn.Module, kind: str, y: Tensor | None) -> Tensor:
    low_res, mean = noise(3, 3, 8, 8), noise(3, 3, 16, 16, seed=1)
    second: Any = (16, 16) if kind.endswith("mean") else mean
    output: Tensor = net(low_res, second, y=y)
    return output


@pytest.mark.parametrize("kind", KINDS)
def test_labels_add_parameters_and_rename_none(kind: str) -> None:
    names, plain = (set(shapes_of(_new(kind, **own).state_dict())) for own in _BOTH)
    assert plain < names
    added = names - plain
    assert "label_emb.weight" in added
    assert all("label" in name or ".emb_layers.1." in name for name in added)


_BOTH: tuple[dict[str, Any], dict[str, Any]] = ({"num_classes": NUM_CLASSES}, {})


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_net_with_the_weights_of_one_without_classes_computes_the_same(kind: str) -> None:
    net, plain = (_new(kind, **own) for own in _BOTH)
    shake(plain)
    lacking, unexpected = net.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and lacking and all(map(net.is_neutral_when_new, lacking))
    expected = _output(plain, kind, None)
    for label in range(NUM_CLASSES):
        found = _output(net, kind, torch.full((3,), label))
        assert torch.equal(found, expected)  # 0 is added to, 1 multiplied with, what is there


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_reaches_the_embedding_of_the_labels_that_were_given(kind: str) -> None:
    net = _new(kind, num_classes=NUM_CLASSES)
    own = {name: value.clone() for name, value in net.state_dict().items() if "emb" in name}
    shake(net)
    net.load_state_dict(own, strict=False)  # as they begin, behind layers that are not zero
    _output(net, kind, torch.tensor([0, 2, 2])).square().sum().backward()
    gradient = net.label_emb.weight.grad
    assert gradient.abs().sum(dim=1).gt(0).tolist() == [True, False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_depends_on_its_own_label_alone(kind: str) -> None:
    net = shake(_new(kind, num_classes=NUM_CLASSES))
    first, other = (_output(net, kind, torch.tensor(y)) for y in ([0, 1, 2], [0, 1, 1]))
    torch.testing.assert_close(first[:2], other[:2], rtol=1e-5, atol=1e-5)  # sums in fp32
    assert (first[2] - other[2]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_labels_enter_convolutions_of_16_bits(kind: str) -> None:
    net, y = shake(_new(kind, num_classes=NUM_CLASSES)), torch.tensor([0, 1, 2])
    expected = _output(net, kind, y)
    net.convert_torso(torch.bfloat16)
    found = _output(net, kind, y)
    assert found.dtype == torch.float32
    # bf16 has 8 bits: 2⁻⁸ of a value, some ten layers deep; the largest values count
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()
    assert (found - expected).abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("num_classes", "y", "words"),
    [
        (NUM_CLASSES, None, "y is missing"),
        (NUM_CLASSES, torch.tensor([0, 1]), "one label per image"),
        (NUM_CLASSES, torch.tensor([0, 1, 3]), "knows 0 to 2"),
        (NUM_CLASSES, torch.tensor([0.0, 1.0, 2.0]), "integer labels"),
        (None, torch.tensor([0, 1, 2]), "without classes"),
    ],
)
def test_wrong_labels_are_refused(
    kind: str, num_classes: int | None, y: Tensor | None, words: str
) -> None:
    net = _new(kind, num_classes=num_classes)
    with pytest.raises(ValueError, match=words):
        _output(net, kind, y)


def test_a_number_of_classes_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="num_classes"):
        _subpixel(num_classes=0)


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [(2, None, "--class_cond True"), (None, 2, "--class_cond False"), (2, 3, "--num_classes")],
)
@pytest.mark.parametrize("kind", ["unet mean", "subpixel mean"])
def test_a_file_of_other_classes_is_explained(
    kind: str, there: int | None, here: int | None, words: str
) -> None:
    file, net = (_new(kind, num_classes=count) for count in (there, here))
    told = net.explain_mismatch(shapes_of(file.state_dict()))
    assert words in told and told.count(";") == 0  # nothing else is said to be wrong


def test_the_labels_of_a_subpixel_file_are_told_beside_its_width() -> None:
    shapes = [shapes_of(SubpixelModel(_subpixel(num_classes=n)).state_dict()) for n in (2, 3)]
    assert "knows 2 classes, not 3" in explain_subpixel(*shapes, 2)
