"""The flags of export.py: which network, to which format; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from utils.flags.groups import DryRun, Logged
from utils.script_util import flag

LIBRARY = "conditional-risk-sr"
SAFETENSORS, ONNX, TORCH_EXPORT = "safetensors", "onnx", "torch_export"
DIFFUSERS = "diffusers"
# format → how the names of its files end; empty: a folder of several files
SUFFIXES: Mapping[str, str] = MappingProxyType(
    {SAFETENSORS: ".safetensors", ONNX: ".onnx", TORCH_EXPORT: ".pt2", DIFFUSERS: ""}
)


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
    license: str = flag("", "license of the weights, for the model card: mit, apache-2.0, …")
    results: str = flag(
        "",
        "results.json of this network, for the model card: of sr_var_verification.py, "
        "image_eval.py or image_nll.py",
        is_path=True,
    )
    log_dir: str = flag("logs/export", "folder of logs.txt and args.json")

    def __post_init__(self) -> None:
        """Refuse to export nothing, and words for a card that is not written."""
        if not self.model_path:
            raise ValueError("--model_path is empty; give the checkpoint to export")
        for name in ("license", "results"):
            if getattr(self, name) and not self.has_card:
                raise ValueError(
                    f"--{name} {getattr(self, name)} is for the model card, which a folder gets: "
                    "give a folder as --output_path"
                )

    @property
    def has_card(self) -> bool:
        """Whether the output is a folder, which gets a model card."""
        suffix = SUFFIXES[self.format]
        return bool(self.output_path) and not (suffix and self.output_path.endswith(suffix))
