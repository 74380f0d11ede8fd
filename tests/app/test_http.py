"""The server by HTTP: results, every refusal, files that are none of its own, other pages."""

from __future__ import annotations

import base64
import fnmatch
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpm.flags import PICTURE_FORMATS, SAMPLER_NAMES
from sr_var.predict.predictor import Predictor
from tests.app.conftest import MAX_PIXELS, Server
from tests.sr_var.predict.conftest import Nets
from tests.tiny import ROOT, photo

PNG, JSON = {"Content_Type": "image/png"}, {"Content_Type": "application/json"}
KINDS = {"png": ["PNG"], "jpg": ["JPEG"], "webp": ["WEBP"], "tif": ["TIFF"]}


def _present(folder: Path, pattern: str) -> list[str]:
    """Names of files and folders below one, any of which may be removed meanwhile."""
    found = [name for _, dirs, files in os.walk(folder) for name in (*dirs, *files)]
    return sorted(fnmatch.filter(found, pattern))


def _png(height: int = 9, width: int = 12) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo(3, (height, width))).save(file, "PNG")
    return file.getvalue()


def test_route_gives_what_the_predictor_says(server: Server, subpixel_nets: Nets) -> None:
    status, body, _ = server.ask("/predict?level=0.5", _png(), **PNG)
    assert status == 200
    arrays = np.load(io.BytesIO(body), allow_pickle=False)
    predictor = Predictor.from_checkpoints(
        str(subpixel_nets.mean), str(subpixel_nets.var), "cpu", level=0.5
    )
    expected = predictor(photo(3, (9, 12)))
    for kind in ("mean", "std", "lower", "upper"):
        np.testing.assert_allclose(arrays[kind], getattr(expected, kind), rtol=0, atol=1e-2)
    assert arrays["level"] == 0.5
    status, body, _ = server.ask("/predict?format=zip", _png(), **PNG)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert (
            status == 200 and json.loads(archive.read("result.json"))["intervals"]["level"] == 0.9
        )


def _form(**files: bytes) -> tuple[bytes, dict[str, str]]:
    """The body of a form of files, and its header."""
    parts = [
        f'--cut\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.png"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files.items()
    ]
    return b"".join(parts) + b"--cut--\r\n", {"Content_Type": "multipart/form-data; boundary=cut"}


