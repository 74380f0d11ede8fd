"""The server of sr_app.py: the routes, the page, and the guard around both."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from sr_var.app.guard import Guard
from sr_var.app.results import Results, Turns
from sr_var.app.samples import Sampling
from sr_var.app.training import Form
from sr_var.app.wishes import Model, read_models
from sr_var.flags.app import LOOPBACK, AppFlags
from sr_var.predict.nets import NetPair
from sr_var.predict.predictor import Predictor
from utils.process.errors import CheckpointError
from utils.process.stop import StopFlag

Log = Callable[[str], None]
# of a request of the page, around the image that it sends
_AROUND_AN_UPLOAD = 1 << 20
# read by Gradio and huggingface_hub when they are imported: nothing is asked of any other machine
_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "GRADIO_RUN_HISTORY": "False",
}


def require_packages() -> None:
    """Refuse (ValueError) to start without Gradio, before any network is loaded."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(
            "the page needs Gradio: run ./setup.sh app, then .venv-app/bin/python sr_app.py "
            "(`make app` does both)"
        )


def make_server(
    predictor: Predictor, flags: AppFlags, folder: str, form: Form, models: Mapping[str, Model]
) -> Guard:
    """The whole application, which writes below `folder` alone."""
    os.environ |= {**_QUIET, "GRADIO_TEMP_DIR": os.path.join(folder, "page")}
    os.mkdir(os.environ["GRADIO_TEMP_DIR"])
    import fastapi

    from sr_var.app.page import add_page
    from sr_var.app.routes import add_routes

    turns, max_bytes = Turns(flags.max_waiting), flags.max_upload << 20
    results = Results(
        predictor, folder, max_bytes=max_bytes, max_pixels=flags.max_pixels, turns=turns
    )
    sampling = None
    if models:
        most = {"max_seconds": flags.max_seconds, "max_samples": flags.max_samples}
        sampling = Sampling(models, folder, turns, **most)
    # their pages take scripts from elsewhere
    app = fastapi.FastAPI(title="sr_app", docs_url=None, redoc_url=None)
    add_routes(app, results, sampling)
    hosts = frozenset(LOOPBACK) if flags.is_loopback else frozenset[str]()
    whole = add_page(app, results, sampling, form, flags)
    return Guard(whole, max_bytes=max_bytes + _AROUND_AN_UPLOAD, hosts=hosts)


def require_pictures(pair: NetPair) -> None:
    """Refuse (CheckpointError) networks of other images than a page can show, or of several."""
    for units in (pair.seen_units, pair.units):
        if not units.is_8_bit:
            raise CheckpointError(
                f"these networks are of images in {units.name}, which are no pictures; "
                "sr_predict.py takes them"
            )
    degradation = pair.degradation
    if degradation is not None and len(degradation.branches) > 1:
        raise CheckpointError(
            f"these networks see several images side by side (--degradation {degradation.text}), "
            "and the page takes one; sr_predict.py --also takes them"
        )
    if degradation is not None and len(degradation.masks) > 1:
        raise CheckpointError(
            f"these networks see several masks (--degradation {degradation.text}), and the page "
            "takes one; sr_predict.py --mask takes them"
        )


def serve(predictor: Predictor, flags: AppFlags, form: Form, log: Log) -> None:
    """Serve until a signal comes; then what was written for it is removed.

    `form` is that of the tab for trainings.

    Raises:
        CheckpointError: the diffusion model cannot be used, or the networks are of no pictures or
            see several.
        OSError: the port is taken.
    """
    require_pictures(predictor.pair)
    models = read_models(flags.diffusion_model_path, flags.classifier_path)
    if models:
        log(f"draws samples of {', '.join(model.path for model in models.values())}")
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
        app = make_server(predictor, flags, folder, form, models)
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
