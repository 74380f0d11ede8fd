"""JSON records of anybody, and what results and checkpoints were made with.

So that one folder never holds results of two laws, and no run goes on from a checkpoint of another
one. The manifest of a set of checkpoint files holds, beside the weights' files, the network (its
class and flags), the noising process, a digest of the list of images, and the origin: one random
name per fresh start, kept by every run that goes on from it. Which flags these are is the business
of the tasks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from utils.files.atomic import JsonObject, StrPath, read_up_to, write_json_atomic
from utils.files.storage import make_folder
from utils.process.errors import CheckpointError, DataError
from utils.sizes import Size

Settings: TypeAlias = Mapping[str, object]
T = TypeVar("T")
_FAULTS = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError)

MAX_BYTES = 1 << 26
_LARGEST = 1e150


def parse_json(
    text: bytes | str, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """What a JSON text says; the hook makes of names and values what stands for an object.

    Raises:
        ValueError: no JSON, not UTF-8, or nested too deeply; the message is short.
    """
    try:
        return json.loads(text, object_pairs_hook=object_pairs_hook)
    except UnicodeDecodeError as error:  # shown whole, it holds the whole text
        raise ValueError(f"byte {error.start} is no UTF-8") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number that float64 can hold with its square."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # type: ignore[operator]


def read_json(path: StrPath) -> Any:
    """What a JSON file says; `parse_json`, of at most `MAX_BYTES`, local or remote."""
    data = read_up_to(path, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES} bytes")
    return parse_json(data)


def read_record(path: StrPath, remedy: str, parse: Callable[[JsonObject], T]) -> T:
    """Return what `parse` makes of the record, a JSON object, in a local or remote file.

    For a record that lacks what it should hold, `parse` raises one of `_FAULTS`; `dict` takes any.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such file.
        DataError: it cannot be read or is damaged; names the file, the reason and the remedy.
    """
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError("no record")
        return parse(content)
    except (FileNotFoundError, NotADirectoryError):  # the latter where folders are made meanwhile
        raise
    except _FAULTS as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, KeyError):
            reason = f"{error} is missing"
        fault = "cannot be read" if isinstance(error, OSError) else "is damaged"
        raise DataError(f"{os.fspath(path)} {fault} ({reason}); {remedy}") from None


def find_record(path: StrPath, parse: Callable[[JsonObject], T]) -> T | None:
    """What `read_record` returns; None where there is no record that can be used."""
    try:
        return read_record(path, "", parse)
    except (OSError, DataError):
        return None


def require_numbers(values: Iterable[object]) -> None:
    """Raise ValueError for what is no finite number."""
    if not all(map(is_number, values)):
        raise ValueError("its figures are no numbers")


def require_same_settings(
    path: str, settings: Settings, *, defaults: Settings, folder_flag: str = "--output_dir"
) -> None:
    """Remember the settings, of JSON types, in a file; refuse (DataError) `differences` from it.

    The file's folder, which is made, is the choice of `folder_flag`.
    """
    folder = os.path.dirname(path)
    try:
        stored = read_record(path, "delete it if the results are of this run", dict)
    except (FileNotFoundError, NotADirectoryError):
        make_folder(folder, folder_flag)
        write_json_atomic(path, dict(settings))
        return
    found = differences(stored, settings, defaults)
    if found:
        raise DataError(
            f"{folder} holds results made with other settings: {', '.join(map(str, found))}; give "
            f"another {folder_flag}"
        )


_NUM_SHOWN = 200
_ITEMS_AT_ONCE = 4096
# of a manifest's data: the digest of what was measured beside the images, if anything was
PAIRS_KEY = "pairs"
# what tells a list of images from others; the rest of a manifest's data is how they are read
_OF_LIST = ("digest", "num_images", PAIRS_KEY)
# how images were read before there was a choice, where that is not False
_READ_BEFORE = {"crop": "resized"}


@dataclass(frozen=True)
class Difference:
    """One setting that was another one.

    Attributes:
        name: of the setting, a flag's without its dashes.
        made: what the file was made with; `UNKNOWN` if it does not say.
        asked: what the run asks for.
    """

    name: str
    made: Any
    asked: Any

    def __str__(self) -> str:
        # what is no flag, as model_sha256, has no dashes
        name = self.name if self.name.endswith("sha256") else f"--{self.name}"
        return f"{name} {shown(self.asked)} (there: {shown(self.made)})"


class _Unknown:
    def __repr__(self) -> str:
        return "not recorded"


UNKNOWN = _Unknown()


def shown(value: object) -> str:
    """A value in a message: short, whatever it holds; both ends of a long one, as of two paths."""
    text, half = repr(value), _NUM_SHOWN // 2
    return text if len(text) <= _NUM_SHOWN else f"{text[:half]}…{text[-half:]}"


def differences(made: Settings, asked: Settings, defaults: Settings) -> list[Difference]:
    """The settings that a file was not made with, sorted by name.

    A setting that the file does not name was added to the toolkit since: the file was made with
    its default, and without one it differs. One that only the file knows matters no more. What is
    asked for is compared as JSON would store it.
    """
    plain: JsonObject = json.loads(json.dumps(dict(asked)))
    found = [
        Difference(name, made.get(name, defaults.get(name, UNKNOWN)), value)
        for name, value in sorted(plain.items())
    ]
    return [one for one in found if not _is_same(one.made, one.asked)]


def _is_same(made: Any, asked: Any) -> bool:
    return isinstance(made, bool) == isinstance(asked, bool) and bool(made == asked)


@dataclass(frozen=True)
class Identity:
    """What a run's checkpoints are, in JSON types.

    Attributes:
        network_class: name of the network's class; empty: the task does not say.
        network: its flags.
        process: flags of the noising process; empty for a task without one.
        data: `digest` and `num_images` of the training data, as `list_digest` makes
            them of a list, the digest `pairs` of measured images beside them, and flags that say
            how it is read; empty: not known.
        free: names of flags of network or process that may change from run to run.
    """

    network_class: str = ""
    network: Settings = field(default_factory=dict)
    process: Settings = field(default_factory=dict)
    data: Settings = field(default_factory=dict)
    free: frozenset[str] = frozenset()

    def record(self) -> JsonObject:
        """What a manifest holds of it."""
        parts = {"process": dict(self.process), "data": dict(self.data)}
        if self.network_class:
            parts["network"] = {"class": self.network_class, "flags": dict(self.network)}
        return {name: part for name, part in parts.items() if part}

    def flags_that_differ(self, manifest: Settings) -> list[Difference]:
        """What of network and process the manifest's set was made with otherwise.

        A manifest that says nothing (of another tool, of an earlier version) differs in nothing;
        so does a flag that it does not name.
        """
        made, asked = made_with(manifest), {**self.network, **self.process}
        asked = {name: value for name, value in asked.items() if name in made}
        found = differences(made, asked, {})
        return [one for one in found if one.name not in self.free]

    def refuse_other_flags(self, path: str, manifest: Settings, remedy: str) -> None:
        """Raise CheckpointError for a checkpoint of another network or process."""
        made_class = _part(manifest, "network").get("class", self.network_class)
        if self.network_class and made_class != self.network_class:
            raise CheckpointError(
                f"{path} is of a {made_class}, this run needs a {self.network_class}; name the "
                "checkpoint of such a network"
            )
        found = self.flags_that_differ(manifest)
        if found:
            raise CheckpointError(
                f"{path} was made with other settings: {', '.join(map(str, found))}; {remedy}"
            )

    def refuse_other_data(self, path: str, manifest: Settings, remedy: str) -> None:
        """Raise DataError for another list of images, or one that was read otherwise."""
        made = _part(manifest, "data")
        if not made or not self.data:
            return
        reading = {name: value for name, value in self.data.items() if name not in _OF_LIST}
        before: JsonObject = {**dict.fromkeys(reading, False), **_READ_BEFORE}
        found = differences(made, reading, before)
        if found:
            raise DataError(
                f"{path} was trained on images that were read otherwise: "
                f"{', '.join(map(str, found))}; {remedy}"
            )
        if made.get("digest") == self.data["digest"]:
            self._refuse_other_pairs(path, made.get(PAIRS_KEY), remedy)
            return
        there, here = (
            f"{side.get('num_images')} images, {str(side.get('digest'))[:12]}"
            for side in (made, self.data)
        )
        raise DataError(
            f"{path} was trained on another list of images or labels ({there}) than this run's "
            f"({here}); {remedy}"
        )

    def _refuse_other_pairs(self, path: str, made: object, remedy: str) -> None:
        asked = self.data.get(PAIRS_KEY)
        if made is None or asked is None or made == asked:  # else the networks' flags differ
            return
        there, here = (str(digest)[:12] for digest in (made, asked))
        raise DataError(
            f"{path} was trained on other measured images ({there}) than those of --pairs_dir "
            f"({here}); {remedy}"
        )


def made_with(manifest: Settings) -> JsonObject:
    """Flag → value of the network and the process that a manifest tells of; empty if of none."""
    flags = _part(manifest, "network").get("flags")
    return {**(flags if isinstance(flags, dict) else {}), **_part(manifest, "process")}


def _part(manifest: Settings, name: str) -> JsonObject:
    found = manifest.get(name)
    return found if isinstance(found, dict) else {}


def list_digest(items: Iterable[tuple[str, int]]) -> JsonObject:
    """Identify a list of images, name and label each: its sha256 and length.

    The order counts, since it decides which images a step sees; where the files lie does not.
    """
    digest, count, rest = hashlib.sha256(), 0, iter(items)
    while some := [*itertools.islice(rest, _ITEMS_AT_ONCE)]:
        text = "".join(f"{label} {name}\0" for name, label in some)
        digest.update(text.encode("utf-8", "surrogateescape"))
        count += len(some)
    return {"digest": digest.hexdigest(), "num_images": count}


# letters of a word, and a number: what is more is no setting of a network
_MAX_LENGTH = 1000
_MAX_NUMBER = 1_000_000


def stored_value(field: dataclasses.Field[Any], value: Any, source: str) -> Any:
    """The value of a flag, of the type that its default has.

    Args:
        field: of the flag (`script_util.flags_of`).
        value: what the file says.
        source: the file, for the message.

    Raises:
        CheckpointError: if it is nothing that a command line could give; names file and flag.
    """
    kind, choices = type(field.default), field.metadata["choices"]
    if kind is float and type(value) is int and abs(value) <= _MAX_NUMBER:
        value = float(value)
    if field.metadata["is_size"] and _is_stored_size(value):
        return value
    if type(value) is not kind or not _is_usable(value) or (choices and value not in choices):
        expected = f"one of {', '.join(choices)}" if choices else f"a usable {kind.__name__}"
        raise CheckpointError(
            f"{source}: --{field.name} is {shown(value)}, expected {expected}; this toolkit does "
            "not write such a file: move it away to go on without it"
        )
    return value


def _is_stored_size(value: Any) -> bool:
    """Whether it is the text of a size that is no square, as `Size.stored` writes it."""
    try:
        return isinstance(value, str) and Size.of(value).stored == value
    except ValueError:
        return False


def _is_usable(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_LENGTH
    return bool(abs(value) <= _MAX_NUMBER)  # neither does nan


_PACKAGES = ("torch", "numpy", "Pillow", "blobfile", "tensorboardX")


def versions() -> dict[str, str]:
    """Versions of python and of the libraries whose behaviour a result depends on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
