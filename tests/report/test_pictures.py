import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from llamaherd.measures.intervals import figure
from llamaherd.report.drawing import VARIABLES
from llamaherd.report.figures import Chart
from llamaherd.report.pictures import Span, attention_chart, attention_to_instruction, bar_chart, clock_text, plane_chart, timeline_chart

ONE, HALF = figure(0.25, 0.125, 0.5, 40), figure(0.5, 0.4, 0.6, 40)


def words(chart: Chart) -> list[str]:
    """What is written in the picture."""
    return [element.text or "" for element in ET.fromstring(chart.svg).iter() if element.tag.endswith("}text")]


def test_a_plane_has_both_paths_in_its_table() -> None:
    chart = plane_chart("Wins", {"v0": (HALF, HALF), "v1": (ONE, HALF)}, "helpful", "harmless", paper={"v0": (0.5, 0.4), "v2": (0.6, 0.7)})
    assert [row[0] for row in chart.table.rows] == ["v0", "v1", "v2"]
    assert chart.table.rows[1][1:] == ("0.250 (0.125 to 0.500), n 40", "0.500 (0.400 to 0.600), n 40", "not printed", "not printed")
    assert chart.table.rows[2][1:] == ("not measured", "not measured", "0.600", "0.700")
    assert chart.alt == "Plane of helpful and harmless: v0 at 0.50 and 0.50, v1 at 0.25 and 0.50."
    assert sorted(word for word in words(chart) if word.startswith("v")) == ["v0", "v0", "v1", "v2"]


def test_bars_write_their_numbers() -> None:
    chart = bar_chart(
        "Languages", ["en", "zo"], {"here": [86.53, None]}, "% of documents", "language", paper={"paper": [89.7, 0.013]}, unit="%"
    )
    assert chart.table.columns == ("language", "here", "paper")
    assert chart.table.rows == [("en", "86.5%", "89.7%"), ("zo", "not measured", "0.013%")]
    assert chart.alt == "Bars of % of documents. here: en 86.5; paper: en 89.7, zo 0.013."
    assert {"86.5", "89.7", "0.013", "en", "zo"} <= set(words(chart))


@pytest.mark.parametrize(("minutes", "text"), [(0.0, "0:00"), (1.5, "1:30"), (61.0, "61:00"), (0.999, "1:00")])
def test_clock_text(minutes: float, text: str) -> None:
    assert clock_text(minutes) == text


def test_a_timeline_has_a_row_for_every_step() -> None:
    chart = timeline_chart("When", [Span("base", "pretraining", 0.0, 4.0), Span("v0", "tuning", 4.0, 6.5), Span("v1", "tuning", 4.5, 5.0)])
    assert chart.wide
    assert chart.table.rows == [("base", "pretraining", "0:00", "4:00"), ("v0", "tuning", "4:00", "2:30"), ("v1", "tuning", "4:30", "0:30")]
    assert "3 steps over 6:30" in chart.alt
    assert "the longest are base 4:00, v0 2:30, v1 0:30." in chart.alt
    assert {"base", "v0", "v1", "2:30", "tuning"} <= set(words(chart))


BINS = [{"role": "system", "turn": 1}] + [{"role": role, "turn": turn} for turn in (1, 2) for role in ("user", "assistant")]


def attention(of_instruction: Sequence[float]) -> list[list[float]]:
    return [[weight, *[0.1] * place] for place, weight in enumerate(of_instruction)]


def test_an_attention_map_says_how_much_each_answer_looks_at_the_instruction() -> None:
    chart = attention_chart("Looks", BINS, attention([1.0, 0.9, 0.5, 0.4, 0.25]))
    assert chart.table.rows == [("1", "0.500"), ("2", "0.250")]
    assert "turn 1 0.500, turn 2 0.250" in chart.alt
    assert ET.fromstring(chart.svg).find(".//{http://www.w3.org/2000/svg}image") is not None
    assert attention_to_instruction(BINS, attention([1.0, 0.9, 0.5, 0.4, 0.25])) == {1: 0.5, 2: 0.25}
    other = attention_chart("Looks", BINS, attention([1.0, 0.9, 0.5, 0.4, 0.2]))
    assert other.svg != chart.svg


def test_colours_are_named_so_that_the_page_can_darken_them() -> None:
    chart = bar_chart("Bars", ["a"], {"here": [1.0]}, "documents", "filter", paper={"paper": [2.0]})
    assert "var(--c0)" in chart.svg
    assert "var(--paper)" in chart.svg
    assert not any(colour in chart.svg for colour in VARIABLES)
