"""What the network of each kind computes, in plain words for its model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from sr_var.flags.degradation import AREA, is_measured
from weights.networks import (
    BASELINE,
    CLASSIFIER,
    DENOISER,
    MEAN,
    SMALL_CLASSIFIER,
    SR_DENOISER,
    VARIANCE,
    Kind,
    kind_of,
)
from weights.source import Source

TO_IMAGE, TO_CLASS, GENERATION = (
    "image-to-image",
    "image-classification",
    "unconditional-image-generation",
)
_RANGE = "in [-1, 1], which is the range of the flag value_range or, without one, 0 to 255"


@dataclass(frozen=True)
class Words:
    """What a card says of a kind of network.

    Attributes:
        task: the pipeline tag of the Hugging Face hub.
        tags: further ones.
        computes: a sentence or two.
        inputs: name → what it is.
        output: what comes out.
        command: how a script of the toolkit uses the file, `{}`.
    """

    task: str
    tags: tuple[str, ...]
    computes: str
    inputs: Mapping[str, str]
    output: str
    command: str


_LOW_RES = f"(N, C, h, w), the low-res image, {_RANGE}"
_SIZE = "(H, W), of the result; a sub-pixel net knows it"
_LABELS = "(N,) labels of classes, for a network that is told the class"
_NOISY = "(N, C, H, W), the noisy image x_t; images are in [-1, 1], which is 0 to 255"
_TIMES = "(N,) timesteps of the process below, from 0"
_WORDS: Mapping[Kind, Words] = MappingProxyType(
    {
        MEAN: Words(
            TO_IMAGE,
            ("super-resolution", "conditional-mean", "uncertainty"),
            "The conditional mean E[Y | X] of a high-res image Y given its low-res version X: what "
            "a network that is trained with squared error learns (arXiv 2202.03674).",
            {"x": _LOW_RES, "size": _SIZE, "y": _LABELS},
            "(N, C, H, W), the mean in the unit of x",
            "python sr_predict.py --input IMAGE.png --mean_model_path {} --var_model_path VARIANCE",
        ),
        VARIANCE: Words(
            TO_IMAGE,
            ("super-resolution", "conditional-variance", "uncertainty"),
            "The conditional variance Var[Y | X] of every pixel of a high-res image Y given its "
            "low-res version X: what a network that is trained on squared residuals of the mean "
            "learns (arXiv 2202.03674).",
            {"x": _LOW_RES, "mean": "(N, C, H, W), what the mean net says of x", "y": _LABELS},
            "(N, C, H, W), the variance in the squared unit of x",
            "python sr_predict.py --input IMAGE.png --mean_model_path MEAN --var_model_path {}",
        ),
        BASELINE: Words(
            TO_IMAGE,
            ("super-resolution", "uncertainty"),
            "A law of every pixel of a high-res image Y given its low-res version X, trained by "
            "its likelihood or by quantiles (the flag objective below).",
            {"x": _LOW_RES, "size": _SIZE, "y": _LABELS},
            "(N, K·C, H, W): mean and log variance, or K quantiles, side by side in the channels",
            "python sr_baseline_test.py --model_path {} --data_dir IMAGES --data_info_dict_path I",
        ),
        SR_DENOISER: Words(
            TO_IMAGE,
            ("super-resolution", "diffusion"),
            "The denoiser of a diffusion process whose samples are high-res images given a "
            "low-res one.",
            {"x": _NOISY, "timesteps": _TIMES, "low_res": _LOW_RES, "y": _LABELS},
            "(N, C or 2 C, H, W): what the flags of the process below say that it predicts",
            "python ddpm_sr_sample.py --model_path {} --data_dir IMAGES "
            "--to_sample_images_dict_path I",
        ),
        DENOISER: Words(
            GENERATION,
            ("diffusion", "image-generation"),
            "The denoiser of a diffusion process whose samples are images.",
            {"x": _NOISY, "timesteps": _TIMES, "y": _LABELS},
            "(N, C or 2 C, H, W): what the flags of the process below say that it predicts",
            "python image_sample.py --model_path {} --num_samples 16",
        ),
        CLASSIFIER: Words(
            TO_CLASS,
            ("classifier-guidance", "diffusion"),
            "The class of an image that is as noisy as its timestep says; its gradient guides the "
            "samples of a diffusion model (arXiv 2105.05233).",
            {"x": _NOISY, "timesteps": _TIMES},
            "(N, K), logits of the classes",
            "python image_sample.py --model_path DENOISER --classifier_path {} "
            "--classifier_scale 1",
        ),
        SMALL_CLASSIFIER: Words(
            TO_CLASS,
            ("noisy-labels", "mnist"),
            "The class of a grey image of 28 by 28 pixels.",
            {"x": "(N, 1, 28, 28) in [0, 1]"},
            "(N, K), logits of the classes",
            "python image_eval.py --features {} --features_network small_cnn --reference A "
            "--samples B",
        ),
    }
)


_SUPER_RESOLUTION, _RESTORATION = "super-resolution", "image-restoration"


def words_of(source: Source) -> Words:
    """What is said of the network of a checkpoint: also what X is, where it is no small image."""
    words, flags = _WORDS[kind_of(source)], source.flags
    if _SUPER_RESOLUTION not in words.tags:
        return words
    is_small = flags.get("large_size") != flags.get("small_size")
    tags = tuple(_RESTORATION if tag == _SUPER_RESOLUTION else tag for tag in words.tags)
    made = str(flags.get("degradation", AREA))
    if made == AREA:
        return words
    return replace(
        words,
        tags=words.tags if is_small else tags,
        computes=f"{words.computes} "
        + (
            "Here X was measured beside Y."
            if is_measured(made)
            else "Here X is what the degradation of the flags below makes of Y."
        ),
    )
