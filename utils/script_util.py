"""Command-line flags made from dataclasses: one field, one flag, one help text, one default.

Imports neither torch nor numpy, so that `--help` answers at once. What a flag means belongs to
the module that declares its dataclass.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias, TypeVar

from utils.files.storage import with_home
from utils.process.foreign_flags import explain_foreign_flag
from utils.sizes import Size, StoredSize

T = TypeVar("T")
# name of a flag → its value, the keywords that a network, a process or a loop is made of
FlagValues: TypeAlias = dict[str, Any]

# what parsing and settling add to the flags: not for args.json
PRIVATE = ("local_rank", "given_flags", "notices")
_NOT_GIVEN = object()
# how alike a flag must be to one that is suggested: as model_path_checkpoints to model_path
_NEAR = 0.65
# what the word auto of a size stands for
AUTO = -1
# how the names of flags end that hold a path; others are marked with is_path
_PATH_ENDS = ("_dir", "_path", "_file", "_checkpoint")
# numbers of 64 bits: larger ones end in tracebacks of torch and numpy
_MOST = 1 << 63
_NEGATIVE_LIST = re.compile(r"-[\d.][^=]*,.*")


def str2bool(text: str | bool) -> bool:
    """Parse `True/False/yes/no/y/n/t/f/1/0` in any case."""
    if isinstance(text, bool):
        return text
    word = text.strip().lower()
    if word in ("true", "yes", "t", "y", "1"):
        return True
    if word in ("false", "no", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is not a boolean; write True or False")


def whole_number(text: str) -> int:
    """Parse `100000` and `1e5` alike; a whole number of 64 bits."""
    try:
        number = float(text) if not text.strip().lstrip("+-").isdecimal() else int(text)
        if number == int(number) and abs(number) < _MOST:
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")


def size_or_auto(text: str) -> int:
    """Parse a positive whole number, or the word `auto`, which is `AUTO`."""
    if text.strip().lower() == "auto":
        return AUTO
    try:
        number = whole_number(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor the word auto") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be at least 1, or the word auto")
    return number


def size(text: str) -> StoredSize:
    """Parse a side in pixels, or `HEIGHTxWIDTH`; see `utils.sizes`."""
    if "x" not in text.lower().replace("×", "x"):
        try:
            return whole_number(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}, nor HEIGHTxWIDTH as 96x64") from None
    try:
        return Size.of(text).stored
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def path_or_word(text: str) -> str:
    """Parse a path, see `with_home`, or a word that stands in its place."""
    try:
        return with_home(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def flag(
    default: Any,
    help: str,
    choices: Sequence[str] | None = None,
    *,
    is_auto: bool = False,
    is_free: bool = False,
    is_path: bool = False,
    is_retired: bool = False,
    is_size: bool = False,
) -> Any:
    """A dataclass field that becomes a flag. `help` says what it is and its unit.

    Args:
        default: its type is the flag's.
        is_auto: a size that may be left to the script (`AUTO`).
        is_free: a flag of a network or process that a later run may change: what the trained
            network computes does not depend on it (`utils.files.records`).
        is_path: a path, as every flag is that ends in `_dir`, `_path`, `_file` or
            `_checkpoint`.
        is_retired: it does nothing any more, and the script says so where it is given.
        is_size: of images, a side or HEIGHTxWIDTH (`utils.sizes`).
    """
    metadata = {
        "help": help,
        "choices": choices,
        "is_auto": is_auto,
        "is_free": is_free,
        "is_path": is_path,
        "is_retired": is_retired,
        "is_size": is_size,
    }
    return dataclasses.field(default=default, metadata=metadata)


def flags_of(flags_class: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    """The flags of a dataclass: its own, then those of the dataclasses that it stands on.

    A plain field, as in `log_dir: str = "logs/x"`, gives a flag of these another default; if none
    of them has such a flag it is a ValueError.
    """
    flags: dict[str, dataclasses.Field[Any]] = {}
    for base in flags_class.__mro__:
        for name in inspect.get_annotations(base):
            declared = getattr(base, "__dataclass_fields__", {}).get(name)
            if declared is not None and declared.metadata:
                flags.setdefault(name, declared)
    for field in dataclasses.fields(flags_class):
        if field.name not in flags:
            raise ValueError(f"{flags_class.__name__}.{field.name} is no flag: make it with flag()")
        if field.default != flags[field.name].default:
            flags[field.name] = copy.copy(flags[field.name])
            flags[field.name].default = field.default
    return tuple(flags.values())


def free_flags(*classes: type[Any]) -> frozenset[str]:
    """Names of the flags of dataclasses that were declared with `is_free`."""
    return frozenset(
        one.name for flags in classes for one in flags_of(flags) if one.metadata["is_free"]
    )


_KINDS: Mapping[type, Callable[[str], Any]] = MappingProxyType({bool: str2bool, int: whole_number})
_METAVARS = MappingProxyType({bool: "BOOL", int: "INT", float: "FLOAT", str: "STR"})


class FlagParser(argparse.ArgumentParser):
    """An `ArgumentParser` that names the nearest known flag when it meets an unknown one."""

    def __init__(self, description: str | None, *, has_config: bool = True) -> None:
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.retired: dict[str, str] = {}  # flag → what its help says
        self.flag_of_words = ""  # which words without a flag are the value of, comma separated
        self._source = ""  # the file whose flags are being parsed
        self._has_config = has_config
        if has_config:
            self._add_config()
        # torch.distributed.launch passes it in one of two spellings; the environment decides
        self.add_argument(
            "--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS
        )
        self._declared: dict[str, tuple[str, dataclasses.Field[Any]]] = {}
        self._classes: list[type[Any]] = []
        self._raises = False  # a line of what is wrong in place of the end of the program

    def _add_config(self) -> None:
        group = self.add_argument_group("flags in a file")
        group.add_argument(
            "--config",
            type=path_or_word,
            default=argparse.SUPPRESS,
            metavar="FILE",
            help="flags from a YAML or JSON file, or from the args_<script>.json of an earlier "
            "run; flags on the command line go first",
        )
        group.add_argument(
            "--print_config",
            type=str2bool,
            nargs="?",
            const=True,
            default=argparse.SUPPRESS,
            metavar="True",
            help="print the flags as a file for --config, and end",
        )

    def add_flags(self, title: str, flags_class: type[Any]) -> None:
        """Add a group of flags; one that another group has too stays in that group.

        A flag is declared once: if the two declare it differently it is a ValueError.
        """
        group = self.add_argument_group(title)
        self._classes.append(flags_class)
        for field in flags_of(flags_class):
            if field.name in self._declared:
                there, other = self._declared[field.name]
                if (other.default, other.metadata) != (field.default, field.metadata):
                    raise ValueError(
                        f"--{field.name} is declared twice, differently, in the groups {there} and "
                        f"{title}: declare it in one dataclass that both stand on"
                    )
                continue
            self._declared[field.name] = title, field
            if field.metadata["is_retired"]:
                self.retired[field.name] = field.metadata["help"]
            choices, (kind, metavar) = field.metadata["choices"], _kind_of(field)
            shown = '""' if field.default == "" else field.default
            group.add_argument(
                f"--{field.name}",
                type=kind,
                default=field.default,
                choices=choices,
                metavar=None if choices else metavar,
                help=f"{field.metadata['help']} (default: {shown})".replace("%", "%%"),
            )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses; an unknown flag ends the program with exit code 2 and a suggestion.

        Flags of `--config` count as given on the command line, which goes first.
        """
        words, known = _joined(args), self._known_defaults()
        parsed = self._parsed(words)
        config = is_printed = ""
        if self._has_config:
            config, is_printed = (vars(parsed).pop(key, "") for key in ("config", "print_config"))
        if config:
            there = self._parsed(self._words_in(config), config)
            parsed = argparse.Namespace(**{**vars(there), **vars(parsed)})
        given = frozenset(vars(parsed))
        values = {**known, **vars(parsed)}
        if is_printed:
            self._print_config(values, given)
        if told := sorted(self.retired.keys() & given):
            values["notices"] = tuple(f"notice: --{name} {self.retired[name]}" for name in told)
        return argparse.Namespace(**values, given_flags=given)

    def error(self, message: str) -> NoReturn:
        """End with exit code 2; of what is wrong in a file without the list of all flags."""
        if self._raises:
            raise ValueError(message)
        if self._source:
            self.exit(2, f"error: --config {self._source}: {message}\n")
        super().error(message)

    @property
    def declared(self) -> Mapping[str, dataclasses.Field[Any]]:
        """The flags of all groups, by name."""
        return {name: field for name, (_, field) in self._declared.items()}

    def problem_with(self, words: Sequence[str]) -> str:
        """What is wrong with a command line, as one line; empty if nothing is. Ends no program."""
        self._raises = True
        try:
            args = self.parse_args(words)
            for flags_class in self._classes:
                names = [field.name for field in dataclasses.fields(flags_class)]
                flags_class(**{name: getattr(args, name) for name in names})
        except ValueError as error:
            return str(error)
        finally:
            self._raises = False
        return ""

    def _known_defaults(self) -> FlagValues:
        return {a.dest: a.default for a in self._actions if a.default is not argparse.SUPPRESS}

    def _parsed(self, words: Sequence[str], source: str = "") -> argparse.Namespace:
        """What the words give, and nothing else; `source` is the file that they are of."""
        marked = argparse.Namespace(**dict.fromkeys(self._known_defaults(), _NOT_GIVEN))
        self._source = source
        parsed, unknown = self.parse_known_args(words, marked)
        if self.flag_of_words and unknown and not any(word[:1] == "-" for word in unknown):
            there = getattr(parsed, self.flag_of_words)
            values = unknown if there is _NOT_GIVEN else [there, *unknown]
            setattr(parsed, self.flag_of_words, ",".join(values))
        elif unknown:
            self._refuse(unknown)
        self._source = ""
        given = {name: value for name, value in vars(parsed).items() if value is not _NOT_GIVEN}
        return argparse.Namespace(**given)

    def _words_in(self, path: str) -> list[str]:
        """The command line that a file stands for; of a record only what is no default."""
        from utils.files.config import read_config

        self._source = path
        try:
            config = read_config(path)
        except OSError as error:
            self.error(f"{error.strerror or error}; name a YAML or JSON file of flags")
        except ValueError as error:
            self.error(str(error))
        known = {key: value for key, value in self._known_defaults().items() if key != "local_rank"}
        if strangers := config.words.keys() - known.keys():
            self._refuse([f"--{name}" for name in config.words if name in strangers])
        return [
            f"--{name}={word}"
            for name, word in config.words.items()
            if not (config.is_record and word == str(known[name]))
        ]

    def _print_config(self, values: FlagValues, given: Collection[str]) -> NoReturn:
        """Print every flag as a line of a file, and end with exit code 0."""
        from utils.files.config import config_text

        groups = {
            str(group.title): [
                (action.dest, values[action.dest], action.dest in given)
                for action in group._group_actions
                if action.dest in values and action.dest != "local_rank"
            ]
            for group in self._action_groups
        }
        print(config_text(f"{self.prog} --config FILE", groups), end="")
        self.exit()

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        parts = []
        for word in unknown:
            if not word.startswith("-"):
                continue
            name = word.split("=")[0]
            hint = explain_foreign_flag(name, known)
            near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
            if hint is None and near:
                hint = f"did you mean {near[0]}?"
            parts.append(f"unknown flag {name}" + (f" ({hint})" if hint else ""))
        self.error("; ".join(parts) or f"unexpected words: {' '.join(unknown)}")


