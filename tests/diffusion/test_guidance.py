"""Guidance: branches, gradients, timesteps and labels; what is sampled is `test_guidance_law`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.guidance import classifier_free, classifier_gradient
from diffusion.process import GaussianDiffusion
from diffusion.samplers import SamplerOptions, sample_loop
from diffusion.types import ModelMeanType
from models.config import EncoderConfig
from models.encoder import EncoderUNet
from models.unet import SuperResModel, TimeConditionedUNet
from tests.diffusion.chains import Chain, GaussianClasses, standard_normal
from tests.models.nets import fill, small_config

CHAIN = Chain(respacing="200", mean_type=ModelMeanType.EPSILON)
NULL = GaussianClasses.NULL
SHAPE = (4, 2, 1, 1)
X = standard_normal(0, SHAPE).double()
T = torch.tensor([0, 20, 100, 199])
Y = torch.tensor([0, 1, 1, 0])


def build(**changes: Any) -> tuple[GaussianDiffusion, GaussianClasses]:
    process = dataclasses.replace(CHAIN, **changes).build()
    return process, GaussianClasses(process)


# -- Without a classifier


def test_guided_noise_is_linear_in_the_scale_from_no_class_to_the_class() -> None:
    process, data = build()
    t = process.network_timesteps(T)
    known, unknown = data.eps(X, t, Y), data.eps(X, t, torch.full_like(Y, NULL))
    for scale in (0.0, 1.0, 1.5, 4.0, -1.0):
        guided = classifier_free(data.eps, scale, NULL)(X, t, y=Y)
        torch.testing.assert_close(guided, (1 - scale) * unknown + scale * known)


def test_scale_one_calls_the_conditional_branch_alone_and_others_one_doubled_batch() -> None:
    process, data = build()
    t = process.network_timesteps(T)
    for scale, rows in ((1.0, [4]), (2.0, [8]), (0.0, [8])):
        data.num_rows.clear()
        classifier_free(data.eps, scale, NULL)(X, t, y=Y)
        assert data.num_rows == rows


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_learned_variance_is_that_of_the_class(scale: float) -> None:
    def model(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x * y.view(-1, 1, 1, 1), x + y.view(-1, 1, 1, 1)], dim=1)

    guided = classifier_free(model, scale, NULL)(X, T, Y)
    rows = Y.view(-1, 1, 1, 1)
    torch.testing.assert_close(guided[:, :2], X * NULL + scale * X * (rows - NULL))
    assert torch.equal(guided[:, 2:], X + rows)


@pytest.mark.parametrize("is_upsampler", [False, True])
def test_labels_may_be_embedded_once_and_conditions_are_doubled(is_upsampler: bool) -> None:
    config = small_config(num_classes=3, out_channels=6)
    model = fill((SuperResModel if is_upsampler else TimeConditionedUNet)(config))
    x, t, y = standard_normal(1, (2, 3, 16, 16)), torch.tensor([5, 700]), torch.tensor([0, 1])
    low_res = {"low_res": standard_normal(2, (2, 3, 4, 4))} if is_upsampler else {}
    by_label = classifier_free(model, 2.5, 2)(x, t, y=y, **low_res)
    conditions: dict[str, Tensor] = {"y": model.embed_labels(y)}
    if isinstance(model, SuperResModel):
        conditions = model.condition(low_res["low_res"], (16, 16), y)
    null = model.embed_labels(torch.tensor([2]))[0]
    by_embedding = classifier_free(model, 2.5, null)(x, t, **conditions)
    torch.testing.assert_close(by_embedding, by_label)
    known, unknown = (model(x, t, y=label, **low_res) for label in (y, torch.full_like(y, 2)))
    expected = unknown[:, :3] + 2.5 * (known[:, :3] - unknown[:, :3])
    torch.testing.assert_close(by_label[:, :3], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(by_label[:, 3:], known[:, 3:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("null_label", "conditions", "words"),
    [
        (NULL, {}, "y is missing"),
        (NULL, {"y": torch.zeros(4, 8)}, "null_label 2 a number: give the embedding"),
        (torch.zeros(8), {"y": Y}, "both as embeddings"),
        (torch.zeros(7), {"y": torch.zeros(4, 8)}, r"shape \(7,\), y \(4, 8\)"),
        (NULL, {"y": Y, "low_res": X[:2]}, "low_res of shape .*one row per example, 4"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(
    null_label: int | Tensor, conditions: dict[str, Tensor], words: str
) -> None:
    guided = classifier_free(lambda x, t, y, low_res=None: x, 2.0, null_label)
    with pytest.raises(ValueError, match=words):
        guided(X, T, **conditions)


def test_an_output_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="for 8 examples of 2 channels"):
        classifier_free(lambda x, t, y: x[:, :1], 2.0, NULL)(X, T, y=Y)


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_a_scale_that_is_not_finite_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="--guidance_scale"):
        classifier_free(lambda x, t, y: x, scale, NULL)
    with pytest.raises(ValueError, match="--classifier_scale"):
        classifier_gradient(lambda x, t: x, scale)


# -- With a classifier


def linear(x: Tensor, t: Tensor) -> Tensor:
    return t[:, None].to(x) * x.flatten(1) / 100 @ WEIGHT.to(x).T


WEIGHT = standard_normal(3, (5, 2)).double()


def test_gradient_of_a_linear_softmax_is_its_closed_form() -> None:
    y = torch.tensor([0, 4, 2, 2])
    factors = T[:, None].double() / 100
    probabilities = torch.softmax(linear(X, T), dim=1)
    expected = 2.5 * factors * (WEIGHT[y] - probabilities @ WEIGHT)
    gradient = classifier_gradient(linear, 2.5)(X, T, y=y, low_res="not the classifier's")
    torch.testing.assert_close(gradient, expected.view(SHAPE))
    bound = classifier_gradient(linear, 2.5, labels=y)
    assert torch.equal(bound(X, T), gradient)
    assert torch.equal(bound(X, T, y=torch.zeros(4, 8)), gradient)


def test_gradients_need_not_be_on_and_leave_no_trace() -> None:
    cond_fn, t = classifier_gradient(linear, 1.0), T.double()  # as rescaled timesteps are
    expected = cond_fn(X, t, y=Y)
    with torch.no_grad():
        assert torch.equal(cond_fn(X, t, y=Y), expected)
    with torch.inference_mode():
        assert torch.equal(cond_fn(X + 0, t + 0, y=Y + 0), expected)
    assert not expected.requires_grad and not X.requires_grad


def test_log_probabilities_of_half_precision_logits_are_taken_in_single_precision() -> None:
    """900 equal logits have no gradient; -log 900 in bfloat16 is off by 1 %, and so would they."""
    gradient = classifier_gradient(
        lambda x, t: x.flatten(1).sum(1, keepdim=True).bfloat16().expand(-1, 900), 1.0
    )(X.float(), T, y=Y)
    assert gradient.dtype == torch.float32
    assert gradient.abs().max() < 0.006


@pytest.mark.parametrize("is_rescaled", [False, True])
@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpmpp_2m"])
def test_a_classifier_gets_the_timesteps_of_the_network(sampler: str, is_rescaled: bool) -> None:
    process, _ = build(respacing="7", num_steps=500, rescale_timesteps=is_rescaled)
    seen: dict[str, list[list[float]]] = {"network": [], "classifier": []}

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        seen["network"].append(t.tolist())
        return x

    def classifier(x: Tensor, t: Tensor) -> Tensor:
        seen["classifier"].append(t.tolist())
        return x.flatten(1)

    cond_fn = classifier_gradient(classifier, 1.0)
    options = SamplerOptions(sampler=sampler, cond_fn=cond_fn, model_kwargs={"y": Y})
    sample_loop(process, network, X, lambda k: X, options)
    steps = process.timestep_map[::-1] * (2.0 if is_rescaled else 1.0)
    assert seen["classifier"] == seen["network"] == [[step] * 4 for step in steps]


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (None, "no labels: .*labels="),
        (torch.zeros(4, 8), r"labels \(4, 8\) of torch.float32"),
        (Y[:3], r"a classifier needs \(4,\) integers"),
        (Y + 4, "label 5: the classifier knows 0 to 4"),
        (Y - 1, "label -1"),
    ],
)
def test_wrong_labels_are_refused(y: Tensor | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        classifier_gradient(linear, 1.0)(X, T, y=y)


def test_gradient_of_the_noise_aware_classifier_is_its_slope() -> None:
    config = EncoderConfig(unet=small_config(), num_classes=3, pool="attention")
    model = fill(EncoderUNet(config)).double()
    x, direction = standard_normal(1, (2, 2, 3, 16, 16)).double().unbind(0)
    t, y, step = torch.tensor([5, 700]), torch.tensor([0, 2]), 1e-5
    gradient = classifier_gradient(model, 1.0)(x, t, y=y)
    ends = [
        torch.log_softmax(model(x + sign * step * direction, t), 1)[torch.arange(2), y]
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), slope, atol=1e-7, rtol=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())
