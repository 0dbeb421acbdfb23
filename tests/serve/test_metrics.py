"""What Prometheus is told: parsed by its own client."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from tests.serve.conftest import Running

SECRET = "Zanzibar"


@pytest.fixture(scope="module")
def counted(serve: Callable[..., Any], talkers: Path) -> Iterator[Running]:
    with serve(models=[str(talkers / "endless")]) as server:
        yield server


def samples(up: Running) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name and labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(httpx.get(f"{up.url}/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.values()))] = sample.value
    return found


def test_a_request_is_counted_by_the_template_of_its_route(counted: Running) -> None:
    client = OpenAI(base_url=counted.v1, api_key="none")
    before = samples(counted)
    stream = client.chat.completions.create(
        model="endless", messages=[{"role": "user", "content": f"Where is {SECRET}?"}], max_completion_tokens=9, seed=1, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    httpx.get(f"{counted.url}/no/{SECRET}")
    httpx.request("BREW", f"{counted.url}/health")
    after = samples(counted)

    def more(name: str, *labels: str) -> float:
        return after[name][labels] - before.get(name, {}).get(labels, 0.0)

    assert any(pieces)
    assert more("llamaherd_requests_total", "/v1/chat/completions", "200", "POST") == 1
    assert more("llamaherd_requests_total", "404", "GET", "none") == 1
    assert more("llamaherd_requests_total", "/health", "405", "other") == 1
    assert more("llamaherd_request_seconds_count", "/v1/chat/completions") == 1
    assert more("llamaherd_tokens_total", "endless") == 9
    assert more("llamaherd_prompt_tokens_read_total", "endless") + more("llamaherd_prompt_tokens_known_total", "endless") > 5
    assert more("llamaherd_first_token_seconds_count", "endless") == 1
    assert more("llamaherd_token_seconds_count", "endless") == 8
    assert more("llamaherd_sequences_finished_total", "endless", "length") == 1
    assert after["llamaherd_sequences_running"]["endless",] == after["llamaherd_sequences_waiting"]["endless",] == 0
    assert after["llamaherd_open_requests"][()] == 1, "this one"


def test_no_text_stands_in_any_label(counted: Running) -> None:
    httpx.post(f"{counted.v1}/chat/completions", json={"model": SECRET, "messages": [{"role": "user", "content": SECRET}]})
    text = httpx.get(f"{counted.url}/metrics").text
    assert SECRET not in text
    assert 'llamaherd_requests_total{method="POST",route="/v1/chat/completions",status="404"} 1.0' in text


def test_state_and_models(counted: Running) -> None:
    found = samples(counted)
    assert found["llamaherd_state"] == {("ready",): 1.0, ("loading",): 0.0, ("draining",): 0.0, ("failed",): 0.0}
    assert found["llamaherd_model_loaded"] == {("endless",): 1.0}
    assert found["process_resident_memory_bytes"][()] > 1e7


def test_two_services_count_apart(counted: Running, serve: Callable[..., Any], talkers: Path) -> None:
    with serve(models=[str(talkers / "endless")]) as other:
        assert ("/v1/chat/completions", "200", "POST") not in samples(other).get("llamaherd_requests_total", {})
        assert samples(other)["llamaherd_tokens_total"]["endless",] == 0


def test_openmetrics_where_it_is_asked_for(counted: Running) -> None:
    answer = httpx.get(f"{counted.url}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert "llamaherd_requests" in {family.name for family in openmetrics(answer.text)}
