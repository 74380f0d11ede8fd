"""Reads TensorBoard event files back: scalars by tag and step, and the tags of pictures."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Tag → step → value, over all event files of a folder."""
    found: dict[str, dict[int, float]] = {}
    for event in _events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def shown_steps(folder: Path, tag: str) -> list[int]:
    """The steps of a scalar in the order in which they came, as TensorBoard shows them.

    A session that starts at a step drops what came before for that step and later ones.
    """
    found: list[int] = []
    for event in _events(folder):
        if event.HasField("session_log") and event.session_log.status == SessionLog.START:
            found = [step for step in found if step < event.step]
        found += [event.step for value in event.summary.value if value.tag == tag]
    return found


def read_pictures(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Tag → (step, height, width) of the pictures."""
    return {
        value.tag: (event.step, value.image.height, value.image.width)
        for event in _events(folder)
        for value in event.summary.value
        if value.HasField("image")
    }


def _events(folder: Path) -> Iterator[Any]:
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        place = 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)  # then a CRC, the event, its CRC
            event = Event()
            event.ParseFromString(data[place + 12 : place + 12 + length])
            yield event
            place += 12 + length + 4
