"""Time and memory of the verification on synthetic images of noise, from pictures or moments.

    python -m benchmarks.verification --num_images 6 --num_samples 100 --large_size 256

Prints CPU seconds and wall time an image, and how much is decoding. For the peak memory
run the script itself under ``/usr/bin/time -v``: making the images takes more than reading them.
Not a test: nothing is checked. Everything is written to a temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from sr_var.flags import VerificationFlags
from sr_var.moments import SampleMoments
from sr_var.sample_jobs import sample_path
from sr_var.verify.reference import read_picture
from sr_var.verify.run import verify_all
from utils.image_util import write_png
from utils.logger import RunLogger
from utils.random_util import stable_seed
from utils.safe_pickle import dump_pickle


def make_image(root: Path, name: str, num_samples: int, size: int) -> None:
    """One photograph of noise, its samples (pictures and float moments) and the nets' results."""
    rng = np.random.default_rng(stable_seed(name))
    shape = (size, size, 3)
    mean, std = rng.uniform(80, 180, shape), rng.uniform(3, 12, shape)
    folder, nets = root / "samples" / name, root / "nets" / name
    for path in (folder / "high_res_samples", nets, root / "images"):
        path.mkdir(parents=True, exist_ok=True)
    samples = mean + std * rng.standard_normal((num_samples, *shape))
    to_bytes = lambda image: np.clip(np.rint(image), 0, 255).astype(np.uint8)  # noqa: E731
    for i, sample in enumerate(samples):
        write_png(sample_path(str(folder), i), to_bytes(sample))
    write_png(str(folder / "low_res.png"), to_bytes(mean[::4, ::4]))
    counted = SampleMoments().add(samples, range(num_samples), size // 4)
    counted.save(str(folder / "moments.npz"), is_final=True)
    write_png(str(root / "images" / name), to_bytes(mean + std * rng.standard_normal(shape)))
    np.save(nets / "high_res_mean_1.npy", mean.astype(np.float32))
    dump_pickle((std**2).astype(np.float32), nets / "high_res_var_1.pkl")


def measure(root: Path, num_images: int, args: argparse.Namespace) -> tuple[float, float]:
    """CPU and wall seconds an image."""
    flags = VerificationFlags(
        data_dir=str(root / "images"),
        data_info_dict_path=str(root / "info.pkl"),
        large_size=args.large_size,
        ddpm_sr_output_dir=str(root / "samples"),
        num_samples=args.num_samples,
        sr_model_output_dir=str(root / "nets"),
        mean_model_step=1,
        var_model_step=1,
        log_dir=str(root / "log"),
        num_panels=0,
        num_threads=args.num_threads,
    )
    logger = RunLogger(flags.log_dir, is_quiet=True)
    cpu, wall = time.process_time(), time.monotonic()
    verify_all(flags, logger)
    used = time.process_time() - cpu, time.monotonic() - wall
    logger.close()
    return used[0] / num_images, used[1] / num_images


def main(argv: list[str] | None = None) -> int:
    """Makes the images, measures both ways, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_images", type=int, default=6)
    parser.add_argument("--num_samples", type=int, default=100)
    parser.add_argument("--large_size", type=int, default=256)
    parser.add_argument("--num_threads", type=int, default=2)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = [f"image{i}.png" for i in range(args.num_images)]
        for name in names:
            make_image(root, name, args.num_samples, args.large_size)
        dump_pickle({"class": {"y": 0, "file_names": names}}, root / "info.pkl")
        measure(root, args.num_images, args)  # warm-up
        for source in ("moments", "pictures"):
            cpu, wall = measure(root, args.num_images, args)
            print(f"{source}: {cpu:.3f} s of CPU, {wall:.3f} s of wall time an image")
            for path in (root / "samples").glob("*/moments.npz"):
                path.unlink()
        first = str(root / "samples" / names[0])
        started = time.process_time()
        for i in range(args.num_samples):
            read_picture(sample_path(first, i), args.large_size)
        print(f"of which decoding: {time.process_time() - started:.3f} s")
    return 0


if __name__ == "__main__":
    main()
