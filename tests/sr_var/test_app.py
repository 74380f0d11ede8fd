"""sr_app.py without its page: uploads, results, turns, samples by a process, the guard."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_train import create_parser
from sr_var.app import results as results_module
from sr_var.app.guard import Guard
from sr_var.app.results import Refused, Results, Turns, checked_level, read_upload
from sr_var.app.training import Form
from sr_var.flags.app import AppFlags, with_demo_nets
from sr_var.flags.predict import NetPairFlags
from sr_var.predict.predictor import Predictor
from sr_var.values import GREY_LEVELS, Units
from tests.sr_var.predict.pairs import FACTOR, pair_of, subpixel_pair
from tests.sr_var.predict.test_calibrated import CALIBRATION
from tests.tiny import photo, run
from utils.images.files import MAX_PIXELS
from utils.process.errors import EXIT_CHECKPOINT, EXIT_USAGE, CheckpointError


def _encoded(pixels: Any, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()


def _results(tmp_path: Path, **changes: Any) -> Results:
    limits = {"max_bytes": 1 << 16, "max_pixels": 1000, "turns": Turns(1), **changes}
    return Results(Predictor(subpixel_pair(), tile=8), str(tmp_path), **limits)


def _status(work: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(Refused) as refusal:
        work()
    line = str(refusal.value)
    assert line and "\n" not in line
    return refusal.value.status, line


# ---- an upload


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_an_upload_of_each_format_becomes_its_pixels(kind: str) -> None:
    pixels = photo(0, (9, 12))
    found = read_upload(_encoded(pixels, kind, quality=95), 1 << 20, 1000)
    assert found.shape == pixels.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - pixels).mean() < 20


def test_an_upload_is_turned_as_its_tag_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _encoded(photo(0, (9, 12)), exif=exif)
    np.testing.assert_array_equal(read_upload(data, 1 << 20, 1000), np.rot90(photo(0, (9, 12)), -1))


def _header_alone(side: int) -> bytes:
    """A PNG that says it has side × side pixels and holds none."""
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\0\0\0\0"


def test_unfit_uploads_are_refused_each_with_its_status() -> None:
    whole = _encoded(photo(0, (9, 12)))
    cases = {
        "--max_upload": (413, whole + bytes(5000)),
        "--max_pixels": (413, _encoded(photo(0, (40, 26)))),
        f"{MAX_PIXELS} pixels": (413, _header_alone(10000)),
        "bomb": (413, _header_alone(20000)),
        "JPEG, PNG": (415, b"GIF89a" + bytes(50)),
        "convert": (415, b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        "none of": (415, b""),
        "upload": (422, whole[:200]),
        "whole": (422, b"RIFF" + bytes(60)),
    }
    for part, (status, data) in cases.items():
        found, line = _status(lambda data=data: read_upload(data, 5000, 1000))
        assert found == status and part in line, (part, line)


def test_no_pixel_of_a_large_image_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_module, "decode_image", lambda *args, **more: pytest.fail("read"))
    assert _status(lambda: read_upload(_header_alone(2000), 5000, 1000))[0] == 413


@pytest.mark.parametrize("level", ["0", "1", "nan", "-0.5", "much", None, "1e400"])
def test_level_outside_of_0_to_1_is_refused(level: Any) -> None:
    assert _status(lambda: checked_level(level))[0] == 422
    assert checked_level("0.9") == 0.9


# ---- a result


def test_result_is_what_the_predictor_says(tmp_path: Path) -> None:
    pixels = photo(3, (9, 12))
    results = _results(tmp_path)
    result = results.get(results.predict(_encoded(pixels)))
    expected = Predictor(subpixel_pair(), tile=8, level=0.5)(pixels)
    np.testing.assert_array_equal(result.mean, expected.mean)
    np.testing.assert_array_equal(result.std, expected.std)
    for found, end in zip(result.ends(0.5), (expected.lower, expected.upper), strict=True):
        np.testing.assert_allclose(found, end, rtol=0, atol=1e-4)
    half = NormalDist().inv_cdf(0.95)
    values = result.at(7, 30, 0.9)
    mean, std = expected.mean[30, 7], expected.std[30, 7]
    np.testing.assert_allclose(values["mean"], mean)
    np.testing.assert_allclose(values["std"], std)
    np.testing.assert_allclose(values["lower"], mean - half * std, rtol=1e-5)
    np.testing.assert_allclose(values["upper"], mean + half * std, rtol=1e-5)
    for x, y in ((FACTOR * 12, 0), (0, FACTOR * 9), (-1, 0)):
        assert _status(lambda x=x, y=y: result.at(x, y, 0.9))[0] == 422


def test_what_is_taken_home_holds_everything(tmp_path: Path) -> None:
    results = _results(tmp_path)
    result = results.get(results.predict(_encoded(photo(3, (9, 12)))))
    with zipfile.ZipFile(result.write_zip(0.8)) as archive:
        names = {f"{name}.png" for name in ("input", "mean", "std", "lower", "upper")}
        assert set(archive.namelist()) == names | {"result.npz", "result.json"}
        record = json.loads(archive.read("result.json"))
        arrays = np.load(io.BytesIO(archive.read("result.npz")), allow_pickle=False)
        mean = np.asarray(Image.open(io.BytesIO(archive.read("mean.png"))))
    assert record["intervals"]["level"] == arrays["level"] == 0.8 and record["factor"] == FACTOR
    assert {arrays[kind].shape for kind in ("mean", "std", "lower", "upper")} == {(36, 48, 3)}
    np.testing.assert_array_equal(arrays["upper"], result.ends(0.8)[1])
    np.testing.assert_array_equal(mean, np.clip(np.rint(arrays["mean"]), 0, 255))


def test_calibrated_intervals_are_those_of_the_predictor_and_of_one_level(tmp_path: Path) -> None:
    predictor = Predictor(subpixel_pair(), tile=8, calibration=CALIBRATION)
    limits = {"max_bytes": 1 << 16, "max_pixels": 1000, "turns": Turns(1)}
    results = Results(predictor, str(tmp_path), **limits)  # type: ignore[arg-type]
    result = results.get(results.predict(_encoded(photo(3, (9, 12)))))
    expected = predictor(photo(3, (9, 12)))
    for found, end in zip(result.ends(0.8), (expected.lower, expected.upper), strict=True):
        np.testing.assert_allclose(found, end, rtol=0, atol=1e-4)
    np.testing.assert_allclose(result.at(7, 30, 0.8)["upper"], expected.upper[30, 7], rtol=1e-5)
    assert results.level("0.8") == 0.8 and result.intervals["is_calibrated"]
    assert _status(lambda: results.level("0.9")) == (
        422,
        "level 0.9: the intervals are calibrated for 0.8 alone",
    )
    assert _results(tmp_path).level("0.9") == 0.9


def test_networks_of_no_pictures_are_refused(tmp_path: Path) -> None:
    from sr_var.app.server import serve

    pair = dataclasses.replace(subpixel_pair(), units=Units(0.0, 1.0, 3, is_8_bit=False))
    with pytest.raises(CheckpointError, match=r"sr_predict\.py"):
        serve(Predictor(pair), AppFlags(), Form(create_parser), print)


# ---- networks that see more than an image


def _seeing(words: str, tmp_path: Path, **more: Any) -> Results:
    limits = {"max_bytes": 1 << 16, "max_pixels": 1000, "turns": Turns(1)}
    return Results(Predictor(pair_of(words, 1, GREY_LEVELS, **more)), str(tmp_path), **limits)


def test_a_mask_comes_beside_the_image_or_in_its_alpha(tmp_path: Path) -> None:
    results, pixels = _seeing("mask:0.4", tmp_path), photo(3, (9, 12))
    seen = np.random.default_rng(0).random((9, 12)) > 0.4
    expected = results.predictor(pixels, mask=seen)
    alpha = _encoded(np.dstack([pixels, seen * np.uint8(255)]))
    mask, plain = _encoded((seen * 255).astype(np.uint8)), _encoded(pixels)
    half = seen.copy()
    half[:4] = True
    rest = _encoded(np.dstack([pixels, (seen | (half & ~seen)) * np.uint8(255)]))
    for data, given in ((plain, mask), (alpha, None), (alpha, mask), (rest, mask)):
        result = results.get(results.predict(data, given))
        np.testing.assert_array_equal(result.mean, expected.mean)
        np.testing.assert_array_equal(result.std, expected.std)
    with zipfile.ZipFile(result.write_zip(0.8)) as archive:
        kept = np.asarray(Image.open(io.BytesIO(archive.read("mask.png"))))
    np.testing.assert_array_equal(kept[..., 0] > 0, seen)
    assert results.needs_mask(plain) and not results.needs_mask(alpha)
    for given, status, part in (
        (None, 422, "send a mask"),
        (_encoded(np.ones((4, 5), np.uint8)), 422, "5×4"),
        (_encoded(np.zeros((9, 12), np.uint8)), 422, "hides all"),
        (alpha, 422, "transparent"),
        (b"GIF89a", 415, "PNG"),
        (_encoded(photo(0, (40, 26))), 413, "--max_pixels"),
    ):
        found, line = _status(lambda given=given: results.predict(plain, given))
        assert found == status and part in line, line
    assert len(os.listdir(tmp_path)) == 4  # a refusal leaves nothing
    found, line = _status(lambda: _results(tmp_path).predict(plain, mask))
    assert found == 422 and "no mask" in line


def test_a_mask_of_the_training_is_asked_for_where_it_does_not_fit(tmp_path: Path) -> None:
    seen = np.eye(9, 12) == 0
    Image.fromarray((seen * 255).astype(np.uint8)).save(tmp_path / "m.png")
    results = _seeing(f"mask:{tmp_path / 'm.png'}", tmp_path / "results")
    (tmp_path / "results").mkdir()
    fits, other = _encoded(photo(3, (9, 12))), _encoded(photo(3, (9, 13)))
    assert not results.needs_mask(fits) and results.needs_mask(other)
    expected = results.predictor(photo(3, (9, 12)), mask=seen)
    np.testing.assert_array_equal(results.get(results.predict(fits)).mean, expected.mean)
    assert _status(lambda: results.predict(other))[0] == 422
    (tmp_path / "m.png").unlink()
    assert results.needs_mask(fits)


def test_measured_pictures_of_another_kind_are_taken(tmp_path: Path) -> None:
    """Grey ones to colours; colours are refused in one line."""
    from sr_var.app.server import require_pictures

    results, grey = _seeing("measured:1", tmp_path), photo(3, (9, 12))[..., 0]
    require_pictures(results.predictor.pair)
    result = results.get(results.predict(_encoded(grey)))
    expected = results.predictor(grey)
    assert result.mean.shape == (9, 12, 3) and expected.mean.mean() > 1  # grey levels
    np.testing.assert_array_equal(result.mean, expected.mean)
    assert result.at(2, 3, 0.9)["mean"] == expected.mean[3, 2].tolist()
    status, line = _status(lambda: results.predict(_encoded(photo(3, (9, 12)))))
    assert status == 422 and "(h, w, 1)" in line


def test_a_level_comes_beside_the_image(tmp_path: Path) -> None:
    results = _seeing("noise:5-50", tmp_path, condition_on_level=True)
    data = _encoded(photo(3, (9, 12)))
    result = results.get(results.predict(data, levels=[20]))
    expected = results.predictor(photo(3, (9, 12)), degradation_level=20)
    np.testing.assert_array_equal(result.mean, expected.mean)
    with zipfile.ZipFile(result.write_zip(0.8)) as archive:
        assert json.loads(archive.read("result.json"))["degradation_level"] == [20]
    for levels, part in (([], "from 5 to 50"), ([60], "from 5 to 50"), ([6, 7], "6,7")):
        found, line = _status(lambda levels=levels: results.predict(data, levels=levels))
        assert found == 422 and part in line
    found, line = _status(lambda: _results(tmp_path).predict(data, levels=[20]))
    assert found == 422 and "leave it out" in line


@pytest.mark.parametrize("words", ["grey&noise:25", "mask:0.5+mask:0.5"])
def test_networks_of_several_images_or_masks_are_refused(words: str) -> None:
    from sr_var.app.server import serve

    with pytest.raises(CheckpointError, match=r"sees?.*several.*sr_predict\.py --"):
        serve(Predictor(pair_of(words, 1, GREY_LEVELS)), AppFlags(), Form(create_parser), print)


def test_the_oldest_results_go_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_module, "KEPT", 2)
    results = _results(tmp_path)
    names = [results.predict(_encoded(photo(seed, (5, 4)))) for seed in range(3)]
    assert sorted(os.listdir(tmp_path)) == sorted(names[1:])
    assert _status(lambda: results.get(names[0]))[0] == 404
    results.forget(names[1])
    results.forget("../anything")
    assert os.listdir(tmp_path) == names[2:]


def test_a_name_that_leads_elsewhere_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    results, secret = _results(tmp_path / "own"), tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "own" / "link").symlink_to(secret)
    own = tmp_path / "own" / "sent.png"
    own.write_bytes(b"x" * 3)
    for path in ("/etc/passwd", str(secret), f"{tmp_path}/own/../secret", f"{tmp_path}/own/link"):
        assert _status(lambda path=path: results.read_own(path))[0] == 403
    for name in ("../secret", "..", "/etc/passwd", ""):
        assert _status(lambda name=name: results.get(name))[0] == 404
    assert results.read_own(str(own)) == b"xxx"


def test_one_computation_at_a_time_and_few_wait() -> None:
    turns, entered, leave = Turns(1), threading.Event(), threading.Event()
    order: list[str] = []

    def work(name: str) -> None:
        with turns.take():
            order.append(name)
            entered.set()
            leave.wait(10)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    while turns._num < 2:
        pass
    assert _status(lambda: turns.take().__enter__())[0] == 503
    assert order == ["a"]
    leave.set()
    for thread in threads:
        thread.join(10)
    with turns.take():
        assert order == ["a", "b"]


# ---- the guard


def _asked(headers: dict[str, str], body: bytes = b"", hosts: bool = True) -> tuple[int, str]:
    """Status and text of a request that passes the guard to something that answers 200."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    known = frozenset({"127.0.0.1", "localhost", "::1"}) if hosts else frozenset[str]()
    guard = Guard(app, max_bytes=10, hosts=known)
    pairs = [(name.encode(), text.encode("latin-1")) for name, text in headers.items()]
    asyncio.run(guard({"type": "http", "headers": pairs}, receive, send))
    assert b"default-src 'self'" in dict(sent[0]["headers"])[b"content-security-policy"]
    return sent[0]["status"], sent[1]["body"].decode()


