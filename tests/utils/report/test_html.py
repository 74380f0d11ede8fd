"""Pages whose markup is escaped by construction, and the policy they put on themselves."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.report.html import (
    Html,
    Page,
    Rows,
    Section,
    escape,
    figure,
    join,
    json_block,
    number,
    shell_style,
    table,
    tag,
)

HOSTILE = "<img src=x onerror=alert(1)></script><!-- \"'&amp;\u2028\u2029"


class _Reader(HTMLParser):
    """Collects elements with their attributes, and the text."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _page(text: str = "x") -> Page:
    body = join(table(text, [text], [Rows(text, [[text]])]), figure(text, Html(""), text))
    return Page(
        title=text,
        lead=tag("p", text),
        sections=[Section("one", text, body)],
        styles=["p { color: red; }"],
        scripts=["'use strict'; void 0;"],
        data={"values": {text: [text, math.inf, None]}},
    )


@given(st.text())
def test_text_comes_back_out_of_an_element_and_an_attribute(text: str) -> None:
    reader = _Reader(tag("p", text, title=text).markup)
    shown = escape(text).replace("\r", "")
    assert [name for name, _ in reader.elements] == ["p"]
    assert reader.elements[0][1]["title"] == _unescaped(text)
    assert reader.text == _unescaped(text)
    assert not set(shown) & set("<>\"'")


def _unescaped(text: str) -> str:
    return re.sub("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "\ufffd", text)


def test_what_no_encoding_has_is_shown_as_the_replacement_character() -> None:
    assert escape("a\udcffb\x00") == "a\ufffdb\ufffd"
    _page("\udcff").render().encode("utf-8")


@pytest.mark.parametrize("attribute", ["style", "onclick", "onerror", "a b", 'x"'])
def test_attributes_that_the_policy_forbids_are_refused(attribute: str) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        tag("p", **{attribute: "x"})


def test_attributes_are_numbers_words_or_absent() -> None:
    made = tag("input", class_="a", aria_label="b", hidden=True, value=None, max=2.5, step=False)
    assert made.markup == '<input class="a" aria-label="b" hidden max="2.5">'


@given(st.text())
def test_data_comes_back_and_cannot_end_its_block(text: str) -> None:
    markup = json_block("data", {"text": [text, HOSTILE]}).markup
    inside = markup.removeprefix('<script type="application/json" id="data">')
    inside = inside.removesuffix("</script>")
    assert json.loads(inside) == {"text": [text, HOSTILE]}
    assert inside.isascii() and not set(inside) & set("<>&")


def test_numbers_that_json_lacks_become_null_and_surrogates_a_sign() -> None:
    assert '["\\ufffd\\u2028"]' in json_block("x", ["\udcff\u2028"]).markup
    assert '{"a":[null,null,1.5]}' in json_block("x", {"a": (math.nan, -math.inf, 1.5)}).markup


def test_hostile_text_makes_no_element_anywhere_on_the_page() -> None:
    plain, hostile = (_Reader(_page(text).render()) for text in ("x", HOSTILE))
    assert [name for name, _ in hostile.elements] == [name for name, _ in plain.elements]
    assert not any(key.startswith("on") for _, attrs in hostile.elements for key in attrs)


def test_policy_names_the_hash_of_every_style_and_script_and_nothing_else() -> None:
    text = _page().render()
    meta = next(attrs for name, attrs in _Reader(text).elements if "http-equiv" in attrs)
    policy = dict(part.split(" ", 1) for part in str(meta["content"]).split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data:"
    for element, rule in (("script", "script-src"), ("style", "style-src")):
        contents = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digests = [hashlib.sha256(content.encode()).digest() for content in contents]
        hashes = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
        assert hashes and policy[rule] == " ".join(hashes)
    assert "unsafe" not in str(meta["content"]) and "http" not in str(meta["content"])


def test_policy_stands_before_everything_it_rules() -> None:
    names = [name for name, _ in _Reader(_page().render()).elements]
    assert names[:4] == ["html", "head", "meta", "meta"]


def test_page_without_scripts_allows_none() -> None:
    page = Page("t", Html(""), [])
    assert "script-src 'none'" in _Reader(page.render()).elements[3][1]["content"]  # type: ignore[operator]


@pytest.mark.parametrize("text", ["a </script> b", "<!-- x", "a\r\nb"])
def test_script_that_would_end_its_own_element_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        Page("t", Html(""), [], scripts=[text]).render()


def test_page_fetches_nothing() -> None:
    text = _page().render()
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert "url(" not in shell_style() and "@import" not in shell_style()


def test_landmarks_headings_and_table_headers_are_there() -> None:
    elements = _Reader(_page().render()).elements
    names = [name for name, _ in elements]
    assert {"header", "nav", "main", "h1", "h2", "h3", "caption", "figcaption"} <= set(names)
    assert names.count("h1") == 1
    assert all("scope" in attrs for name, attrs in elements if name == "th")
    targets = {attrs.get("id") for _, attrs in elements}
    links = [str(attrs["href"])[1:] for name, attrs in elements if name == "a"]
    assert links and set(links) <= targets


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (True, "–"),
        (3, "3"),
        (-2.0, "−2"),
        (25000, "25\u202f000"),
        (0.123456, "0.1235"),
        (-1.5e-7, "−1.5·10⁻⁷"),
    ],
)
def test_numbers_are_written_as_people_read_them(value: object, text: str) -> None:
    assert number(value) == text
