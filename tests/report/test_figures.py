import xml.etree.ElementTree as ET

import pytest

from llamaherd.measures.intervals import figure, nothing
from llamaherd.report.figures import MOST_POINTS, as_text, averaged, figure_text, line_chart, number, point_chart, short, signed

ONE = figure(0.25, 0.125, 0.5, 40)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "not measured"), (0, "0"), (1234567, "1,234,567"), (0.1234, "0.123"), (0.0, "0.000"), (1e-5, "1e-05"), (-2.5, "-2.500"),
     (123.4, "123"), (2000.0, "2,000"), (2000.4, "2,000"), (True, "True"), ("en", "en")],
)  # fmt: skip
def test_number(value: object, text: str) -> None:
    assert number(value) == text


def test_figure_text() -> None:
    assert figure_text(ONE) == "0.250 (0.125 to 0.500)"
    assert figure_text(ONE, with_n=True) == "0.250 (0.125 to 0.500), n 40"
    assert figure_text(nothing()) == figure_text(None) == "not measured"
    assert (short(ONE), short(0.126), short(None), short(nothing())) == ("0.25", "0.13", "?", "?")
    assert signed(figure(-0.125, -0.25, 0.5, 9)) == "\u22120.12 (\u22120.25 to +0.50)"
    assert as_text(ONE) == figure_text(ONE)
    assert as_text([1, "a", 0.5]) == "1 a 0.500"


def test_averaged() -> None:
    points = [(float(x), float(x % 2)) for x in range(8)]
    assert averaged(points, 8) == (points, 1)
    assert averaged(points, 4) == ([(0.5, 0.5), (2.5, 0.5), (4.5, 0.5), (6.5, 0.5)], 2)
    assert averaged(points, 3) == ([(1, 1 / 3), (4, 2 / 3), (6.5, 0.5)], 3)


def test_line_chart_says_what_it_shows() -> None:
    chart = line_chart("Loss", {"base": [(1.0, 7.0), (500.0, 2.0)]}, "step", "nats")
    assert chart.alt == "Line chart of nats over step: base from 7.000 at 1 to 2.000 at 500."
    assert chart.table.columns == ("curve", "step", "nats")
    assert chart.table.rows == [("base", "1", "7.000"), ("base", "500", "2.000")]
    assert chart.note == ""
    level = line_chart("KL", {"k1": [(1.0, 1.0)]}, "step", "nats", levels={"budget": 4.0}, marked=("published", 8.0))
    assert level.alt.endswith("k1 from 1.000 at 1 to 1.000 at 1; budget 4.000; published at 8.")
    long = line_chart("Loss", {"base": [(float(x), 1.0) for x in range(MOST_POINTS + 1)]}, "step", "nats")
    assert "means of up to 2" in long.note


def test_point_chart_has_gaps_and_the_paper_in_its_table() -> None:
    chart = point_chart("Rates", ["v0", "v1"], {"here": [ONE, None]}, "version", "share", paper={"paper": [None, 0.3]})
    assert chart.table.rows == [("v0", "0.250 (0.125 to 0.500), n 40", "not printed"), ("v1", "not measured", "0.300")]
    assert chart.alt == "share by version. here: v0 0.25; paper: v1 0.30."
    assert point_chart("Empty", ["a"], {"x": [None]}, "version", "share").table.rows == [("a", "not measured")]


def test_svg_is_deterministic_well_formed_and_bare() -> None:
    charts = [point_chart("Some rates", ["very long name"] * 9, {"a": [ONE] * 9, "b": [ONE] * 9}, "version", "share") for _ in range(2)]
    assert charts[0].svg == charts[1].svg
    root = ET.fromstring(charts[0].svg)
    assert "viewBox" in root.attrib
    assert not {"width", "height"} & root.attrib.keys()
    assert "metadata" not in charts[0].svg
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert ids
    assert all(name.startswith("some-rates-") for name in ids)
    assert len(ids) == len(set(ids))
    links = [value for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")]
    assert all(link.removeprefix("#") in ids for link in links)
