"""The flags of export.py: which network, to which format; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from utils.flags.groups import DryRun, Logged
from utils.script_util import flag

SAFETENSORS = "safetensors"
# format → how the names of its files end; empty: a folder of several files
SUFFIXES: Mapping[str, str] = MappingProxyType({SAFETENSORS: ".safetensors"})


@dataclass(frozen=True)
class ExportFlags(Logged, DryRun):
    """Which network, to which format, and where to."""

    model_path: str = flag("", "checkpoint of the network: .pt with its manifest, or .safetensors")
    format: str = flag(SAFETENSORS, "what to write", tuple(SUFFIXES))
    output_path: str = flag(
        "",
        "file to write, or a folder for it and its model card; empty: the file, beside the "
        "checkpoint",
    )
    log_dir: str = flag("logs/export", "folder of logs.txt and args.json")

    def __post_init__(self) -> None:
        """Refuse to export nothing."""
        if not self.model_path:
            raise ValueError("--model_path is empty; give the checkpoint to export")