def _joined(words: Sequence[str] | None) -> list[str]:
    """The words with `--range -1,1` as `--range=-1,1`: argparse takes `-1,1` for a flag."""
    found: list[str] = []
    for word in sys.argv[1:] if words is None else words:
        if found and found[-1].startswith("--") and _NEGATIVE_LIST.fullmatch(word):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def with_values(args: argparse.Namespace, **values: Any) -> argparse.Namespace:
    """Return a copy of parsed flags in which some have these values."""
    return argparse.Namespace(**{**vars(args), **values})


def _kind_of(field: dataclasses.Field[Any]) -> tuple[Callable[[str], Any], str]:
    """What parses the words of a flag, and what stands for them in the help."""
    kind, metavar = type(field.default), _METAVARS[type(field.default)]
    if field.metadata["is_auto"]:
        return size_or_auto, f"{metavar}|auto"
    if field.metadata["is_size"]:
        return size, "INT|HxW"
    is_text = kind is str  # use_checkpoint is no path
    if is_text and (field.metadata["is_path"] or field.name.endswith(_PATH_ENDS)):
        return path_or_word, metavar
    return _KINDS.get(kind, kind), metavar


def make_parser(description: str | None, **groups: type[Any]) -> FlagParser:
    """A parser with one group of flags per dataclass; the keyword is the group's title.

    All take `--config` and `--print_config`, unless a flag of their own has the name.
    """
    names = {field.name for flags_class in groups.values() for field in flags_of(flags_class)}
    parser = FlagParser(description, has_config="config" not in names)
    for title, flags_class in groups.items():
        parser.add_flags(title.replace("_", " "), flags_class)
    return parser


