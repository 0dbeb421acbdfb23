"""The one page that is seen without a key: the form that asks for it. Nothing in it comes from elsewhere, and no script runs."""

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { margin: 0; min-height: 100vh; display: grid; place-items: center }
main { width: min(22rem, 90vw) }
h1 { font-size: 1.3rem }
label { display: block; margin-bottom: .25rem }
input, button { box-sizing: border-box; width: 100%; font: inherit; padding: .6rem; border: 1px solid GrayText; border-radius: .4rem }
button { margin-top: .75rem; cursor: pointer }
:focus-visible { outline: 3px solid Highlight; outline-offset: 2px }
[role=alert] { border-inline-start: .3rem solid; padding-inline-start: .6rem }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
SIGN_IN_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


def sign_in_page(wrong: bool) -> str:
    """HTML; `wrong`: after a key that is none of the server's."""
    alert = '<p role="alert" id="wrong">That is no key of this server.</p>' if wrong else ""
    described = ' aria-describedby="wrong" aria-invalid="true"' if wrong else ""
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Sign in: llamaherd</title>
<style>{STYLE}</style></head>
<body><main><h1>Sign in to llamaherd</h1>{alert}
<form method="post" action="/login"><label for="key">Your key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus{described}>
<button>Sign in</button></form></main></body>
</html>
"""
