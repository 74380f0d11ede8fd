"""The routes for programs: `POST /predict`, `GET` and `POST /samples`.

No `from __future__ import annotations`: FastAPI reads the annotations of a route.
"""

import asyncio
import contextlib
import json
from dataclasses import asdict, fields
from functools import partial
from typing import Any

from ddpm.flags import PICTURE_FORMATS, SAMPLER_NAMES
from sr_var.app.results import Refused, Results
from sr_var.app.samples import Drawing, Job, Sampling
from sr_var.app.wishes import Wish
from utils.files.atomic import JsonObject

_IMAGE_TYPES = ("image/", "application/octet-stream")
_FORM_TYPE = "multipart/form-data"
_RESULTS = ("npz", "zip")
_REPLIES = ("zip", "json")
# bytes of a wish, which is a line
_MOST_WORDS = 1 << 16
_PREDICT = """Mean, std and interval of the image in the body (JPEG, PNG, WEBP or BMP).

    curl --data-binary @cat.png -H 'Content-Type: image/png' \\
      'http://127.0.0.1:7860/predict?level=0.9' -o cat.npz

Networks that see a mask: send both as a form, `-F image=@cat.png -F mask=@mask.png` (bright: seen),
or an image that is transparent where it is hidden. Networks that are told a level need
`degradation_level`.

`format=npz`: float32 arrays mean, std, lower and upper, (H, W, C) in grey levels, and the level.
`format=zip`: the same file, result.json, and pictures. A refusal is one line of text."""
_SAMPLES = """Samples of a diffusion model; the body says which, as JSON, and may be `{}`.

    curl -H 'Content-Type: application/json' -d '{"num_samples": 4, "labels": "each"}' \\
      'http://127.0.0.1:7860/samples' -o samples.zip

`GET /samples` tells the models and what may be chosen. `reply=zip`: pictures, a grid, all samples
as one array. `reply=json`: the command, and each picture in base64. A refusal is one line."""
_CHOICES = "What `POST /samples` may be asked for: models, samplers, formats, and what is usual."

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILE = _BINARY["schema"]
_FORM = {
    "schema": {
        "type": "object",
        "required": ["image"],
        "properties": {"image": _FILE, "mask": _FILE},
    }
}
_IMAGE = {
    "required": True,
    "content": {
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "multipart/form-data": _FORM,
    },
}
_KINDS = {str: "string", int: "integer", float: "number"}
_WISH = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        field.name: {"type": _KINDS[type(field.default)], "default": field.default}
        for field in fields(Wish)
    },
}
_RESPONSES = {
    200: {"content": {"application/octet-stream": _BINARY}, "description": "the result"},
    413: {"description": "too many bytes or pixels"},
    415: {"description": "a body of another type"},
    422: {"description": "a damaged image, or an unfit parameter"},
    503: {"description": "too many requests wait"},
}
_STOPPED = {409: {"description": "it took too long"}}


def add_routes(app: Any, results: Results, sampling: Sampling | None) -> None:
    """All of them, to a FastAPI application."""
    app.add_api_route(
        "/predict",
        _predict_of(results),
        methods=["POST"],
        response_model=None,
        description=_PREDICT,
        responses=_RESPONSES,
        openapi_extra={"requestBody": _IMAGE},
    )
    body = {"required": True, "content": {"application/json": {"schema": _WISH}}}
    app.add_api_route(
        "/samples",
        _draw_of(sampling),
        methods=["POST"],
        response_model=None,
        description=_SAMPLES,
        responses=_RESPONSES | _STOPPED,
        openapi_extra={"requestBody": body},
    )
    choices = partial(_choices, sampling)
    app.add_api_route("/samples", choices, methods=["GET"], description=_CHOICES)


def _predict_of(results: Results) -> Any:
    from fastapi import Request, Response
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import FileResponse
    from starlette.background import BackgroundTask

    async def predict(
        request: Request,
        level: str = str(results.predictor.level),
        format: str = "npz",
        degradation_level: str = "",
    ) -> Response:
        try:
            wanted = results.level(level)
            _require_choice("format", format, _RESULTS)
            data, mask = await _uploads(request)
            levels = _levels_in(degradation_level)
            name = await run_in_threadpool(results.predict, data, mask, levels)
            result = results.get(name)
            write = result.write_npz if format == "npz" else result.write_zip
            path = await run_in_threadpool(write, wanted)
        except Refused as refusal:
            return _refusal(refusal)
        return FileResponse(
            path,
            media_type="application/octet-stream",
            filename=f"result.{format}",
            background=BackgroundTask(results.forget, name),
        )

    return predict


