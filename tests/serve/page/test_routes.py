"""The files of the chat page as a browser asks for them."""

import re

import httpx
import pytest
from tests.serve.conftest import Running

from llamaherd.serve.page.routes import FILES


def test_the_page_holds_nothing_inline_and_nothing_from_elsewhere(up: Running) -> None:
    answer = httpx.get(up.url)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not re.search(r"<style|\sstyle=|\son\w+=", answer.text)
    assert all(re.search(r"\ssrc=", tag) for tag in re.findall(r"<script[^>]*>", answer.text))
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
    assert loaded
    for address in loaded:
        assert address.startswith("/static/") or address == "/api/pygments.css"
        assert httpx.get(up.url + address).status_code == 200


def test_every_module_that_a_module_imports_is_served(up: Running) -> None:
    for name, file in FILES.items():
        for wanted in re.findall(r'(?:from|import) "\./([^"]+)"', file.content.decode()) if name.endswith(".js") else []:
            answer = httpx.get(f"{up.url}/static/{wanted}")
            assert answer.status_code == 200, f"{name} imports {wanted}"
            assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"


def test_nothing_in_the_page_leads_elsewhere() -> None:
    for name, file in FILES.items():
        addresses = [one for one in re.findall(r"https?://[^\s\"'`)]+", file.content.decode()) if not one.startswith("http://www.w3.org/")]
        assert addresses == [], name


def test_what_is_known_already_is_not_sent_again(up: Running) -> None:
    first = httpx.get(f"{up.url}/static/app.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = httpx.get(f"{up.url}/static/app.js", headers={"If-None-Match": f'"other", W/{first.headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(f"{up.url}/static/app.js", headers={"If-None-Match": '"other"'}).status_code == 200
    head = httpx.head(f"{up.url}/static/app.js")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    "name", ["..%2froutes.py", "routes.py", "../routes.py", "%2e%2e/routes.py", "app.js%00", "APP.JS", "C:app.js", "..."]
)
def test_no_name_becomes_a_path(up: Running, name: str) -> None:
    assert httpx.get(f"{up.url}/static/{name}").status_code in (400, 404)
