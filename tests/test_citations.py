"""Papers are cited under their own numbers, titles and authors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import ROOT

# arXiv number → its authors' family names, the first ones
AUTHORS = {
    "2206.00364": ("Karras",),
    "2206.00927": ("Lu",),
    "2301.11093": ("Hoogeboom",),
    "1509.09308": ("Lavin", "Gray"),
    "1606.08415": ("Hendrycks", "Gimpel"),
    "1608.03981": ("Zhang",),
    "1612.01474": ("Lakshminarayanan",),
    "1706.08500": ("Heusel",),
    "1710.03740": ("Micikevicius",),
    "1802.07095": ("Ilg",),
    "1803.04189": ("Lehtinen",),
    "1609.05158": ("Shi",),
    "1707.02921": ("Lim",),
    "1905.11659": ("Levi",),
    "2006.11239": ("Ho", "Jain", "Abbeel"),
    "2010.02502": ("Song", "Meng", "Ermon"),
    "2101.02703": ("Bates", "Angelopoulos", "Lei", "Malik", "Jordan"),
    "2102.09672": ("Nichol", "Dhariwal"),
    "2103.00020": ("Radford",),
    "2105.05233": ("Dhariwal", "Nichol"),
    "2106.07009": ("Kim", "Ye"),
    "2112.10752": ("Rombach",),
    "2201.06503": ("Bao",),
    "2202.03674": ("Xie", "Wu", "Dong", "Li"),
    "2202.05265": ("Angelopoulos", "Kohli", "Bates", "Jordan", "Malik"),
    "2202.09778": ("Liu",),
    "2203.09168": ("Seitzer",),
    "2207.12598": ("Ho", "Salimans"),
    "2208.02814": ("Angelopoulos", "Bates", "Fisch", "Lei", "Schuster"),
    "2211.01095": ("Lu",),
    "2309.13598": ("Manor", "Michaeli"),
    "2309.15533": ("Nehme",),
    "2502.16982": ("Liu",),
}
THE_PAPER = "2202.03674"
TITLE = "Trained Model in Supervised Deep Learning is a Conditional Risk Minimizer"
_NUMBER = re.compile(r"arxiv(?:\.org/abs/|[: ]+)(\d{4}\.\d{4,5})", re.IGNORECASE)
_WITH_NAMES = re.compile(
    r"([A-Z][a-z]+)(?: & ([A-Z][a-z]+)| et al\.),? (?:\(?\d{4}\)? ?,? ?)?\(arXiv (\d{4}\.\d{4,5})"
)
_SUFFIXES = {".py", ".md", ".cff", ".toml", ".sh", ".txt", ".html", ".js"}


def _texts() -> Iterator[tuple[Path, str]]:
    """Every page and module, each as one line without comment signs."""
    own = [
        path
        for path in sorted(ROOT.iterdir())
        if not path.name.startswith(".") and path.name not in {"logs", "outputs", "checkpoints"}
    ]
    files = (file for path in own for file in ([path] if path.is_file() else path.rglob("*")))
    for path in files:
        if path.suffix in _SUFFIXES and path.is_file() and path.name != Path(__file__).name:
            text = path.read_text(encoding="utf-8", errors="replace")
            yield path, re.sub(r"\s*\n[#\s]*", " ", text)


def test_every_number_is_known_and_stands_behind_its_authors() -> None:
    found: set[str] = set()
    named = 0
    for path, text in _texts():
        numbers = _NUMBER.findall(text)
        assert set(numbers) <= AUTHORS.keys(), path
        found |= set(numbers)
        for first, second, number in _WITH_NAMES.findall(text):
            assert AUTHORS[number][0] == first, (path, number)
            assert second in ("", *AUTHORS[number][1:2]), (path, number)
            named += 1
    assert THE_PAPER in found and named > 15


def _paper() -> str:
    """The part of CITATION.cff that is about the paper."""
    return (ROOT / "CITATION.cff").read_text(encoding="utf-8").partition("\nreferences:\n")[2]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("title", (TITLE,)),
        ("family-names", AUTHORS[THE_PAPER]),
        ("url", (f"https://arxiv.org/abs/{THE_PAPER}",)),
        ("notes", (f"arXiv:{THE_PAPER}",)),
        ("year", ("2022",)),
    ],
)
def test_the_citation_file_names_the_paper(key: str, values: tuple[str, ...]) -> None:
    found = re.findall(rf'^[ -]+{key}: "?([^"\n]+)"?$', _paper(), re.MULTILINE)
    assert tuple(found) == values


def test_the_citation_file_is_plain_yaml_with_the_keys_that_it_needs() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    line = re.compile(r'(?:  )*(?:- )?[a-z-]+:(?: (?:"[^"\\]*"|[\w. -]+))?')
    for one in text.splitlines():
        assert line.fullmatch(one), one
    top = re.findall(r"^([a-z-]+):", text, re.MULTILINE)
    assert {"cff-version", "message", "title", "authors", "references"} <= {*top}
    assert len(top) == len(set(top))
