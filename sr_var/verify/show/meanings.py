"""What each metric means, a sentence each, for who asks."""

from __future__ import annotations

from types import MappingProxyType

from utils.report.html import Html, tag

MEANINGS = MappingProxyType(
    {
        "mean.mse": "How far the nets' mean is from that of the samples, squared, on average.",
        "mean.corrected_mse": "The same without what the samples' own noise adds to it.",
        "mean.relative_mse": "The same as a share of the variance: 0.01 is a tenth of a std.",
        "mean.psnr": "The same in decibels against white: 10 more is a tenth of the squared error.",
        "mean.nmse": "The same as a share of the squared brightness.",
        "var.var_error": "How far the two variances are apart at a pixel, on average.",
        "var.std_error": "How far the two stds are apart at a pixel, on average.",
        "var.relative_rms_error": "How far the variances are apart (root of the mean square), over "
        "the variance, without what the samples' own noise adds. Below 0: less than that noise.",
        "var.relative_bias": "The nets' mean variance over that of the samples, less 1: above 0 "
        "the nets predict too much.",
        "var.correlation": "Whether both std maps are high at the same places: 1 is the same map "
        "up to a factor. The noise of the samples keeps it below 1.",
        "var.num_negative": "How many predicted variances were below 0, which no variance is.",
        "var.mean_std_net": "The std that is predicted for a pixel, on average.",
        "ceiling.std_disattenuated": "The correlation of the std maps that infinitely many samples "
        "would show: 1 is a map that is right up to a factor.",
        "ceiling.correlation": "The same of variances: a few pixels of large variance decide it.",
        "ceiling.reliability": "How well the variance of these samples agrees with that of as many "
        "others: 1 is without noise.",
        "ceiling.disattenuated": "The correlation of variances that infinitely many samples show.",
        "high_res.psnr_net": "How near the mean is to the real image, in decibels: high is near.",
        "high_res.psnr_bilinear": "The same of the image that the nets are given, "
        "enlarged without any net.",
        "high_res.ssim_net": "How alike the structures of mean and real image are; 1 is equal.",
        "high_res.ssim_bilinear": "The same of the image that the nets are given, "
        "enlarged without any net.",
        "high_res.mean_abs_error_net": "How far the mean is from the real image at a pixel.",
        "edges.std_at_edges": "The predicted std where the real image changes most, a tenth of it.",
        "edges.std_on_flat": "The predicted std where the real image changes least, half of it.",
        "calibration.z2": "Squared error over predicted variance, on average: above 1 the variance "
        "is too small, below 1 too large.",
        "calibration.nll": "How improbable the prediction takes the real image to be: lower is "
        "better.",
        "calibration.crps": "How far the whole predicted law is from the real value: it is the "
        "|error| where no std is predicted, and less where the std tells of the error.",
        "calibration.coverage_50": "Share of the real pixels in the 50 % interval: half is wanted.",
        "calibration.coverage_68": "Share of the real pixels within one std of the mean.",
        "calibration.coverage_90": "Share of the real pixels in the 90 % interval.",
        "calibration.coverage_95": "Share of the real pixels in the 95 % interval.",
        "calibration.ence": "How far predicted std and real error are apart, over groups of pixels "
        "of like std.",
        "calibration.sharpness_mean_std": "How wide the predictions are: of two that hold, the "
        "narrower says more.",
        "calibration.interval_score_90": "Width of the 90 % interval, and a fine for each real "
        "pixel outside: lower is better.",
        "calibration.ause": "Whether the pixels of large std are those of large error: 0 is the "
        "order of the errors themselves, which no std can know.",
        "consistency.mean_rms": "How far the mean, shrunk (or degraded) again, is from what the "
        "nets are given.",
        "consistency.samples.block_mean_std": "How much the shrunk samples differ from each other; "
        "all should shrink to the one low-res image.",
        "cost.evaluations_per_image": "How often a network runs for an image.",
        "cost.seconds_per_image": "Time for an image with warm-up; compare on one device only.",
        "truth.relative_mse": "Squared distance of the mean from the true one, over the variance.",
        "truth.relative_var_error": "Distance of the variance from the true one, over it.",
        "truth.relative_rms_error": "The same as the root of a mean square: large variances count "
        "more.",
        "truth.var_bias": "Mean variance over the true one, less 1.",
        "truth.var_error": "Distance of the variance from the true one at a pixel.",
        "truth.std_error": "Distance of the std from the true one at a pixel.",
        "truth.equivalent_samples_mean": "So many exact samples have a mean as near to the truth.",
        "truth.equivalent_samples_variance": "So many exact samples have as near a variance.",
        "verdict.mean": "How far the means are apart (root of the mean square), over the std.",
        "verdict.variance": "How far the variances are apart (root of the mean square), over the "
        "variance.",
        "verdict.bias": "The nets' mean variance over that of the samples, less 1.",
    }
)


def explained(label: str, name: str) -> Html | str:
    """The label of a metric, with its meaning to unfold where there is one.

    `name` is dotted; the route in it does not matter (`calibration.nets.z2`).
    """
    short = name.replace(".nets.", ".").replace("consistency.samples.mean", "consistency.mean")
    meaning = MEANINGS.get(short)
    if meaning is None:
        return label
    return tag("details", tag("summary", label), meaning, class_="meaning")
