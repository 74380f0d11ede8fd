"""One network to one format: where to, and which module writes it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from types import MappingProxyType

from utils.files.storage import make_folder
from weights import card
from weights.flags import DIFFUSERS, ONNX, SAFETENSORS, SUFFIXES, TORCH_EXPORT, ExportFlags
from weights.source import Log, read_source

# each has `write(source, path, flags, log)` and `usage(source, name)`, the Markdown of a model card
# that says how to use what was written as `name`; imported when it is asked for
_WRITERS: Mapping[str, str] = MappingProxyType(
    {
        SAFETENSORS: "weights.to_safetensors",
        ONNX: "weights.to_onnx",
        TORCH_EXPORT: "weights.to_torch_export",
        DIFFUSERS: "weights.to_diffusers",
    }
)


def export(flags: ExportFlags, log: Log) -> None:
    """Write the network of `--model_path` as `--format` says, atomically.

    Raises:
        CheckpointError: about the checkpoint.
        DataError: about the metrics for its model card, or one that is there.
        ValueError: the name of the output is not that of the format.
        StorageError: it cannot be written.
    """
    source = read_source(flags.model_path, log)
    path = output_of(flags, source.path)
    log(f"{source.path}: {source.network_class}, step {source.step}, sha256 {source.sha256}")
    writer, folder = importlib.import_module(_WRITERS[flags.format]), flags.output_path
    if flags.has_card:  # before anything is written
        card.require_replaceable(folder)
        card.card_text(source, flags, "")
    if flags.dry_run:
        return
    make_folder(os.path.dirname(path) or ".", "--output_path")
    writer.write(source, path, flags, log)
    log(f"wrote {path}")
    if flags.has_card:
        name = os.path.relpath(path, folder)
        card.write_card(folder, source, flags, writer.usage(source, name))
        log(f"wrote {os.path.join(folder, card.NAME)}")


def output_of(flags: ExportFlags, model_path: str) -> str:
    """The path of what is written: a file or, of formats of several files, a folder.

    In a folder a file is called `model`, as others expect it.

    Raises:
        ValueError: `--output_path` names the file of another format.
    """
    suffix, path = SUFFIXES[flags.format], flags.output_path
    if not path:
        return os.path.splitext(model_path)[0] + (suffix or f"_{flags.format}")
    if not suffix or not flags.has_card:
        return path
    ending = os.path.splitext(path)[1]
    if ending in {*SUFFIXES.values(), ".pt"} - {""}:
        raise ValueError(
            f"--output_path {path}: files of --format {flags.format} end in {suffix}; give such a "
            "name, or a folder"
        )
    return os.path.join(path, f"model{suffix}")
