"""The comparison from end to end: two inputs, their features, the figures, `results.json`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np

from image_ddpm.classifier import classifier_keywords
from image_ddpm.flags import ClassifierFlags, ClassifierImageFlags
from image_ddpm.quality.coverage import inception_score, precision_and_recall
from image_ddpm.quality.distances import (
    frechet_distance,
    gaussian_floor,
    halves_distance,
    kernel_distance,
    random_halves,
)
from image_ddpm.quality.features import FeatureMaker, feature_maker
from image_ddpm.quality.flags import MAX_SUBSET_SIZE, PIXELS, TORCHSCRIPT, EvalFlags
from image_ddpm.quality.inputs import (
    FeatureSet,
    ImageSet,
    read_input,
    require_pairs,
    save_features,
    statistics_of,
)
from image_ddpm.quality.results import Figures, Results, notices, table
from utils import dist_util
from utils.files.atomic import write_json_atomic
from utils.logger import RunLogger
from utils.loops.networks import usable_precision
from utils.metrics import MIN_SSIM_SIDE, psnr, ssim, standard_error
from utils.process.errors import DataError
from utils.process.stop import ANEW, StopFlag
from utils.runs.job import Job, working
from utils.seeds import stable_seed

LEAST_FOR_KERNEL, LEAST_FOR_FLOOR, NEIGHBOURS = 3, 4, 3
Input = ImageSet | FeatureSet


def evaluate(
    flags: EvalFlags, classifier: ClassifierFlags, image: ClassifierImageFlags, logger: RunLogger
) -> None:
    """Compare `--samples` with `--reference`; print the figures, write `results.json`.

    `classifier`, of images `image`, is that of `--features`, for `--features_network encoder_unet`.

    Raises:
        StopRequested: if a signal came; nothing is kept.
        ValueError, DataError, CheckpointError: about flags, inputs, the network.
    """
    with StopFlag().listening() as stop:
        results = _Comparison(flags, classifier, image, stop, logger).results()
    if results is None:
        return
    logger.info("\n" + table(results))
    for line in notices(results):
        logger.info(line)
    path = os.path.join(flags.log_dir, "results.json")
    write_json_atomic(path, results)
    logger.info(f"figures: {path}")


class _Comparison:
    """Two inputs, what makes features of images among them, and a way to stop."""

    def __init__(
        self,
        flags: EvalFlags,
        classifier: ClassifierFlags,
        image: ClassifierImageFlags,
        stop: StopFlag,
        logger: RunLogger,
    ) -> None:
        self._flags, self._stop, self._log = flags, stop, logger.info
        self._reference, self._samples = self._inputs = [
            read_input(
                f"--{name}",
                getattr(flags, name),
                flags.num_images,
                flags.seed,
                apply_orientation=flags.apply_orientation,
                log=logger.info,
            )
            for name in ("reference", "samples")
        ]
        self._take_published()
        self._maker: FeatureMaker | None = None
        self._require_use_of_flags()
        if flags.paired:
            self._require_pair_sizes(*self._pair())
        if any(isinstance(part, ImageSet) for part in self._inputs):
            network, device = flags.features_network, dist_util.current_device()
            usable = usable_precision(classifier.asked_precision, logger.info)
            keywords = classifier_keywords(classifier, vars(image))
            self._maker = feature_maker(flags.features, network, device, keywords, usable)
        self._require_same_features()

    def results(self) -> Results | None:
        """The content of `results.json`; None of a dry run."""
        for part in self._inputs:
            if isinstance(part, FeatureSet) and 0 < self._flags.num_images < part.statistics.count:
                self._log(
                    f"notice: --num_images {self._flags.num_images} does not cut statistics: those "
                    f"of {part.flag} are of {part.statistics.count} images"
                )
        if self._flags.dry_run:
            self._try_one_batch()
            return None
        reference, samples = (self._with_features(part) for part in self._inputs)
        if self._flags.save_reference_stats:
            save_features(self._flags.save_reference_stats, reference)
            self._log(
                f"features and statistics of the reference: {self._flags.save_reference_stats}"
            )
        paired = self._pair_figures(*self._pair()) if self._flags.paired else None
        return {
            "features": reference.name or samples.name or None,
            "is_same_kind_checked": bool(reference.name and samples.name),
            "dimension": len(reference.statistics.mean),
            "reference": {"path": reference.path, "count": reference.statistics.count or None},
            "samples": {"path": samples.path, "count": samples.statistics.count or None},
            "frechet": self._frechet_figures(reference, samples),
            "spatial_frechet": self._spatial_figures(reference, samples),
            "kernel": self._kernel_figures(reference, samples),
            "precision_recall": self._shares(reference, samples),
            "inception_score": _scores(reference, samples),
            "paired": paired,
        }

    def _stage(self, total: int, label: str, unit: str) -> AbstractContextManager[Job]:
        return working(total, label, unit, stop=self._stop, remedy=ANEW)

    def _take_published(self) -> None:
        """Where both sets have published statistics or features, images are not looked at."""
        are_ready = [
            isinstance(part, FeatureSet) or part.published is not None for part in self._inputs
        ]
        if self._flags.features != PIXELS or not all(are_ready) or self._flags.paired:
            return
        if all(isinstance(part, ImageSet) for part in self._inputs):
            return
        self._reference, self._samples = self._inputs = [
            part.published if isinstance(part, ImageSet) and part.published else part
            for part in self._inputs
        ]

    def _require_use_of_flags(self) -> None:
        """Refuse flags that would have no effect (ValueError), and sets that are too small."""
        flags, images = self._flags, [part for part in self._inputs if isinstance(part, ImageSet)]
        if flags.features != PIXELS and not images:
            raise ValueError(
                f"--features {flags.features}: --reference and --samples hold features already; "
                "leave the flag out"
            )
        for part in images:
            if len(part) < 2:
                raise DataError(f"{part.flag} {part.path} holds one image; 2 or more are needed")
        if flags.save_reference_stats and _num_vectors(self._reference) is None:
            raise ValueError(
                f"--save_reference_stats {flags.save_reference_stats}: --reference "
                f"{self._reference.path} holds nothing but statistics; leave the flag out"
            )
        _subset_size(flags, self._inputs)

    def _pair(self) -> tuple[ImageSet, ImageSet]:
        """Both sets, image k of which shows the same."""
        reference, samples = self._inputs
        if not isinstance(reference, ImageSet) or not isinstance(samples, ImageSet):
            raise ValueError(
                "--paired True compares images; give --reference and --samples as images"
            )
        require_pairs(reference, samples)
        return reference, samples

    def _require_pair_sizes(self, reference: ImageSet, samples: ImageSet) -> None:
        """Check that pairs have figures, off the headers of their files."""
        with self._stage(len(reference), "sizes of the pairs", "image") as job:
            for k in range(len(reference)):
                real, drawn = reference.size(k), samples.size(k)
                if real != drawn or min(real) < MIN_SSIM_SIDE:
                    raise DataError(
                        f"--paired True: {reference.label(k)} is {real[0]}x{real[1]}, "
                        f"{samples.label(k)} {drawn[0]}x{drawn[1]}; pairs must be of one size, of "
                        f"{MIN_SSIM_SIDE} pixels a side or more"
                    )
                job.done()

    def _require_same_features(self) -> None:
        """Check that both sets have features of one kind, before any pass over them."""
        names, dimensions, said = [], [], []
        for part in self._inputs:
            if isinstance(part, FeatureSet):
                names.append(part.name)
                dimensions.append(len(part.statistics.mean))
            else:
                assert self._maker is not None
                names.append(self._maker.name)
                found = self._maker.make([part.picture(0)]).features
                dimensions.append(found.shape[1])
            kind = names[-1] or "features of an unknown kind"
            said.append(f"{part.flag} {part.path}: {kind}, {dimensions[-1]} dimensions")
        if (all(names) and names[0] != names[1]) or dimensions[0] != dimensions[1]:
            raise DataError(
                f"features of two kinds cannot be compared ({'; '.join(said)}); make both with the "
                "same --features"
            )

    def _try_one_batch(self) -> None:
        for part in self._inputs:
            if isinstance(part, FeatureSet):
                self._log(f"{part.flag}: features or statistics of {part.statistics.count} images")
                continue
            assert self._maker is not None
            started = time.monotonic()
            features = self._maker.make(next(part.batches(self._flags.batch_size))).features
            seconds = (time.monotonic() - started) / len(features)
            self._log(
                f"{part.flag}: {len(part)} images; {self._maker.name}, {features.shape[1]} "
                f"dimensions; first batch, with warm-up: {seconds:.4f} s an image; {len(part)} "
                f"images: {seconds * len(part):.0f} s"
            )
            self._stop.check(ANEW)

    def _with_features(self, part: Input) -> FeatureSet:
        if isinstance(part, FeatureSet):
            return part
        assert self._maker is not None
        found = []
        with self._stage(len(part), f"features of {part.flag}", "image") as job:
            for pictures in part.batches(self._flags.batch_size, self._log):
                found.append(self._maker.make(pictures))
                job.done(len(pictures))
        name, arrays = self._maker.name, []
        for pieces in zip(*found, strict=True):
            array = None if pieces[0] is None else np.concatenate(pieces)
            if array is not None and not np.isfinite(array).all():
                raise DataError(f"{part.flag} {part.path}: {name} gives values that are not finite")
            arrays.append(array)
        features, spatial, probabilities = arrays
        assert features is not None
        beside = None
        if spatial is not None:
            beside = FeatureSet(part.flag, part.path, statistics_of(spatial), spatial, name)
        made = FeatureSet(
            part.flag, part.path, statistics_of(features), features, name, beside, probabilities
        )
        return self._with_published(made, part)

    def _with_published(self, made: FeatureSet, part: ImageSet) -> FeatureSet:
        """The statistics that came with the images in place of theirs, if the network may be it."""
        published = part.published
        if published is None:
            return made
        if self._flags.features_network != TORCHSCRIPT:
            self._log(
                f"notice: mu and sigma of {part.flag} {part.path} are not looked at: they are of "
                "an Inception network, the features are of another"
            )
            return made
        dimensions = [len(one.statistics.mean) for one in (made, published)]
        if dimensions[0] != dimensions[1]:
            raise DataError(
                f"{part.flag} {part.path}: mu has {dimensions[1]} numbers, --features "
                f"{self._flags.features} gives {dimensions[0]}; give the network that it is of"
            )
        self._log(
            f"notice: mean and covariance of {part.flag} are mu and sigma of {part.path}; its "
            f"{len(part)} images serve for all else"
        )
        spatial = made.spatial
        if spatial is not None and published.spatial is not None:
            spatial = replace(spatial, statistics=published.spatial.statistics)
        return replace(made, statistics=published.statistics, spatial=spatial)

    def _spatial_figures(self, reference: FeatureSet, samples: FeatureSet) -> Figures | None:
        """The same distance of features that keep the place; None where one set has none."""
        real, drawn = reference.spatial, samples.spatial
        if real is None or drawn is None:
            return None
        lengths = [len(part.statistics.mean) for part in (real, drawn)]
        if lengths[0] != lengths[1]:
            raise DataError(
                f"spatial features of {lengths[0]} and {lengths[1]} dimensions cannot be compared; "
                "make both by the same network"
            )
        return self._frechet_figures(real, drawn)

    def _shares(self, reference: FeatureSet, samples: FeatureSet) -> Figures | None:
        """Precision and recall, and those of halves of the reference, which no samples pass by."""
        x, y = reference.features, samples.features
        if x is None or y is None or min(len(x), len(y)) <= NEIGHBOURS:
            return None
        with self._stage(2 * (len(x) + len(y)), "precision and recall", "vector") as job:
            found = precision_and_recall(x, y, NEIGHBOURS, job.done)
        half, halves = len(x) // 2, []
        if half > NEIGHBOURS:
            with self._stage(
                4 * half * self._flags.num_splits, "the same of halves", "vector"
            ) as job:
                for k in range(self._flags.num_splits):
                    parts = random_halves(x, stable_seed(self._flags.seed, "halves", k))
                    halves.append(precision_and_recall(*parts, NEIGHBOURS, job.done))
        figures: Figures = {"neighbours": NEIGHBOURS, "count_of_half": half if halves else None}
        for key, count in (("precision", len(y)), ("recall", len(x))):
            share = getattr(found, key)
            figures[key] = share
            figures[f"{key}_standard_error"] = math.sqrt(share * (1 - share) / count)
            of_halves = [getattr(one, key) for one in halves]
            figures[f"{key}_of_halves"] = float(np.mean(of_halves)) if of_halves else None
        return figures

    def _frechet_figures(self, reference: FeatureSet, samples: FeatureSet) -> Figures:
        """The Fréchet distance and its floors: halves of the reference, and a normal law's."""
        a, b = reference.statistics, samples.statistics
        num_vectors = a.count if reference.features is None else len(reference.features)
        half, num_splits = num_vectors // 2, self._flags.num_splits
        halves = []
        if reference.features is not None and len(reference.features) >= LEAST_FOR_FLOOR:
            with self._stage(num_splits, "halves of the reference", "split") as job:
                for k in range(num_splits):
                    seed = stable_seed(self._flags.seed, "halves", k)
                    halves.append(halves_distance(reference.features, seed))
                    job.done()
        mean = float(np.mean(halves)) if halves else None
        is_counted = a.count > 0 and b.count > 0
        return {
            "distance": frechet_distance(a.mean, a.covariance, b.mean, b.covariance),
            # to first order a floor goes with 1/n₁ + 1/n₂ (distances.gaussian_floor)
            "floor": mean * (1 / a.count + 1 / b.count) / (2 / half)
            if mean is not None and is_counted
            else None,
            "floor_of_halves": mean,
            "floor_of_halves_std": float(np.std(halves, ddof=1)) if len(halves) > 1 else None,
            "count_of_half": half if halves else None,
            "gaussian_floor": gaussian_floor(a.covariance, a.count, b.count)
            if is_counted
            else None,
            "gaussian_floor_of_halves": gaussian_floor(a.covariance, half, half)
            if halves
            else None,
        }

    def _kernel_figures(self, reference: FeatureSet, samples: FeatureSet) -> Figures | None:
        size, num_subsets = _subset_size(self._flags, (reference, samples)), self._flags.num_subsets
        if size is None:
            return None
        assert reference.features is not None and samples.features is not None
        with self._stage(num_subsets, "kernel distance", "subset") as job:
            found = kernel_distance(
                reference.features,
                samples.features,
                num_subsets,
                size,
                stable_seed(self._flags.seed, "subsets"),
                job.done,
            )
        return {**found._asdict(), "num_subsets": num_subsets, "subset_size": size}

    def _pair_figures(self, reference: ImageSet, samples: ImageSet) -> Figures:
        """Mean PSNR of the pairs that differ and mean SSIM of all, with their standard errors."""
        decibels, similarities = [], []
        with self._stage(len(reference), "pairs", "image") as job:
            for k in range(len(reference)):
                real, drawn = reference.picture(k), samples.picture(k)
                decibels.append(psnr(real, drawn))
                similarities.append(ssim(real, drawn))
                job.done()
        finite = [value for value in decibels if math.isfinite(value)]
        return {
            "count": len(decibels),
            "num_identical": len(decibels) - len(finite),
            "psnr": float(np.mean(finite)) if finite else None,
            "psnr_standard_error": standard_error(finite),
            "ssim": float(np.mean(similarities)),
            "ssim_standard_error": standard_error(similarities),
        }


