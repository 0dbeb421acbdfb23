"""Rendering over HTTP."""

import httpx
import pytest
from tests.serve.conftest import Running

from llamaherd.serve.api import render
from llamaherd.serve.colours import stylesheet


def test_texts_come_back_as_blocks_in_their_order(up: Running) -> None:
    asked = {"texts": ["# A\n\n*b* <script>x</script>", "", "$x$ \0 ёлка"]}
    made = httpx.post(f"{up.url}/api/render", json=asked, timeout=60).json()["html"]
    assert made[:2] == [["<h3>A</h3>\n", "<p><em>b</em> &lt;script&gt;x&lt;/script&gt;</p>\n"], []]
    assert len(made[2]) == 1
    assert made[2][0].endswith(" \ufffd ёлка</p>\n")


def test_after_a_while_texts_are_shown_as_they_were_written(up: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "PATIENCE_S", 0.0)
    assert httpx.post(f"{up.url}/api/render", json={"texts": ["*b*"]}).json()["html"] == [["<p>*b*</p>"]]


def test_bodies_that_are_refused(up: Running) -> None:
    for body in (b"{}", b'{"texts": "a"}', b'{"texts": [1]}', b'{"texts": ["\\ud800"]}', b'{"texts": [], "x": 1}'):
        answer = httpx.post(f"{up.url}/api/render", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]


def test_the_style_sheet(up: Running) -> None:
    answer = httpx.get(f"{up.url}/api/pygments.css")
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert answer.text == stylesheet()