def from_args(flags_class: type[T], args: argparse.Namespace) -> T:
    """The dataclass filled from parsed arguments.

    Raises:
        SystemExit: exit code 2 with the message of a `ValueError` that the dataclass raises, or
            for the empty name of a folder (`…_dir`) that has another default.
    """
    fields = dataclasses.fields(flags_class)  # type: ignore[arg-type]
    try:
        for field in fields:
            if field.name.endswith("_dir") and field.default and not getattr(args, field.name):
                raise ValueError(
                    f"--{field.name} is empty; name a folder, or leave the flag out for "
                    f"{field.default}"
                )
        return flags_class(**{field.name: getattr(args, field.name) for field in fields})
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def defaults(flags_class: type[Any]) -> FlagValues:
    """Flag name → default value."""
    return {field.name: field.default for field in dataclasses.fields(flags_class)}


def require_at_least(flags: object, other: int | None = None, /, **smallest: int) -> None:
    """Refuse values that no run could use.

    `other` is a value that has a meaning of its own, as -1 for all or `AUTO`; `smallest` are the
    smallest values by flag. A ValueError names flag, value and bound.
    """
    for name, bound in smallest.items():
        value = getattr(flags, name)
        if value != other and not value >= bound:  # nan is no number of anything
            either = "" if other is None else f"{other} or "
            raise ValueError(f"--{name} {value} must be {either}at least {bound}")


def require_known(flags: object, **known: Iterable[str]) -> None:
    """Refuse lists with commas of what there is not.

    `known` is what there is, by flag. A ValueError names flag, words and what they may be.
    """
    for name, words in known.items():
        there = [*words]
        unknown = sorted(set(getattr(flags, name).split(",")) - set(there))
        if unknown:
            raise ValueError(f"--{name} {','.join(unknown)}: there are {', '.join(there)}")
