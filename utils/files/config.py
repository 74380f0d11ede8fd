"""Files of flags: YAML or JSON of anybody, and the `args_<script>.json` of an earlier run.

Values become the words that a command line would have, so that whoever reads them parses both
alike. Which flags there are is the business of the parser.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.files.atomic import StrPath, read_up_to
from utils.files.records import parse_json

MAX_CONFIG_BYTES = 1 << 18


@dataclass(frozen=True)
class Config:
    """Flags of a file.

    Attributes:
        words: name → value, as it would stand on a command line.
        is_record: of a run that has written all of its flags, also those that nobody gave.
    """

    words: Mapping[str, str]
    is_record: bool = False


def read_config(path: StrPath) -> Config:
    """The flags of a file; JSON if its name ends in `.json`, else YAML.

    A value is a scalar, or a list of scalars, which are joined by commas.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too long, no such file, or a value is none; the message is short.
    """
    data = read_up_to(path, MAX_CONFIG_BYTES + 1)
    if len(data) > MAX_CONFIG_BYTES:
        raise ValueError(f"longer than {MAX_CONFIG_BYTES} bytes")
    is_json = str(path).lower().endswith(".json")
    content = parse_json(data) if is_json else _parse_yaml(data)
    if not is_json and content in (None, ""):  # nothing, or comments
        content = {}
    if not isinstance(content, dict):
        raise ValueError("it holds no flags; write a line `name: value` for each")
    is_record = isinstance(content.get("flags"), dict) and "command" in content
    flags = content["flags"] if is_record else content
    return Config({str(name): _words_of(str(name), flags[name]) for name in flags}, is_record)


def _parse_yaml(data: bytes) -> Any:
    import yaml

    try:
        # every scalar stays the text that was written: `off`, `1e-4` and `1,2` are none of YAML's
        return yaml.load(data, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f"line {mark.line + 1}: "
        problem = getattr(error, "problem", None) or getattr(error, "reason", None)
        raise ValueError(f"no YAML ({place}{problem or 'cannot be parsed'})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _words_of(name: str, value: object) -> str:
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, (str, bool, int, float)) for part in parts):
        raise ValueError(f"{name}: give a word, a number, True or False, or a list of them")
    return ",".join(map(str, parts))


def config_text(title: str, groups: Mapping[str, Sequence[tuple[str, object, bool]]]) -> str:
    """A file that `read_config` takes, in YAML: the flags of groups, each with its title.

    A flag is its name, its value, and whether it was given; the others are comments, since a
    preset or a checkpoint may decide them.
    """
    lines = [f"# {title}", "# a line with # in front is a default, which counts as not given"]
    for name, flags in groups.items():
        lines += ["", f"# {name}"] if flags else []
        for flag, value, is_given in flags:
            lines.append(f"{'' if is_given else '# '}{flag}: {_scalar(value)}")
    return "\n".join(lines) + "\n"


def _scalar(value: object) -> str:
    """The value as YAML and JSON write it, in signs that can be printed."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else _escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    number = ord(sign)
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"
