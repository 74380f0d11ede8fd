"""The report as a file: with all sections, with today's, and with hostile names."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from sr_var.verify.show.headline import headline
from sr_var.verify.show.page import NUM_AT_FIRST, report_page, write_report
from sr_var.verify.show.tables import METRIC_LABELS
from tests.sr_var.verify.show.report_data import (
    HOSTILE,
    UNPRINTABLE,
    NamedMetrics,
    further_sections,
    made_up,
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """Three small images, one with a name that no one should have."""
    folder = tmp_path_factory.mktemp("samples")
    return made_up(folder, ["one.png", HOSTILE, "last.png"], side=16, num_samples=6)


def _data(text: str) -> dict[str, Any]:
    block = re.search(r'id="gallery-data">(.*?)</script>', text, re.DOTALL)
    assert block
    found: dict[str, Any] = json.loads(block[1])
    return found


def test_page_without_law_and_budget_has_metrics_and_gallery(parts: Any, tmp_path: Path) -> None:
    summary, rows, gallery = parts
    path = write_report(str(tmp_path), summary, rows, gallery)
    text = Path(path).read_text("utf-8")
    assert path == str(tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert "3 images, 6 samples" in text and "noise floor" in text
    for absent in ("training of the nets", "Against the exact law"):
        assert absent not in text


def test_every_section_is_shown(parts: Any) -> None:
    summary, rows, gallery = parts
    text = report_page({**summary, **further_sections()}, rows, gallery).render()
    shown = {
        "calibration": "Calibration against the real image: exact is",
        "consistency": "consistency with the low-res image",
        "cost": "network evaluations per image",
        "curves": "Sparsification",
        "scatter": "Std of the nets and of the samples",
        "budget": "training of the nets",
        "truth": "Against the exact law",
        "verdict": "Verdict, within a margin",
        "ceiling": "reliability of the samples",
        "intervals": "1.2 to 2.9",
    }
    assert [key for key, words in shown.items() if words not in text] == []


def test_pictures_come_first_then_plots_then_metrics_then_provenance(parts: Any) -> None:
    summary, rows, gallery = parts
    origin = [("mean net", ["12" * 32]), ("command", ["python x.py --log_dir '<b>'"])]
    page = report_page({**summary, "provenance": origin}, rows, gallery)
    assert [section.name for section in page.sections] == [
        "gallery",
        "plots",
        "groups",
        "metrics",
        "provenance",
    ]
    text = page.render()
    assert "12" * 32 in text and "&lt;b&gt;" in text and "<b>" not in text
    assert "provenance" not in [s.name for s in report_page(summary, rows, gallery).sections]


def test_every_metric_of_the_tables_has_its_meaning_to_unfold(parts: Any) -> None:
    summary, rows, gallery = parts
    text = report_page({**summary, **further_sections()}, rows, gallery).render()
    labels = re.findall(r'<th scope="row">(.*?)</th>', text)
    plain = [html.unescape(label) for label in labels if "<details" not in label]
    # those of the plots' numbers, of the budget and of what is left have no metric for a name
    assert not [label for label in plain if re.search("[a-zA-Z]{4}", label) and label in MEANT]
    assert text.count('<details class="meaning">') > 35


MEANT = {label.partition(": ")[2] for label in METRIC_LABELS.values()}


def test_only_a_few_images_are_shown_before_somebody_asks(parts: Any, tmp_path: Path) -> None:
    summary, rows, gallery = parts
    assert 'id="more"' not in report_page(summary, rows, gallery).render()
    many = made_up(tmp_path, [f"{i}.png" for i in range(NUM_AT_FIRST + 1)], side=16, num_samples=2)
    text = report_page(*many).render()
    assert f"Show all {NUM_AT_FIRST + 1} images" in text
    assert f"nth-child(n + {NUM_AT_FIRST + 1})" in text  # the style sheet counts the same
    assert f"list.children[{NUM_AT_FIRST}]" in text  # and the script


def test_headline_says_in_plain_words_what_was_found(parts: Any) -> None:
    summary = {**parts[0], **further_sections()}
    summary["calibration"]["nets"]["coverage_95"] = 0.946
    summary["reference"]["nets"]["coverage_95"] = 0.95
    said = headline(summary)
    assert said[0] == (
        "The nets' intervals hold: 94.6 % of the real pixels lie in the 95 % interval."
    )
    assert "Their mean equals that of 6 samples within 10 % of a std." in said
    assert any("whether that is below 10 % is undecided" in sentence for sentence in said)
    name = "calibration.nets.coverage_95"
    for share, ends, words in (
        (0.90, None, "seem too narrow: 90.0 %"),
        (0.90, [0.85, 0.95], "may be too narrow: 90.0 %"),
        (0.90, [0.88, 0.92], "are too narrow: 90.0 %"),
        (0.99, [0.98, 0.99], "are too wide: 99.0 %"),
    ):
        summary["calibration"]["nets"]["coverage_95"] = share
        summary["intervals"] = {**summary["intervals"], name: ends}
        assert words in headline(summary)[0]
    # of a law that is not normal, exact nets hold another share
    summary["reference"]["known_law"] = {"nets": {"coverage_95": 0.985}}
    assert "hold: 99.0 %" in headline(summary)[0] and "would hold 98.5 %" in headline(summary)[0]


def test_metrics_may_be_unknown_in_every_place(parts: Any) -> None:
    summary, rows, gallery = parts

    def emptied(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: emptied(part) for key, part in value.items()}
        if isinstance(value, list):
            return [emptied(part) for part in value]
        return math.nan if isinstance(value, float) else value

    nothing = emptied({**summary, **further_sections()})
    text = report_page(nothing, rows, gallery).render()
    assert "nan" not in re.sub("<script.*?</script>", "", text, flags=re.DOTALL).split()


def test_gallery_holds_the_metrics_of_each_image_to_sort_by(parts: Any) -> None:
    summary, rows, gallery = parts
    data = _data(report_page(summary, rows, gallery).render())
    place = data["metric_labels"].index(METRIC_LABELS["var.correlation"])
    found = [image["metrics"][place] for image in data["images"]]
    assert found == pytest.approx([row.metrics["var.correlation"] for row in rows])
    assert [image["name"] for image in data["images"]] == [
        row.name.replace("\udcff", "\ufffd") for row in rows
    ]


def test_hostile_name_stands_in_the_data_alone_and_as_text(parts: Any) -> None:
    summary, rows, gallery = parts
    text = report_page(summary, rows, gallery).render()
    assert _data(text)["images"][1]["name"] == HOSTILE + UNPRINTABLE.replace("\udcff", "\ufffd")
    assert "<img" not in text and "alert(1)>" not in text and "\u2028" not in text
    assert text.count("<script") == 2 == text.count("</script>")
    text.encode("utf-8")


def test_page_without_pictures_needs_no_script(parts: Any) -> None:
    summary, rows, gallery = parts
    empty = type(gallery)(gallery.samples_dir, 6, print)
    text = report_page(summary, rows, empty).render()
    assert "<script" not in text and "script-src 'none'" in html.unescape(text)


def test_same_results_give_the_same_page(parts: Any) -> None:
    summary, rows, gallery = parts
    pages = [report_page(summary, rows, gallery).render() for _ in range(2)]
    assert pages[0] == pages[1]


def test_rows_with_infinite_metrics_are_written_as_unknown(parts: Any) -> None:
    summary, rows, gallery = parts
    metrics = {**rows[0].metrics, "mean.psnr": float("inf")}
    changed = [NamedMetrics(rows[0].name, metrics), *rows[1:]]
    data = _data(report_page(summary, changed, gallery).render())
    assert None in data["images"][0]["metrics"]
