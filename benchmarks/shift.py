"""What predicted and between-net variance do on low-res images unlike those of training.

    python -m benchmarks.shift --mean_model_path 'checkpoints/sr_mean/shift_{fold}/model000500.pt' \
        --cross_fit 4 --model_path checkpoints/sr_var/shift/model000500.pt

The nets get the test images as they are; with the low-res image blurred, with noise, or as a JPEG,
while the high-res one stays; and images of another kind (those of scikit-image's wheel by default:
textures, pictures of instruments, printed text). docs/verification.md has the trainings and the
table. Writes `shift_<date>.json` and `.md` to `--output_dir`.
"""

from __future__ import annotations

import importlib.util
import io
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path.insert(0, str(ROOT))  # run as a file, it finds only its own folder

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from benchmarks.record import RESULTS_DIR, write_rows  # noqa: E402
from ddpm.stored_flags import start_of_file  # noqa: E402
from sr_var.base_dataset import load_entries  # noqa: E402
from sr_var.degradation import area_downsample, variance_of  # noqa: E402
from sr_var.ensemble import mean_and_between  # noqa: E402
from sr_var.flags.nets import EnsembleFlags  # noqa: E402
from sr_var.flags.scripts import MeanModelFlags, VarModelFlags  # noqa: E402
from sr_var.results.moments import Array  # noqa: E402
from sr_var.script_util import create_mean_model, create_var_model  # noqa: E402
from sr_var.stored_flags import flags_of_checkpoint, identity_of  # noqa: E402
from sr_var.verify.numbers.epistemic import epistemic_means, epistemic_metrics  # noqa: E402
from utils.images.crops.dataset import TestCrops  # noqa: E402
from utils.images.files import open_image  # noqa: E402
from utils.images.pixels import (  # noqa: E402
    bytes_to_image,
    image_to_255,
    image_to_bytes,
    to_hwc,
)
from utils.loops.networks import load_checked  # noqa: E402
from utils.metrics import HALF_RANGE_255  # noqa: E402
from utils.process.errors import EXIT_DONE, DataError, run_main  # noqa: E402
from utils.script_util import (  # noqa: E402
    FlagParser,
    flag,
    from_args,
    make_parser,
    require_at_least,
)
from utils.sizes import Size  # noqa: E402

_BATCH = 16
# grey levels: below it a piece shows nothing
_FLAT_STD = 6.0
# of scikit-image's wheel, by what they show
OTHERS: Mapping[str, tuple[str, ...]] = {
    "textures (brick, grass, gravel)": ("brick.png", "grass.png", "gravel.png"),
    "microscope and retina": ("ihc.png", "retina.jpg"),
    "printed text": ("page.png", "text.png"),
}
Shift = Callable[[Tensor], Tensor]
Row = dict[str, float | str]


@dataclass(frozen=True)
class ShiftFlags(EnsembleFlags):
    """Which nets, which images, and what is done to them."""

    mean_model_path: str = flag("", "checkpoints of the mean nets, with {fold} or {run}")
    model_path: str = flag("", "checkpoint of the variance net")
    data_dir: str = flag("data/shift_tiles", "folder of the test images")
    data_info_dict_path: str = flag("data/shift_info/to_sample_data_info.pkl", "their list")
    other_dir: str = flag("", "folder of images of another kind; empty: scikit-image's")
    num_pieces: int = flag(20, "pieces of each image of another kind")
    blur: str = flag("0.5,1", "stds of a Gaussian blur of the low-res image, pixels")
    noise: str = flag("5,20", "stds of normal noise on it, grey levels")
    jpeg: str = flag("75,30", "qualities of a JPEG of it")
    seed: int = flag(0, "of the noise")
    output_dir: str = flag(str(RESULTS_DIR), "folder of the two files")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, num_pieces=1, seed=0)
        if not self.cross_fit and not self.ensemble:
            raise ValueError(
                "one net has no variance between nets: give --cross_fit K or --ensemble 0,1,2"
            )
        for name in ("blur", "noise", "jpeg"):
            if min(self.levels(name), default=1.0) <= 0:
                raise ValueError(f"--{name} {getattr(self, name)} must be positive")

    def levels(self, name: str) -> list[float]:
        """A parsed list; none of an empty one."""
        text = getattr(self, name)
        try:
            return [float(part) for part in text.split(",") if text]
        except ValueError:
            raise ValueError(f"--{name} {text!r} must be numbers separated by commas") from None


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, benchmark=ShiftFlags)


