"""The sampler: what it writes, and that the noise of a sample is nobody's business but its own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.flags import SAMPLER_NAMES, DiffusionFlags
from ddpm.process import create_diffusion, warn_of_lost_std
from diffusion.process import GaussianDiffusion
from diffusion.samplers import SAMPLERS, SamplerOptions, gaussian_noise_fn, sample_loop
from sr_var.degradation import area_downsample
from sr_var.script_util import sr_create_model_and_diffusion
from tests.sr_var.samplers import ENTRIES, LABELS, NUM_SAMPLES, make_sampler, pictures, stored
from tests.tiny import DENOISER, LARGE, PROCESS, SMALL, TEST_NAMES, TinyData, shake, tree
from utils.images.files import center_crop_arr, open_image
from utils.images.listing import Entry
from utils.images.pixels import bytes_to_image, image_to_255, image_to_bytes
from utils.process.errors import CheckpointError, DataError
from utils.seeds import stable_seed

# kernels round differently for different batch sizes; measured: 1 level in 7 of 147 456 values for
# batches of 1, 3 and 16 (4 steps), 1 in 36 864 (100 steps), on 1 and on 2 threads
MAX_LEVELS_BETWEEN_BATCH_SIZES = 1
MAX_SHARE_OF_OTHER_LEVELS = 5e-4


def _direct_samples(data: TinyData, name: str, indices: list[int]) -> torch.Tensor:
    """The samples (n, 3, H, H) of one image, drawn one by one without the class under test."""
    model, diffusion = sr_create_model_and_diffusion(**DENOISER, **PROCESS)
    shake(model).eval()
    path = data.data_dir / (name if name.endswith(".png") else f"{name}.JPEG")
    crop = torch.from_numpy(center_crop_arr(open_image(path), LARGE).transpose(2, 0, 1).copy())
    low_res = area_downsample(bytes_to_image(crop)[None], SMALL)
    samples = []
    for index in indices:
        generator = torch.Generator().manual_seed(stable_seed(0, name, index))
        x_T, noise_fn = gaussian_noise_fn([generator], (1, 3, LARGE, LARGE), "cpu")
        condition = {"low_res": low_res, "y": torch.tensor([LABELS[name]])}
        options = SamplerOptions(model_kwargs=condition)
        samples.append(sample_loop(diffusion, model, x_T, noise_fn, options))
    return torch.cat(samples)


def test_files_are_those_of_the_contract(tmp_path: Path, tiny_data: TinyData) -> None:
    assert make_sampler(tiny_data, tmp_path).run_loop()
    names = {path for path in tree(tmp_path) if not path.startswith(".claims/")}
    seconds = {".seconds.json", ".seconds.json.lock"}
    assert names == seconds | {
        f"{name}/{file}"
        for name in TEST_NAMES
        for file in ["low_res.png", "moments.npz"]
        + [f"high_res_samples/sample_{i}.png" for i in range(NUM_SAMPLES)]
    }
    for name in TEST_NAMES:
        assert all(p.shape == (LARGE, LARGE, 3) for p in pictures(tmp_path, name).values())
        with np.load(tmp_path / name / "moments.npz") as file:
            assert file["count"] == NUM_SAMPLES and file["mean"].dtype == np.float32


def test_low_res_picture_is_the_rounded_block_mean_of_the_crop(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    make_sampler(tiny_data, tmp_path).run_loop()
    crop = center_crop_arr(open_image(tiny_data.data_dir / "n01440764_7.JPEG"), LARGE)
    factor = LARGE // SMALL
    blocks = crop.reshape(SMALL, factor, SMALL, factor, 3).mean(axis=(1, 3))
    picture = np.asarray(Image.open(tmp_path / "n01440764_7" / "low_res.png"))
    assert picture.shape == (SMALL, SMALL, 3)
    assert np.abs(picture - blocks).max() <= 0.5 + 1e-4


def test_samples_are_draws_of_the_process_given_image_label_and_own_noise(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    """Pictures are rounded and clipped, moments are of the unrounded float samples."""
    make_sampler(tiny_data, tmp_path, entries=ENTRIES[:2], batch_size=1).run_loop()
    for name in TEST_NAMES[:2]:
        samples = _direct_samples(tiny_data, name, list(range(NUM_SAMPLES)))
        expected = image_to_bytes(samples).permute(0, 2, 3, 1).numpy()
        for index, picture in pictures(tmp_path, name).items():
            np.testing.assert_array_equal(picture, expected[index])
        found = stored(tmp_path, name)
        assert found is not None and found.moments is not None
        grey = image_to_255(samples.double()).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(found.moments.mean, grey.mean(axis=0), rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(
            found.moments.variance, grey.var(axis=0, ddof=1), rtol=1e-6, atol=1e-3
        )


def test_samples_differ_between_indices_images_and_seeds(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    for seed in (0, 1):
        make_sampler(tiny_data, tmp_path / str(seed), seed=seed, batch_size=5).run_loop()
    digests = [
        hashlib.sha256(picture.tobytes()).hexdigest()
        for seed in (0, 1)
        for name in TEST_NAMES
        for picture in pictures(tmp_path / str(seed), name).values()
    ]
    assert len(set(digests)) == len(digests) == 2 * len(TEST_NAMES) * NUM_SAMPLES


def test_samples_do_not_depend_on_the_batch_size_but_for_rounding_of_kernels(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    name = TEST_NAMES[0]
    for batch_size in (1, 3, 16):
        folder = tmp_path / str(batch_size)
        make_sampler(tiny_data, folder, entries=ENTRIES[:1], batch_size=batch_size).run_loop()
    one = pictures(tmp_path / "1", name)
    for batch_size in (3, 16):
        other = pictures(tmp_path / str(batch_size), name)
        assert other.keys() == one.keys()
        difference = np.abs(np.stack([one[i].astype(int) - other[i] for i in range(NUM_SAMPLES)]))
        assert difference.max() <= MAX_LEVELS_BETWEEN_BATCH_SIZES
        assert np.mean(difference > 0) <= MAX_SHARE_OF_OTHER_LEVELS


def test_sample_does_not_depend_on_what_else_is_in_its_batch(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    """Order, neighbours and number of images change; batches are filled up, so no bit does."""
    make_sampler(tiny_data, tmp_path / "all").run_loop()
    for i, entry in enumerate(ENTRIES):
        single_process = tmp_path / f"alone{i}"
        make_sampler(tiny_data, single_process, entries=[entry]).run_loop()
        assert tree(single_process / entry.name) == tree(tmp_path / "all" / entry.name)
    make_sampler(tiny_data, tmp_path / "back", entries=ENTRIES[::-1]).run_loop()
    for name in TEST_NAMES:
        one = {i: p.tobytes() for i, p in pictures(tmp_path / "all", name).items()}
        assert one == {i: p.tobytes() for i, p in pictures(tmp_path / "back", name).items()}


def test_ddim_is_another_sampler_and_both_flags_ask_for_it(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    """``--use_ddim`` was parsed and never used."""
    options = {"ancestral": {}, "use_ddim": {"use_ddim": True}, "ddim": {"sampler": "ddim"}}
    for name, flags in options.items():
        make_sampler(tiny_data, tmp_path / name, entries=ENTRIES[:1], **flags).run_loop()
    trees = [tree(tmp_path / name / TEST_NAMES[0]) for name in ("ancestral", "use_ddim", "ddim")]
    assert trees[1] == trees[2] and trees[0] != trees[1]


def test_flags_offer_every_sampler_of_the_process() -> None:
    assert set(SAMPLER_NAMES) == set(SAMPLERS)


@pytest.mark.parametrize(
    "sampler", ["plms", "dpm_solver_2", "dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde"]
)
def test_batch_of_a_sample_does_not_matter_to_a_sampler_with_a_history(
    tmp_path: Path, tiny_data: TinyData, sampler: str
) -> None:
    flags: dict[str, Any] = {"sampler": sampler, "num_samples_per_image": 1, "batch_size": 2}
    make_sampler(tiny_data, tmp_path / "all", entries=ENTRIES[:2], **flags).run_loop()
    single_process, name = tmp_path / "alone", ENTRIES[1].name
    make_sampler(tiny_data, single_process, entries=ENTRIES[1:2], **flags).run_loop()
    assert tree(single_process / name) == tree(tmp_path / "all" / name)


def test_each_sampler_draws_other_samples(tmp_path: Path, tiny_data: TinyData) -> None:
    drawn = set()
    few: dict[str, Any] = {"entries": ENTRIES[:1], "num_samples_per_image": 1, "batch_size": 1}
    for sampler in SAMPLER_NAMES:
        make_sampler(tiny_data, tmp_path / sampler, sampler=sampler, **few).run_loop()
        drawn.add(pictures(tmp_path / sampler, TEST_NAMES[0])[0].tobytes())
    assert len(drawn) == len(SAMPLER_NAMES)


def process_of(**flags: Any) -> GaussianDiffusion:
    return create_diffusion(DiffusionFlags(**flags))


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({"diffusion_steps": 1000, "timestep_respacing": "250"}, None),
        ({"diffusion_steps": 1000, "timestep_respacing": "logsnr25"}, None),
        (
            {"diffusion_steps": 100, "timestep_respacing": "25"},
            ("4.03", "keeps 0.778", "loses 22.2%", "--diffusion_steps"),
        ),
        (
            {"diffusion_steps": 1000, "timestep_respacing": "0,25"},
            ("grey levels", "timestep 500", "--timestep_respacing", "logsnr25"),
        ),
    ],
)
def test_last_noise_level_that_loses_a_small_std_is_said_once_with_the_remedy(
    flags: dict[str, Any], parts: tuple[str, ...] | None
) -> None:
    lines: list[str] = []
    warn_of_lost_std(process_of(**flags), lines.append)
    if parts is None:
        assert lines == []
        return
    assert len(lines) == 1 and lines[0].startswith("warning: ")
    for part in parts:
        assert part in lines[0]


def test_clipping_can_be_switched_off(tmp_path: Path, tiny_data: TinyData) -> None:
    largest = []
    for is_clipped in (True, False):
        folder = tmp_path / str(is_clipped)
        entries = ENTRIES[:1]
        make_sampler(tiny_data, folder, entries=entries, clip_denoised=is_clipped).run_loop()
        found = stored(folder, TEST_NAMES[0])
        assert found is not None and found.moments is not None
        largest.append(np.abs(found.moments.mean - 127.5).max())
    assert largest[0] <= 127.5 + 1e-3 < largest[1]


def test_label_that_the_model_does_not_know_stops_before_the_first_sample(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    entries = [*ENTRIES, Entry("n01484850_29", 5)]
    with pytest.raises(DataError, match=r"n01484850_29 .* 5.* 0 to 4"):
        make_sampler(tiny_data, tmp_path / "out", entries=entries)
    assert not (tmp_path / "out").exists()
    make_sampler(tiny_data, tmp_path, entries=entries, net={"class_cond": False})


def test_label_changes_the_samples_of_a_class_conditional_model(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    name = TEST_NAMES[0]
    for y in (0, 3):
        make_sampler(tiny_data, tmp_path / str(y), entries=[Entry(name, y)]).run_loop()
    one, other = (pictures(tmp_path / str(y), name)[0] for y in (0, 3))
    assert not np.array_equal(one, other)


def test_output_that_is_not_finite_is_never_written(tmp_path: Path, tiny_data: TinyData) -> None:
    model, _ = sr_create_model_and_diffusion(**DENOISER, **PROCESS)
    shake(model)
    with torch.no_grad():
        model.out[2].bias[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"sample_0\.png"):
        make_sampler(tiny_data, tmp_path, model=model).run_loop()
    assert not list(tmp_path.rglob("sample_*")) and not list(tmp_path.rglob("*.npz"))


def test_damaged_image_is_an_error_or_skipped_and_counted(tmp_path: Path) -> None:
    data = TinyData.write(tmp_path / "images", tmp_path / "info")
    (data.data_dir / "n01443537_21.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"n01443537_21\.png"):
        make_sampler(data, tmp_path / "error").run_loop()
    lines: list[str] = []
    sampler = make_sampler(data, tmp_path / "skip", on_bad_image="skip", log=lines.append)
    assert sampler.run_loop()
    assert len(lines) == 1 and "1 damaged" in lines[0]
    assert set(pictures(tmp_path / "skip", "n01484850_17")) == set(range(NUM_SAMPLES))
    assert pictures(tmp_path / "skip", "n01443537_21.png") == {}


def test_dry_run_reports_and_writes_nothing(tmp_path: Path, tiny_data: TinyData) -> None:
    lines: list[str] = []
    make_sampler(tiny_data, tmp_path / "out", log=lines.append).dry_run()
    assert not (tmp_path / "out").exists()
    said = "\n".join(lines)
    for part in ("parameters: ", "memory", "s a sample", "15 samples"):
        assert part in said