async def _uploads(request: Any) -> tuple[bytes, bytes | None]:
    """Image and mask of a request: its body, or the files of its form."""
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException

    kind = request.headers.get("content-type", "")
    if kind.startswith(_IMAGE_TYPES):
        return await request.body(), None
    if not kind.startswith(_FORM_TYPE):
        raise Refused(
            415, "send the image as the body, with -H 'Content-Type: image/png' or the like"
        )
    # the parser passes over a file that is cut off
    if not (await request.body()).rstrip().endswith(b"--"):
        raise Refused(422, "a damaged form (cut off): send it again")
    try:
        async with request.form(max_files=2, max_fields=0) as form:
            files = {name: one for name, one in form.items() if isinstance(one, UploadFile)}
            if not {"image"} <= set(files) <= {"image", "mask"}:
                raise Refused(422, "a form of other files: send -F image=@FILE and -F mask=@FILE")
            found = {name: await one.read() for name, one in files.items()}
    except HTTPException as error:
        raise Refused(422, f"a damaged form ({error.detail})") from None
    return found["image"], found.get("mask")


def _levels_in(text: str) -> list[float]:
    """The numbers of a parameter; Refused (422) if they are none."""
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        raise Refused(422, f"degradation_level {text!r} is no number: give one, as 25") from None


def _draw_of(sampling: Sampling | None) -> Any:
    from fastapi import Request, Response
    from fastapi.responses import FileResponse, JSONResponse
    from starlette.background import BackgroundTask

    async def draw(request: Request, reply: str = "zip") -> Response:
        try:
            there = _require(sampling)
            _require_choice("reply", reply, _REPLIES)
            if not request.headers.get("content-type", "").startswith("application/json"):
                raise Refused(415, "send JSON, with -H 'Content-Type: application/json'")
            wish = _wish_in(await request.body())
            drawing = await _drawn(there, wish, request)
        except Refused as refusal:
            return _refusal(refusal)
        forget = BackgroundTask(there.forget, drawing)
        if reply == "json":
            return JSONResponse(drawing.as_json(), background=forget)
        return FileResponse(
            drawing.archive,
            media_type="application/octet-stream",
            filename="samples.zip",
            background=forget,
        )

    return draw


async def _drawn(sampling: Sampling, wish: Wish, request: Any) -> Drawing:
    """What was drawn; it is stopped when nobody waits for it any more."""
    job = Job()
    task = asyncio.create_task(asyncio.to_thread(sampling.draw, wish, job))
    while not task.done():
        await asyncio.wait({task}, timeout=0.5)
        if await request.is_disconnected():
            job.stop()
    return task.result()


def _choices(sampling: Sampling | None) -> Any:
    from fastapi.responses import JSONResponse

    try:
        there = _require(sampling)
    except Refused as refusal:
        return _refusal(refusal)
    models = {
        name: {
            "classes": model.labels,
            "max_steps": model.max_steps,
            "has_guidance": model.has_guidance,
            "has_classifier": bool(model.classifier_path),
            "about": model.facts,
        }
        for name, model in there.models.items()
    }
    found: JsonObject = {
        "models": models,
        "samplers": SAMPLER_NAMES,
        "image_formats": PICTURE_FORMATS,
        "max_samples": there.max_samples,
        "usual": asdict(Wish()),
    }
    return JSONResponse(found)


def _wish_in(data: bytes) -> Wish:
    """The wish of a request; Refused (413, 422) if it is none."""
    if len(data) > _MOST_WORDS:
        raise Refused(413, f"{len(data)} bytes of JSON, at most {_MOST_WORDS} are taken")
    content = None
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads(data)
    return Wish.from_json(content)


def _require(sampling: Sampling | None) -> Sampling:
    if sampling is None:
        raise Refused(404, "there is no diffusion model: start with --diffusion_model_path FILE")
    return sampling


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise Refused(422, f"{name} {value!r}: give one of {', '.join(choices)}")


def _refusal(refusal: Refused) -> Any:
    from fastapi.responses import PlainTextResponse

    return PlainTextResponse(f"error: {refusal}\n", refusal.status)