def _encoded(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_mask_and_level_come_with_the_image(masked_server: Server, masked_nets: Nets) -> None:
    pixels, seen = photo(3, (9, 12)), np.random.default_rng(0).random((9, 12)) > 0.4
    mask, clear = (seen * 255).astype(np.uint8), np.dstack([pixels, seen * np.uint8(255)])
    predictor = Predictor.from_checkpoints(str(masked_nets.mean), str(masked_nets.var), "cpu")
    expected = predictor(pixels, mask=seen, degradation_level=20)
    path = "/predict?degradation_level=20"
    body, kind = _form(image=_png(), mask=_encoded(mask))
    for data, head in ((body, kind), (_encoded(clear), PNG)):
        status, answer, _ = masked_server.ask(path, data, **head)
        assert status == 200, answer
        arrays = np.load(io.BytesIO(answer), allow_pickle=False)
        for one in ("mean", "std"):
            np.testing.assert_allclose(arrays[one], getattr(expected, one), rtol=0, atol=1e-2)
    alone, alone_kind = _form(mask=_encoded(mask))
    for where, data, head, part in (
        (path, _png(), PNG, "send a mask"),
        ("/predict", body, kind, "from 5 to 50"),
        ("/predict?degradation_level=51", body, kind, "from 5 to 50"),
        ("/predict?degradation_level=much", body, kind, "much"),
        (path, alone, alone_kind, "image=@FILE"),
        (path, body[:-40], kind, "form"),
        (path, body, {"Content_Type": "multipart/form-data"}, "form"),
    ):
        status, answer, _ = masked_server.ask(where, data, **head)
        assert status == 422 and answer.count(b"\n") == 1, answer
        assert part in answer.decode(), answer


def test_results_of_the_route_leave_no_file(server: Server) -> None:
    assert server.ask("/predict", _png(), **PNG)[0] == 200
    for _ in range(100):  # they go once the answer is sent
        if not (left := _present(server.folder, "*.np[yz]")):
            break
        time.sleep(0.1)
    assert left == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl_lines_of_the_page_work(server: Server, masked_server: Server, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(_png())
    (tmp_path / "mask.png").write_bytes(_encoded(np.eye(9, 12) > 0))
    text = (ROOT / "docs/app.md").read_text("utf-8").replace("\\\n", "")
    lines = re.findall(r"^curl .*$", text, re.MULTILINE)
    assert len(lines) >= 3
    for line in sorted(lines, key=lambda line: "mask" not in line):
        url = masked_server.url if "mask" in line else server.url
        line = line.replace("http://127.0.0.1:7860", url)
        command = ["sh", "-c", f"{line} --fail --silent --noproxy '*'"]
        subprocess.run(command, cwd=tmp_path, check=True)
    assert np.load(tmp_path / "cat.npz", allow_pickle=False)["mean"].shape == (36, 48, 3)
    with zipfile.ZipFile(tmp_path / "samples.zip") as archive:
        assert "grid.png" in archive.namelist()


def test_samples_are_those_that_the_script_draws(
    server: Server, denoiser: Path, tmp_path: Path
) -> None:
    wish = {"labels": "each", "steps": 3, "sampler": "ddim", "seed": 5, "guidance_scale": 2}
    status, body, _ = server.ask("/samples?reply=json", json.dumps(wish).encode(), **JSON)
    assert status == 200, body
    found = json.loads(body)
    assert [one["label"] for one in found["pictures"]] == ["0 cat", "1 dog", "2 eel"]
    words = shlex.split(found["command"].replace("DIR", str(tmp_path)))
    assert words[0] == "python"
    subprocess.run([sys.executable, *words[1:]], cwd=ROOT, check=True, capture_output=True)
    for one in found["pictures"]:
        assert base64.b64decode(one["base64"]) == (tmp_path / "png" / one["name"]).read_bytes()


@pytest.mark.parametrize("ending", PICTURE_FORMATS)
def test_samples_come_in_each_format(server: Server, ending: str) -> None:
    wish = {"num_samples": 2, "steps": 2, "image_format": ending, "model": "model000001.pt"}
    status, body, _ = server.ask("/samples", json.dumps(wish).encode(), **JSON)
    assert status == 200, body
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        pictures = [name for name in archive.namelist() if name.startswith(f"{ending}/")]
        assert len(pictures) == 2
        with Image.open(io.BytesIO(archive.read(pictures[0])), formats=KINDS[ending]) as picture:
            assert picture.size == (16, 16)
    for _ in range(100):  # they go once the answer is sent
        if not (left := _present(server.folder, "samples_*")):
            break
        time.sleep(0.1)
    assert left == []


def test_choices_are_told(server: Server) -> None:
    status, body, _ = server.ask("/samples")
    found = json.loads(body)
    assert status == 200 and found["samplers"] == list(SAMPLER_NAMES)
    assert list(found["models"]) == ["ema_0.9_000001.pt", "model000001.pt"]
    assert found["models"]["model000001.pt"]["classes"] == ["0 cat", "1 dog", "2 eel"]
    assert str(ROOT) not in body.decode() and str(server.folder) not in body.decode()


def test_every_refusal_of_samples_is_one_line_with_its_status(server: Server) -> None:
    cases = [
        (413, "JSON", b"{" + b" " * (1 << 17) + b"}", JSON),
        (415, "Content-Type", b"{}", PNG),
        (415, "Content-Type", b"{}", {}),
        (422, "JSON", b"[" * 50000, JSON),
        (422, "JSON", b"\xff", JSON),
        (422, "steps", b'{"steps": 21}', JSON),
        (422, "num_samples", b'{"num_samples": 1000000}', JSON),
        (422, "class", b'{"labels": "--output_dir=/"}', JSON),
        (422, "model", b'{"model": "../../x.pt"}', JSON),
        (422, "output_dir", b'{"output_dir": "/x"}', JSON),
        (422, "guidance_scale", b'{"guidance_scale": NaN}', JSON),
        (400, "host", b"{}", {**JSON, "Host": "evil.example"}),
        (403, "origin", b"{}", {**JSON, "Origin": "http://evil.example"}),
    ]
    for status, part, body, headers in cases:
        found, text, _ = server.ask("/samples", body, **headers)
        assert found == status, (status, part, text[:200])
        assert part in text.decode() and text.count(b"\n") == 1, text
    assert server.ask("/samples?reply=../x", b"{}", **JSON)[0] == 422


def test_every_refusal_is_one_line_with_its_status(server: Server) -> None:
    whole = _png()
    cases = [
        (413, "--max_upload", "/predict", bytes((1 << 20) + 1), PNG),
        (413, "--max_upload", "/predict", bytes(3 << 20), PNG),
        (413, "--max_pixels", "/predict", _png(MAX_PIXELS // 50 + 1, 50), PNG),
        (415, "JPEG", "/predict", b"GIF89a" + bytes(60), PNG),
        (415, "Content-Type", "/predict", whole, {"Content_Type": "text/plain"}),
        (415, "Content-Type", "/predict", whole, {}),
        (422, "upload", "/predict", whole[:200], PNG),
        (422, "level", "/predict?level=2", whole, PNG),
        (422, "level", "/predict?level=nan", whole, PNG),
        (422, "format", "/predict?format=../x", whole, PNG),
        (400, "host", "/predict", whole, {**PNG, "Host": "evil.example"}),
        (403, "origin", "/predict", whole, {**PNG, "Origin": "http://evil.example"}),
        (403, "origin", "/gradio_api/queue/join", b"{}", {"Origin": "null"}),
    ]
    for status, part, path, body, headers in cases:
        found, text, _ = server.ask(path, body, **headers)
        assert found == status, (status, part, text[:200])
        assert part in text.decode() and text.count(b"\n") == 1, text
    assert server.ask("/predict")[0] in (404, 405)


def test_requests_at_the_same_time_are_all_served(server: Server) -> None:
    def ask(level: int) -> float:
        status, body, _ = server.ask(f"/predict?level=0.{level}", _png(), **PNG)
        assert status == 200
        return float(np.load(io.BytesIO(body), allow_pickle=False)["level"])

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(1, 7))) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_no_file_but_its_own_is_sent(server: Server, subpixel_nets: Nets) -> None:
    secret = server.folder / "secret.txt"
    secret.write_text("the secret")
    places = ["/etc/passwd", str(secret), str(subpixel_nets.mean), str(ROOT / "sr_app.py")]
    places += ["../../../../../etc/passwd", "..%2f..%2f..%2f..%2fetc%2fpasswd", "README.md"]
    inside = next(iter(server.folder.glob("sr_app_*")))
    places += [f"{inside}/../secret.txt", f"{inside}/page/../../secret.txt"]
    for place in places:
        for route in ("/gradio_api/file=", "/file=", "/gradio_api/stream/", "/static/", "/assets/"):
            status, body, _ = server.ask(f"{route}{place}")
            assert status >= 400, (route, place)
            assert b"root:" not in body and b"the secret" not in body and b"import" not in body
    for url in ("http://127.0.0.1:9/x", "file:///etc/passwd"):
        assert server.ask(f"/gradio_api/file={url}")[0] >= 300
        assert server.ask(f"/gradio_api/proxy={url}")[0] >= 400


def test_page_takes_no_path_for_an_upload(server: Server, subpixel_nets: Nets) -> None:
    """What a hand-made request names as its image is not read."""
    config = json.loads(server.ask("/config")[1])
    first = next(one["id"] for one in config["dependencies"] if one["targets"][0][1] == "input")
    for path in ("/etc/passwd", str(subpixel_nets.mean), "http://127.0.0.1:9/x.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        call = {"data": [file, 0.9], "fn_index": first, "session_hash": "x"}
        body = json.dumps(call).encode()
        status, _, _ = server.ask("/gradio_api/queue/join", body, Content_Type="application/json")
        stream = server.ask("/gradio_api/queue/data?session_hash=x")[1].decode()
        assert status == 200 and '"success":false' in stream.replace(" ", ""), stream
        assert "root:" not in stream


def test_uploads_go_below_the_folder_under_names_of_the_server(server: Server) -> None:
    edge = (
        b"--x\r\nContent-Disposition: form-data; name=files; filename=%s\r\n\r\nhello\r\n--x--\r\n"
    )
    kind = {"Content_Type": "multipart/form-data; boundary=x"}
    for name in (b'"../../../../evil.png"', b'"/tmp/evil.png"', b'"a\\..\\evil.png"'):
        status, body, _ = server.ask("/gradio_api/upload", edge % name, **kind)
        if status == 200:
            (path,) = json.loads(body)
            assert Path(path).resolve().is_relative_to(server.folder)
        else:
            assert 400 <= status < 500
    assert not Path("/tmp/evil.png").exists()
    large = b"--x\r\nContent-Disposition: form-data; name=files; filename=a\r\n\r\n" + bytes(
        (1 << 20) + 100
    )
    assert server.ask("/gradio_api/upload", large + b"\r\n--x--\r\n", **kind)[0] == 413


def test_headers_keep_the_page_to_itself(server: Server) -> None:
    for path in ("/", "/openapi.json", "/none"):
        headers = server.ask(path)[2]
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    page = server.ask("/")[1].decode()
    assert not re.findall(r"<(?:script|link)[^>]*(?:src|href)=[\"']?(?:https?:)?//", page)
    for path in ("/predict", "/samples"):
        route = json.loads(server.ask("/openapi.json")[1])["paths"][path]["post"]
        statuses = set(route["responses"])
        assert "curl" in route["description"] and {"413", "415", "422", "503"} <= statuses
    assert server.ask("/docs")[0] == 404