def blurred(low_res: Tensor, std: float) -> Tensor:
    """A Gaussian blur, (N, C, h, w) in [-1, 1]; border pixels are replicated."""
    radius = math.ceil(3 * std)
    places = torch.arange(-radius, radius + 1, dtype=low_res.dtype)
    kernel = torch.exp(-0.5 * (places / std) ** 2)
    kernel = (kernel / kernel.sum()).expand(low_res.shape[1], 1, 1, -1)
    for weight, room in (
        (kernel, (radius, radius, 0, 0)),
        (kernel.transpose(2, 3), (0, 0, radius, radius)),
    ):
        padded = F.pad(low_res, room, mode="replicate")
        low_res = F.conv2d(padded, weight, groups=low_res.shape[1])
    return low_res


def noisy(low_res: Tensor, std: float, seed: int) -> Tensor:
    """Normal noise of std grey levels, clipped to [-1, 1]."""
    noise = torch.randn(low_res.shape, generator=torch.Generator().manual_seed(seed))
    return (low_res + std / HALF_RANGE_255 * noise).clamp(-1, 1)


def as_jpeg(low_res: Tensor, quality: float) -> Tensor:
    """What a JPEG of each image holds, as Pillow writes it."""
    found = []
    for image in image_to_bytes(low_res):
        file = io.BytesIO()
        Image.fromarray(to_hwc(image)).save(file, format="JPEG", quality=int(quality))
        pixels = np.asarray(Image.open(file, formats=("JPEG",))).transpose(2, 0, 1)
        found.append(bytes_to_image(torch.from_numpy(pixels.copy())))
    return torch.stack(found)


def shifts(flags: ShiftFlags) -> Iterator[tuple[str, Shift]]:
    """What is done to the low-res images, by name; first nothing."""
    yield "as they are", lambda low_res: low_res
    for std in flags.levels("blur"):
        yield f"blurred, std {std:g} pixels", partial(blurred, std=std)
    for std in flags.levels("noise"):
        yield f"noise, std {std:g} grey levels", partial(noisy, std=std, seed=flags.seed)
    for quality in flags.levels("jpeg"):
        yield f"JPEG, quality {quality:g}", partial(as_jpeg, quality=quality)


def pieces(image: Tensor, size: int, num: int) -> list[Tensor]:
    """At most `num` square pieces of (3, H, W) bytes, spread over those that show something."""
    found = []
    for top in range(0, image.shape[1] - size + 1, size):
        for left in range(0, image.shape[2] - size + 1, size):
            piece = image[:, top : top + size, left : left + size]
            if piece.float().mean(dim=0).std() >= _FLAT_STD:
                found.append(piece)
    chosen = np.linspace(0, len(found) - 1, min(num, len(found))).astype(int)
    return [found[place] for place in dict.fromkeys(chosen.tolist())]


def other_images(flags: ShiftFlags, size: int) -> Iterator[tuple[str, Tensor]]:
    """Images of another kind by name, (N, 3, size, size) bytes.

    Raises:
        DataError: there is none, or none is large enough.
    """
    groups = {name: list(files) for name, files in OTHERS.items()}
    folder = Path(flags.other_dir)
    if flags.other_dir:
        groups = {folder.name: sorted(path.name for path in folder.glob("*.[jp][pn]*g"))}
    else:
        package = importlib.util.find_spec("skimage")
        if package is None or package.origin is None:
            raise DataError("there is no scikit-image; install it, or give --other_dir")
        folder = Path(package.origin).parent / "data"
    for name, files in groups.items():
        found: list[Tensor] = []
        for file in files:
            pixels = torch.from_numpy(np.array(open_image(folder / file)))
            found += pieces(pixels.permute(2, 0, 1), size, flags.num_pieces)
        if not found:
            raise DataError(f"--other_dir {folder} has no picture with a piece of {size} pixels")
        yield name, torch.stack(found)


