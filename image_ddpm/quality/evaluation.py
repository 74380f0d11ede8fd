"""The comparison from end to end: two inputs, their features, the figures, ``results.json``.

Computes no figure (``figures``) and no feature (``features``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from image_ddpm.classifier import classifier_keywords
from image_ddpm.flags import ClassifierFlags, ClassifierImageFlags
from image_ddpm.quality.feature_files import FeatureSet, read_input, save_features, statistics_of
from image_ddpm.quality.features import FeatureMaker, feature_maker
from image_ddpm.quality.flags import PIXELS, EvalFlags
from image_ddpm.quality.image_sets import ImageSet, require_pairs
from image_ddpm.quality.metrics import (
    Stopped,
    frechet_figures,
    kernel_figures,
    pair_figures,
    require_pair_sizes,
    stage,
    subset_size,
)
from utils import dist_util
from utils.files.atomic import write_json_atomic
from utils.logger import RunLogger
from utils.loops.networks import usable_precision
from utils.process.errors import DataError
from utils.process.stop import StopFlag


def table(results: Mapping[str, Any]) -> str:
    """The figures of ``results.json`` as lines: name, value, what it is to be held against."""
    reference, samples = results["reference"], results["samples"]
    frechet, kernel, paired = (results[key] for key in ("frechet", "kernel", "paired"))
    rows = [
        ("features", f"{results['features'] or 'of an unknown kind'}, {results['dimension']} dim."),
        ("images", f"{reference['count']} reference, {samples['count']} samples"),
        ("Fréchet distance", _number(frechet["distance"])),
    ]
    if frechet["floor"] is not None:
        std, count = _number(frechet["floor_of_halves_std"]), frechet["count_of_half"]
        halves = f"{_number(frechet['floor_of_halves'])} (std {std}) of halves, {count} + {count}"
        rows.append(("  its floor", f"{_number(frechet['floor'])}, from {halves}"))
    rows.append(("  floor of a normal law", _number(frechet["gaussian_floor"])))
    if kernel is not None:
        value = f"{_number(kernel['distance'])} ± {_number(kernel['standard_error'])}"
        drawn = f"{kernel['num_subsets']} subsets of {kernel['subset_size']}"
        rows.append(("kernel distance", f"{value} ({drawn}, std {_number(kernel['subset_std'])})"))
    if paired is not None:
        for key, name, unit in (("psnr", "PSNR", " dB"), ("ssim", "SSIM", "")):
            error = _number(paired[f"{key}_standard_error"])
            rows.append((name, f"{_number(paired[key])}{unit} ± {error}"))
        rows.append(("pairs", f"{paired['count']}, {paired['num_identical']} identical"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def notices(results: Mapping[str, Any]) -> list[str]:
    """What a reader should know before quoting a figure."""
    lines = []
    counts = [results[key]["count"] for key in ("reference", "samples")]
    if min(counts) <= results["dimension"]:
        lines.append(
            f"notice: {min(counts)} images span fewer than the {results['dimension']} dimensions: "
            "the Fréchet distance is far too large and its floors are rough; use more images"
        )
    if not results["is_same_kind_checked"]:
        lines.append(
            "notice: an .npz does not say what made its features; that both are of one kind was "
            "not checked beyond their dimension"
        )
    if results["frechet"]["floor"] is None:
        lines.append("notice: no floor from halves: the reference has no features, or fewer than 4")
    if results["kernel"] is None:
        lines.append("notice: no kernel distance: one set has no features, or fewer than 3")
    if results["paired"] is not None and results["paired"]["num_identical"]:
        lines.append("notice: identical pairs have no finite PSNR; its mean is over the others")
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


Input = ImageSet | FeatureSet


def evaluate(
    flags: EvalFlags, classifier: ClassifierFlags, image: ClassifierImageFlags, logger: RunLogger
) -> bool:
    """Compares ``--samples`` with ``--reference``; prints the figures, writes ``results.json``.

    Args:
        flags: what to compare.
        classifier: the network of ``--features``, for ``--features_network encoder_unet``.
        image: its images, likewise.
        logger: receives the figures.

    Returns:
        False if a signal stopped it.

    Raises:
        ValueError: flags that do not go with these inputs.
        DataError: about an input; names it.
        CheckpointError: about the network.
    """
    stop = StopFlag()
    try:
        with stop.listening():
            results = _compare(flags, classifier, image, stop, logger)
    except Stopped as reason:
        logger.info(f"stopped ({reason}); run again")
        return False
    if results is None:
        logger.info("dry run: nothing was written")
        return True
    logger.info("\n" + table(results))
    for line in notices(results):
        logger.info(line)
    path = os.path.join(flags.log_dir, "results.json")
    write_json_atomic(path, results)
    logger.info(f"figures: {path}")
    return True


def _compare(
    flags: EvalFlags,
    classifier: ClassifierFlags,
    image: ClassifierImageFlags,
    stop: StopFlag,
    logger: RunLogger,
) -> dict[str, Any] | None:
    """The content of ``results.json``; None of a dry run.

    Raises:
        Stopped: a signal.
    """
    reference, samples = (
        read_input(
            f"--{name}",
            getattr(flags, name),
            flags.num_images,
            flags.seed,
            apply_orientation=flags.apply_orientation,
            log=logger.info,
        )
        for name in ("reference", "samples")
    )
    inputs, maker = (reference, samples), None
    _require_use_of_flags(flags, inputs)
    if flags.paired:
        require_pair_sizes(*_pair_of(inputs), stop)
    if any(isinstance(part, ImageSet) for part in inputs):
        network, device = flags.features_network, dist_util.current_device()
        usable = usable_precision(classifier.precision, logger.info)
        keywords = classifier_keywords(classifier, vars(image))
        maker = feature_maker(flags.features, network, device, keywords, usable)
    _require_same_features(inputs, maker)
    for part in inputs:
        if isinstance(part, FeatureSet) and 0 < flags.num_images < part.statistics.count:
            logger.info(
                f"notice: --num_images {flags.num_images} does not cut statistics: those of "
                f"{part.flag} are of {part.statistics.count} images"
            )
    if flags.dry_run:
        _try_one_batch(flags, inputs, maker, stop, logger)
        return None
    return _results(flags, inputs, maker, stop, logger)


def _require_use_of_flags(flags: EvalFlags, inputs: tuple[Input, Input]) -> None:
    """Refuses flags that would have no effect, and sets that are too small.

    Raises:
        ValueError: names the flag and the remedy.
        DataError: about a set.
    """
    reference, samples = inputs
    is_image = [isinstance(part, ImageSet) for part in inputs]
    if flags.features != PIXELS and not any(is_image):
        raise ValueError(
            f"--features {flags.features}: --reference and --samples hold features already; leave "
            "the flag out"
        )
    for part in inputs:
        if isinstance(part, ImageSet) and len(part) < 2:
            raise DataError(f"{part.flag} {part.path} holds one image; 2 or more are needed")
    if flags.save_reference_stats and _num_vectors(reference) is None:
        raise ValueError(
            f"--save_reference_stats {flags.save_reference_stats}: --reference {reference.path} "
            "holds nothing but statistics; leave the flag out"
        )
    subset_size(flags, _num_vectors(reference), _num_vectors(samples))


def _pair_of(inputs: tuple[Input, Input]) -> tuple[ImageSet, ImageSet]:
    """Both sets, image k of which shows the same.

    Raises:
        ValueError: if they are no images.
        DataError: if they are no pairs.
    """
    reference, samples = inputs
    if not isinstance(reference, ImageSet) or not isinstance(samples, ImageSet):
        raise ValueError("--paired True compares images; give --reference and --samples as images")
    require_pairs(reference, samples)
    return reference, samples


def _num_vectors(part: Input) -> int | None:
    if isinstance(part, ImageSet):
        return len(part)
    return None if part.features is None else len(part.features)


def _require_same_features(inputs: tuple[Input, Input], maker: FeatureMaker | None) -> None:
    """Checks that both sets have features of one kind, before any pass over them.

    Raises:
        DataError: names both.
    """
    names, dimensions, said = [], [], []
    for part in inputs:
        if isinstance(part, FeatureSet):
            names.append(part.name)
            dimensions.append(len(part.statistics.mean))
        else:
            assert maker is not None
            names.append(maker.name)
            dimensions.append(maker.make([part.picture(0)]).shape[1])
        kind = names[-1] or "features of an unknown kind"
        said.append(f"{part.flag} {part.path}: {kind}, {dimensions[-1]} dimensions")
    if (all(names) and names[0] != names[1]) or dimensions[0] != dimensions[1]:
        raise DataError(
            f"features of two kinds cannot be compared ({'; '.join(said)}); make both with the "
            "same --features"
        )


def _try_one_batch(
    flags: EvalFlags,
    inputs: tuple[Input, Input],
    maker: FeatureMaker | None,
    stop: StopFlag,
    logger: RunLogger,
) -> None:
    for part in inputs:
        if isinstance(part, FeatureSet):
            logger.info(f"{part.flag}: features or statistics of {part.statistics.count} images")
            continue
        assert maker is not None
        started = time.monotonic()
        features = maker.make(next(part.batches(flags.batch_size)))
        seconds = (time.monotonic() - started) / len(features)
        logger.info(
            f"{part.flag}: {len(part)} images; {maker.name}, {features.shape[1]} dimensions; first "
            f"batch, with warm-up: {seconds:.4f} s an image; {len(part)} images: "
            f"{seconds * len(part):.0f} s"
        )
        if stop.reason:
            raise Stopped(stop.reason)


def _results(
    flags: EvalFlags,
    inputs: tuple[Input, Input],
    maker: FeatureMaker | None,
    stop: StopFlag,
    logger: RunLogger,
) -> dict[str, Any]:
    reference, samples = (_with_features(part, flags, maker, stop, logger) for part in inputs)
    if flags.save_reference_stats:
        save_features(flags.save_reference_stats, reference)
        logger.info(f"features and statistics of the reference: {flags.save_reference_stats}")
    paired = None
    if flags.paired:
        assert isinstance(inputs[0], ImageSet) and isinstance(inputs[1], ImageSet)
        paired = pair_figures(inputs[0], inputs[1], stop)
    return {
        "features": reference.name or samples.name or None,
        "is_same_kind_checked": bool(reference.name and samples.name),
        "dimension": len(reference.statistics.mean),
        "reference": {"path": reference.path, "count": reference.statistics.count},
        "samples": {"path": samples.path, "count": samples.statistics.count},
        "frechet": frechet_figures(flags, reference, samples, stop),
        "kernel": kernel_figures(flags, reference, samples, stop),
        "paired": paired,
    }


def _with_features(
    part: Input,
    flags: EvalFlags,
    maker: FeatureMaker | None,
    stop: StopFlag,
    logger: RunLogger,
) -> FeatureSet:
    if isinstance(part, FeatureSet):
        return part
    assert maker is not None
    found = []
    with stage(stop, len(part), f"features of {part.flag}", "image") as count:
        for pictures in part.batches(flags.batch_size, logger.info):
            found.append(maker.make(pictures))
            count(len(pictures))
    features = np.concatenate(found)
    if not np.isfinite(features).all():
        raise DataError(f"{part.flag} {part.path}: {maker.name} gives features that are not finite")
    return FeatureSet(part.flag, part.path, statistics_of(features), features, maker.name)