def test_guard_lets_own_requests_through_alone() -> None:
    own = {"host": "127.0.0.1:7860"}
    assert _asked(own) == (200, "fine")
    assert _asked({"host": "localhost", "origin": "http://localhost"})[0] == 200
    assert _asked({"host": "[::1]:7860"})[0] == 200
    assert _asked({"host": "evil.example"}, hosts=False)[0] == 200
    cases: dict[int, list[dict[str, str]]] = {
        400: [{"host": "evil.example:7860"}, {}, {"host": "127.0.0.1.evil.example"}],
        403: [
            own | {"origin": text} for text in ("http://evil.example", "null", "http://127.0.0.1")
        ],
        411: [own | {"transfer-encoding": "chunked"}],
        413: [own | {"content-length": text} for text in ("11", "-1", "1e3", "")],
    }
    for status, requests in cases.items():
        for headers in requests:
            found, text = _asked(headers, bytes(11))
            assert found == status and text.count("\n") == 1, headers
    assert _asked(own | {"content-length": "10"}, bytes(10))[0] == 200


# ---- the script


def test_flags_that_no_page_could_have_are_refused() -> None:
    for change in (
        {"port": 70000},
        {"level": 1.0},
        {"max_upload": 0},
        {"max_pixels": 0},
        {"host": ""},
        {"classifier_path": "c.pt"},
    ):
        with pytest.raises(ValueError, match=f"--{next(iter(change))}"):
            AppFlags(**change)
    assert AppFlags().is_loopback and not AppFlags(host="0.0.0.0").is_loopback


def test_nets_of_the_demo_are_found_or_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run("sr_app", [])
    assert outcome.code == EXIT_CHECKPOINT and "make demo" in outcome.err
    assert list(tmp_path.iterdir()) == []
    from sr_var.demo.commands import QUICK

    paths = {
        "mean_model_path": f"checkpoints/sr_mean/demo_quick/model{QUICK.mean_steps:06d}.pt",
        "var_model_path": f"checkpoints/sr_var/demo_quick/model{QUICK.var_steps:06d}.pt",
    }
    for path in paths.values():
        Path(path).parent.mkdir(parents=True)
        Path(path).touch()
    found = with_demo_nets(NetPairFlags())
    assert {name: getattr(found, name) for name in paths} == paths
    given = NetPairFlags(mean_model_path="m.pt")
    assert with_demo_nets(given) == given


def test_without_gradio_a_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    argv = ["--mean_model_path", "m.pt", "--var_model_path", "v.pt", "--log_dir", str(tmp_path)]
    outcome = run("sr_app", argv)
    assert outcome.code == EXIT_USAGE and "./setup.sh app" in outcome.err
    assert list(tmp_path.iterdir()) == []