@dataclass(frozen=True)
class Judged:
    """K mean nets and the variance net on their average."""

    means: Sequence[nn.Module]
    variance: nn.Module
    sizes: tuple[Size, Size]

    def row(self, name: str, high_res_uint8: Tensor, shift: Shift) -> Row:
        """What they say of images (N, 3, H, H), and how far off they are; grey levels.

        `std` ⟨√v⟩, `between_std` ⟨√e⟩, `rmse` against the real images; `z2`, `coverage_95` of v,
        `…_total` of v + e.
        """
        high_res = bytes_to_image(high_res_uint8)
        parts: list[tuple[Tensor, ...]] = []
        low_res = shift(area_downsample(high_res, self.sizes[1]))
        with torch.inference_mode():
            for part in torch.split(low_res, _BATCH):
                mean, between = mean_and_between(self.means, part, high_res.shape[2:])
                parts.append((mean, between, variance_of(self.variance, part, mean)))
        mean, between, variance = map(torch.cat, zip(*parts, strict=True))
        real, nets = (_grey(image_to_255(image)) for image in (high_res, mean))
        e, v = (_grey(values * HALF_RANGE_255**2) for values in (between, variance))
        alone, total = (_metrics(other, (nets, v), real, len(self.means)) for other in (0 * e, e))
        return {
            "name": name,
            "num_images": len(high_res),
            "std": total["epistemic.mean_std_aleatoric"],
            "between_std": total["epistemic.mean_std"],
            "rmse": float(np.sqrt(((real - nets) ** 2).mean())),
            "z2": alone["epistemic.z2_total"],
            "z2_total": total["epistemic.z2_total"],
            "coverage_95": alone["epistemic.coverage_95_total"],
            "coverage_95_total": total["epistemic.coverage_95_total"],
        }


def _grey(values: Tensor) -> Array:
    return values.double().numpy()


def _metrics(
    between: Array, nets: tuple[Array, Array], real: Array, num_nets: int
) -> dict[str, float]:
    means = epistemic_means(between, nets, real, num_nets, None)
    found = epistemic_metrics({name: np.float64(value) for name, value in means.items()})
    return {name: float(value) for name, value in found.items()}


def load_nets(flags: ShiftFlags) -> Judged:
    """The nets of the checkpoints.

    Raises:
        CheckpointError: one is missing or of another kind.
    """
    means, sizes = [], (Size.of(0), Size.of(0))
    for path in flags.members(flags.mean_model_path, "mean_model_path"):
        own = MeanModelFlags(**flags_of_checkpoint(start_of_file(path), "", MeanModelFlags, print))
        create = partial(create_mean_model, **vars(own))
        means.append(
            load_checked(create, path, own.asked_precision, print, identity_of(own)).eval()
        )
        sizes = own.sizes
    path = flags.model_path
    of_var = VarModelFlags(**flags_of_checkpoint(start_of_file(path), "", VarModelFlags, print))
    create_var = partial(create_var_model, **vars(of_var))
    variance = load_checked(create_var, path, of_var.asked_precision, print, identity_of(of_var))
    return Judged(means, variance.eval(), sizes)


def format_table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| low-res image | predicted std | std between nets | rmse | z² of v | z² of v + e | "
        "95 % of v | 95 % of v + e |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row[name]:.3g}" for name in ("std", "between_std", "rmse", "z2", "z2_total")]
        cells += [
            f"{100 * float(row[name]):.1f} %" for name in ("coverage_95", "coverage_95_total")
        ]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Judges, writes, prints; returns the exit code."""
    flags = from_args(ShiftFlags, create_parser().parse_args(argv))
    judged = load_nets(flags)
    entries = load_entries(flags.data_info_dict_path, flags.data_dir)
    crops = TestCrops(entries, judged.sizes[0], flags.data_dir)
    images = torch.stack([item.image for item in map(crops.__getitem__, range(len(crops))) if item])
    rows = [judged.row(name, images, shift) for name, shift in shifts(flags)]
    for name, others in other_images(flags, judged.sizes[0].height):
        rows.append(judged.row(name, others, lambda low_res: low_res))
    write_rows("shift", Path(flags.output_dir), vars(flags), rows, format_table(rows))
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
