"""What is exported: a checkpoint, and what it says of its network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from sr_var import __version__
from utils.files.atomic import JsonObject
from utils.files.records import made_with
from utils.loops.checkpoint import CheckpointStore
from utils.loops.portable import weights_digest
from utils.process.errors import CheckpointError
from utils.untrusted.state_dict import read_state_dict

Log = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A verified checkpoint.

    Attributes:
        path: of its weights.
        step: finished optimizer steps.
        manifest: of its set: class and flags of the network, the process, the data, the state.
        sha256: of the checkpoint's file (`weights_digest`).
    """

    path: str
    step: int
    manifest: JsonObject
    sha256: str

    @property
    def network_class(self) -> str:
        """Name of the network's class, as `UNetModel`."""
        return str(self.manifest["network"]["class"])

    @property
    def flags(self) -> Mapping[str, object]:
        """Flag → value of the network and, of a denoiser, its process."""
        return made_with(self.manifest)

    @property
    def origin(self) -> dict[str, str]:
        """What the file of a computation tells of where it comes from."""
        return {
            "network": self.network_class,
            "step": str(self.step),
            "checkpoint_sha256": self.sha256,
            "toolkit_version": __version__,
        }

    def weights(self) -> dict[str, torch.Tensor]:
        """Name → tensor on the CPU, as stored; CheckpointError as `read_state_dict`."""
        return read_state_dict(self.path)


def read_source(path: str, log: Log) -> Source:
    """Find and verify the checkpoint of a path.

    Raises:
        CheckpointError: it is missing or damaged, or nothing says which network it is of.
    """
    found = CheckpointStore("", warn=log).resolve(path)
    assert found is not None  # only an empty name finds nothing
    network = found.manifest.get("network")
    if not isinstance(network, dict) or not network.get("class"):
        raise CheckpointError(
            f"{path} does not say which network it is of: it has no manifest (ckptNNNNNN.json) "
            "beside it; a training of it with --init_from and --max_step 0 writes one, and changes "
            "no weight: export that"
        )
    return Source(found.model_path, found.step, found.manifest, weights_digest(found.model_path))
