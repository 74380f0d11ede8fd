"""Every command of the pages is one that the real parsers take."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "*/README.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
)
_ASSIGNMENT = re.compile(r'([A-Z_]+)="(.*)"', re.DOTALL)


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _commands(page: str) -> list[list[str]]:
    """All command lines of a page's shell blocks, variables filled in as a shell would."""
    variables: dict[str, str] = {}
    commands = []
    for block in re.findall(r"```bash\n(.*?)```", _text(page), re.DOTALL):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            assignment = _ASSIGNMENT.fullmatch(line.strip())
            if assignment:
                variables[assignment[1]] = assignment[2]
                continue
            filled = re.sub(r"\$([A-Z_]+)", lambda m: variables.get(m[1], m[0]), line)
            words = shlex.split(filled, comments=True)
            if words:
                commands.append(words)
    return commands


def _script_commands(page: str) -> list[tuple[str, list[str]]]:
    found = []
    for words in _commands(page):
        for place, word in enumerate(words):
            if word.endswith(".py"):
                found.append((word, words[place + 1 :]))
                break
    return found


COMMANDS = [(page, *command) for page in PAGES for command in _script_commands(page)]


@pytest.mark.parametrize(("page", "script", "words"), COMMANDS, ids=lambda v: str(v)[:40])
def test_the_parsers_take_every_command(page: str, script: str, words: list[str]) -> None:
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    taken = vars(module.create_parser().parse_args(words))
    places = [place for place, word in enumerate(words) if word.startswith("--")]
    # a flag of several words keeps them with commas between
    given = {
        words[place][2:]: ",".join(words[place + 1 : end])
        for place, end in pairwise([*places, len(words)])
    }
    kinds = {name: type(taken[name]) for name in given}
    assert {name: taken[name] for name in given} == {
        name: value in ("True", "yes") if kinds[name] is bool else kinds[name](value)
        for name, value in given.items()
    }


def test_the_readme_shows_every_script_of_the_recipe() -> None:
    shown = {script for script, _ in _script_commands("README.md")}
    assert shown >= {
        "sr_data_info.py",
        "ddpm_sr_sample.py",
        "sr_mean_train.py",
        "sr_mean_test.py",
        "sr_var_train.py",
        "sr_var_test.py",
        "sr_var_verification.py",
    }


def test_make_knows_every_target_of_the_readme() -> None:
    targets = {
        words[1]
        for words in _commands("README.md")
        if words[0] == "make" and not words[1].startswith("-")
    }
    assert targets >= {"demo", "test"}
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_the_pages_are_found() -> None:
    assert {"README.md", "CHANGELOG.md", "slurms/README.md", "docs/reliability.md"} <= set(PAGES)


def _anchor(heading: str) -> str:
    """What a link to a heading ends in: lower case, hyphens for spaces, no other signs."""
    kept = (letter for letter in heading.lower() if letter.isalnum() or letter in "-_ ")
    return "".join(kept).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    for link, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", _text(page)):
        if "://" in link:
            continue
        target = (ROOT / page).parent / link if link else ROOT / page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.M) if anchor else []
        assert not anchor or anchor in map(_anchor, headings), f"{link}#{anchor}"


# what people write where something is to come; `docs/…` and `<log_dir>` are meant as they stand
_TO_FILL = re.compile(r"\b(?:TODO|TBD|FIXME|XXX|lorem ipsum)\b|\?\?\?", re.IGNORECASE)


@pytest.mark.parametrize("text", ["TODO: measure", "| 64 | tbd |", "takes ??? s"])
def test_a_place_to_fill_is_seen(text: str) -> None:
    assert _TO_FILL.search(text)


@pytest.mark.parametrize("page", PAGES)
def test_no_page_has_a_place_that_was_to_be_filled(page: str) -> None:
    assert _TO_FILL.findall(_text(page)) == []
