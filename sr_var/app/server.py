"""The server of sr_app.py: `POST /predict`, the page, and the guard around both.

No `from __future__ import annotations`: FastAPI reads the annotations of the route.
"""

import contextlib
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

from sr_var.app.guard import Guard
from sr_var.app.results import Refused, Results, Turns
from sr_var.app.samples import Model, Sampling
from sr_var.flags.app import LOOPBACK, AppFlags
from sr_var.predict.predictor import Predictor
from utils.process.errors import CheckpointError
from utils.process.stop import StopFlag

Log = Callable[[str], None]
# of a request of the page, around the image that it sends
_AROUND_AN_UPLOAD = 1 << 20
_TYPES = ("image/", "application/octet-stream")
_FORMATS = ("npz", "zip")
# read by Gradio and huggingface_hub when they are imported: nothing is asked of any other machine
_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "GRADIO_RUN_HISTORY": "False",
}
_DESCRIPTION = """Mean, std and interval of the image in the body (JPEG, PNG, WEBP or BMP).

    curl --data-binary @cat.png -H 'Content-Type: image/png' \\
      'http://127.0.0.1:7860/predict?level=0.9' -o cat.npz

`format=npz`: float32 arrays mean, std, lower and upper, (H, W, C) in grey levels, and the level.
`format=zip`: the same file, result.json, and pictures. A refusal is one line of text."""

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {"required": True, "content": {"image/*": _BINARY, "application/octet-stream": _BINARY}}
_RESPONSES = {
    200: {"content": {"application/octet-stream": _BINARY}, "description": "the result"},
    413: {"description": "too many bytes or pixels"},
    415: {"description": "no image, or one of another format"},
    422: {"description": "a damaged image, or an unfit parameter"},
    503: {"description": "too many requests wait"},
}


def require_packages() -> None:
    """Refuse (ValueError) to start without Gradio, before any network is loaded."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(
            "the page needs Gradio: run ./setup.sh app, then .venv-app/bin/python sr_app.py "
            "(`make app` does both)"
        )


def make_server(
    predictor: Predictor, flags: AppFlags, folder: str, model: Model | None = None
) -> Guard:
    """The whole application, which writes below `folder` alone."""
    os.environ |= {**_QUIET, "GRADIO_TEMP_DIR": os.path.join(folder, "page")}
    os.mkdir(os.environ["GRADIO_TEMP_DIR"])
    import fastapi

    from sr_var.app.page import add_page

    turns, max_bytes = Turns(flags.max_waiting), flags.max_upload << 20
    results = Results(
        predictor, folder, max_bytes=max_bytes, max_pixels=flags.max_pixels, turns=turns
    )
    sampling = Sampling(model, folder, turns, flags.max_seconds) if model else None
    # their pages take scripts from elsewhere
    app = fastapi.FastAPI(title="sr_app", docs_url=None, redoc_url=None)
    _add_route(app, results)
    hosts = frozenset(LOOPBACK) if flags.is_loopback else frozenset[str]()
    whole = add_page(app, results, sampling, flags)
    return Guard(whole, max_bytes=max_bytes + _AROUND_AN_UPLOAD, hosts=hosts)


def _add_route(app: Any, results: Results) -> None:
    """`POST /predict`."""
    from fastapi import Request, Response
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import FileResponse, PlainTextResponse
    from starlette.background import BackgroundTask

    async def predict(
        request: Request, level: str = str(results.predictor.level), format: str = "npz"
    ) -> Response:
        try:
            wanted = results.level(level)
            if format not in _FORMATS:
                raise Refused(422, f"format {format!r}: give one of {', '.join(_FORMATS)}")
            if not request.headers.get("content-type", "").startswith(_TYPES):
                raise Refused(
                    415, "send the image as the body, with -H 'Content-Type: image/png' or the like"
                )
            data = await request.body()
            name = await run_in_threadpool(results.predict, data)
            result = results.get(name)
            write = result.write_npz if format == "npz" else result.write_zip
            path = await run_in_threadpool(write, wanted)
        except Refused as refusal:
            return PlainTextResponse(f"error: {refusal}\n", refusal.status)
        return FileResponse(
            path,
            media_type="application/octet-stream",
            filename=f"result.{format}",
            background=BackgroundTask(results.forget, name),
        )

    app.add_api_route(
        "/predict",
        predict,
        methods=["POST"],
        response_model=None,
        description=_DESCRIPTION,
        responses=_RESPONSES,
        openapi_extra={"requestBody": _BODY},
    )


def serve(predictor: Predictor, flags: AppFlags, log: Log) -> None:
    """Serve until a signal comes; then what was written for it is removed.

    Raises:
        CheckpointError: the diffusion model cannot be used, or the networks are of no pictures.
        OSError: the port is taken.
    """
    if not predictor.pair.units.is_8_bit:
        raise CheckpointError(
            f"these networks are of images in {predictor.pair.units.name}, which are no pictures; "
            "sr_predict.py takes them"
        )
    paths = (flags.diffusion_model_path, flags.classifier_path)
    model = Model.read(*paths) if flags.diffusion_model_path else None
    log(
        f"takes images of up to {flags.max_upload} MiB and {flags.max_pixels} pixels, one at a "
        f"time, {flags.max_waiting} may wait"
    )
    if flags.dry_run:
        return
    import uvicorn
    from PIL import Image

    # of uploads, which are refused in one line
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    with tempfile.TemporaryDirectory(prefix="sr_app_", ignore_cleanup_errors=True) as folder:
        app = make_server(predictor, flags, folder, model)
        with _listening(flags) as sock:
            host, port = flags.host, sock.getsockname()[1]
            if not flags.is_loopback:
                log(f"warning: whoever reaches {host} may use the page; it asks for no password")
            log(f"open http://{f'[{host}]' if ':' in host else host}:{port}/ (Ctrl-C ends it)")
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
            # the server hears the signals, and hands them on when it has ended
            server = uvicorn.Server(config)
            # pages that are open then lose their connection, which is no error
            stopping = logging.getLogger("uvicorn.error")
            stopping.addFilter(lambda record: not server.should_exit)
            with StopFlag().listening():
                server.run(sockets=[sock])
    log("stopped; its files are removed")


def _listening(flags: AppFlags) -> contextlib.AbstractContextManager[Any]:
    """A socket at host and port, before anything is said of them."""
    import socket

    family = socket.AF_INET6 if ":" in flags.host else socket.AF_INET
    try:
        return socket.create_server((flags.host, flags.port), family=family)
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno else str(error)
        raise ValueError(
            f"--host {flags.host} --port {flags.port}: {cause}; give another one"
        ) from None