def _scores(reference: FeatureSet, samples: FeatureSet) -> Figures | None:
    """The inception score of the samples, and that of the reference beside it."""
    if samples.probabilities is None:
        return None
    figures: Figures = {"reference": None, "reference_standard_error": None}
    for name, part in (("samples", samples), ("reference", reference)):
        if part.probabilities is not None:
            try:
                score, error = inception_score(part.probabilities)
            except ValueError as wrong:
                raise DataError(f"{part.flag} {part.path}: {wrong}") from None
            figures |= {name: score, f"{name}_standard_error": error}
    return figures


def _num_vectors(part: Input) -> int | None:
    if isinstance(part, ImageSet):
        return len(part)
    return None if part.features is None else len(part.features)


def _subset_size(flags: EvalFlags, inputs: Sequence[Input]) -> int | None:
    """Vectors in a subset of the kernel distance; None if there is none to be had."""
    given, counts = f"--subset_size {flags.subset_size}", [_num_vectors(part) for part in inputs]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        if flags.subset_size:
            raise ValueError(
                f"{given}: statistics without features have no kernel distance; leave the flag out"
            )
        return None
    smaller = min(known)
    if flags.subset_size >= smaller:
        raise ValueError(f"{given} must be below the {smaller} images of the smaller set")
    if smaller < LEAST_FOR_KERNEL:
        return None
    return flags.subset_size or max(2, min(MAX_SUBSET_SIZE, smaller // 2))
