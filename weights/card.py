"""The model card of an exported network: `README.md`, as the Hugging Face hub reads it.

What it says is what the checkpoint's manifest says; metrics are those of a `results.json`. The last
line holds the digest of the others, so that a card that somebody has edited is never replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import yaml

from ddpm.stored_flags import known_classes
from sr_var import __version__
from utils.files.atomic import sha256_of, write_text_atomic
from utils.files.records import is_number, read_record
from utils.process.errors import DataError
from weights.flags import DIFFUSERS, LIBRARY, ExportFlags
from weights.source import Source
from weights.words import words_of

NAME = "README.md"
_MARK = "<!-- written by export.py; sha256 of the lines above: "
_MANY, _LONGEST = 20, 200
# what a training was like, of the flags in a manifest; folders are nobody's business
_OF_TRAINING = (
    "batch_size lr lr_schedule lr_warmup_steps lr_anneal_steps weight_decay optimizer ema_rate "
    "use_fp16 use_bf16 seed"
)
# dotted names in a results.json of any script → what they are called
_METRICS = {
    "num_images": "images",
    "high_res.psnr_net": "PSNR of the mean, dB",
    "high_res.psnr_bilinear": "PSNR of bilinear upsampling, dB",
    "high_res.ssim_net": "SSIM of the mean",
    "calibration.nets.coverage_95": "real pixels in the 95 % interval, share",
    "calibration.nets.z2": "squared error over variance (1 is right)",
    "calibration.nets.crps": "CRPS",
    "calibration.nets.ause": "AUSE",
    "calibrated.coverage": "real pixels in the calibrated interval, share",
    "mean.relative_rms_error": "mean, off that of the samples (rms) over the std",
    "var.relative_rms_error": "variance, off that of the samples (rms) over the variance",
    "ceiling.std_disattenuated": "correlation of the std with that of the samples",
    "truth.nets.relative_mse": "mean against the known law: squared error over the variance",
    "truth.nets.relative_var_error": "variance against the known law: mean relative error",
    "frechet.distance": "Fréchet distance",
    "kernel.distance": "kernel distance",
    "precision_recall.precision": "precision",
    "precision_recall.recall": "recall",
    "inception_score.samples": "inception score",
    "total_bpd.mean": "bits per dimension",
}


def require_replaceable(folder: str) -> None:
    """Raise DataError where the folder has a README.md that is not as an export left it."""
    path = os.path.join(folder, NAME)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text, _, digest = file.read().rpartition(_MARK)
    except FileNotFoundError:
        return
    if digest.partition(" ")[0] != _digest(text):
        raise DataError(
            f"{path} was edited, or is none of export.py: move it away, or give another "
            "--output_path"
        )


def read_metrics(path: str) -> list[tuple[str, float, str]]:
    """Name, value and 95 % interval of the metrics that a results.json has.

    Raises:
        DataError: it is missing, damaged, or has none of those that are known.
    """
    try:
        return read_record(path, "name a results.json", partial(_metrics, path))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"--results {path} does not exist; name a results.json") from None


def _metrics(path: str, content: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    intervals = content.get("intervals")
    rows = []
    for dotted, label in _METRICS.items():
        value: Any = content
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if is_number(value):
            ends = intervals.get(dotted) if isinstance(intervals, dict) else None
            if not isinstance(ends, list) or len(ends) != 2 or not all(map(is_number, ends)):
                ends = None
            rows.append((label, value, f"{ends[0]:.4g} to {ends[1]:.4g}" if ends else ""))
    if not [label for label, _, _ in rows if label != _METRICS["num_images"]]:
        raise ValueError("it has no metric of sr_var_verification.py, image_eval.py, image_nll.py")
    return rows


def write_card(folder: str, source: Source, flags: ExportFlags, usage: str) -> None:
    """Write `README.md`; `usage` says, as Markdown, how the files beside it are used."""
    text = card_text(source, flags, usage)
    write_text_atomic(os.path.join(folder, NAME), f"{text}{_MARK}{_digest(text)} -->\n")


def card_text(source: Source, flags: ExportFlags, usage: str) -> str:
    """The card without its last line; errors as `read_metrics`."""
    words = words_of(source)
    library = "diffusers" if flags.format == DIFFUSERS else LIBRARY
    head: dict[str, object] = {"library_name": library}
    if flags.license:
        head["license"] = flags.license
    head |= {"pipeline_tag": words.task, "tags": [*words.tags, flags.format]}
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {source.network_class}, step {source.step}",
        words.computes,
        _license(flags),
        f"## Use\n\n{usage.strip()}",
        "## Inputs and output\n",
        _table(["", "what"], [*words.inputs.items(), ("output", words.output)]),
        *_sections(source, flags),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n\n"


def _license(flags: ExportFlags) -> str:
    if flags.license:
        return ""
    return (
        "The license of these weights is not stated. It depends on what they were trained on, too; "
        "write it into the head of this file (`license: …`)."
    )


def _sections(source: Source, flags: ExportFlags) -> Iterator[str]:
    network, process = source.manifest["network"], source.manifest.get("process", {})
    yield "## Flags of the network"
    yield _table(["flag", "value"], _rows(network.get("flags", {})))
    if process:
        yield "## Flags of the process"
        yield _table(["flag", "value"], _rows(process))
    yield "## Training"
    yield _table(["what", "value"], list(_training(source)))
    if flags.results:
        yield "## Metrics"
        rows = [(name, f"{value:.6g}", ends) for name, value, ends in read_metrics(flags.results)]
        about = _whose(flags.results, source.sha256)
        yield _table(["metric", "value", "95 % interval"], rows)
        yield (
            f"Of {_code(os.path.basename(flags.results))}, sha256 `{sha256_of(flags.results)}`, "
            f"{about}."
        )


def _whose(path: str, digest: str) -> str:
    """Whether results are of the network with this sha256; DataError if they are of others."""
    models = read_record(path, "name a results.json", _models)
    roles = [role for role, digests in models.items() if digest in digests]
    if not models:
        return "as given by who exported this file"
    if not roles:
        known = ", ".join(f"{role} {one[:12]}…" for role, some in models.items() for one in some)
        raise DataError(
            f"--results {path} are of other networks ({known}) than the exported one, sha256 "
            f"{digest[:12]}…; name those of this network"
        )
    return f"which names this checkpoint by its sha256 (of the {roles[0]})"


def _models(content: Mapping[str, Any]) -> dict[str, list[str]]:
    models = content.get("models", {})
    lists = models.values() if isinstance(models, dict) else [None]
    if not all(isinstance(some, list) and all(isinstance(x, str) for x in some) for some in lists):
        raise ValueError("its models are no lists of digests")
    return dict(models)


def _training(source: Source) -> Iterator[tuple[str, str]]:
    yield "steps", str(source.step)
    yield "checkpoint", _code(os.path.basename(source.path))
    yield "sha256 of the checkpoint", f"`{source.sha256}`"
    yield "toolkit", f"{LIBRARY} {__version__}"
    data = source.manifest.get("data", {})
    names = {"num_images": "images", "digest": "sha256 of the list of images"}
    for name, value in data.items():
        yield names.get(name, name), _code(value)
    state, settings = source.manifest.get("state", {}), source.manifest.get("flags", {})
    classes = [name for name in known_classes(state, source.path) if name]
    if classes:
        more = f", … {len(classes)} in all" if len(classes) > _MANY else ""
        yield "classes", ", ".join(map(_code, classes[:_MANY])) + more
    means = state.get("mean_models")
    if isinstance(means, list) and means:
        yield "mean nets whose residuals it learned (sha256)", ", ".join(map(_code, means[:_MANY]))
    for name in _OF_TRAINING.split():
        if isinstance(settings, dict) and name in settings:
            yield name, _code(settings[name])


def _rows(values: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(name, _code(value)) for name, value in sorted(values.items())]


def _code(value: object) -> str:
    """A value of a file of anybody as Markdown that shows it: one line, no markup."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(char if char.isprintable() and char != "`" else "?" for char in text)
    return f"`{text[:_LONGEST]}{'…' if len(text) > _LONGEST else '' if text else ' '}`"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
