"""What a server counts, for Prometheus: a registry of its own for every service, and no text, name of a user or key in any label."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import CODE

if TYPE_CHECKING:
    from .service import Service

STATES = ("loading", "ready", "draining", "failed")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
GONE = 499
"""The status of a request whose client left before the answer began."""
LONG_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

Where = Literal["prompt", "answer"]
Outcome = Literal["passed", "refused", "failed"]
"""`failed`: it could not be scored, and was refused for that."""


class Metrics:
    """Counters and histograms. What workers count themselves is read from them when somebody asks."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "llamaherd_requests", "Requests that were answered, by route template.", ["route", "method", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "llamaherd_request_seconds", "From a request's head to the end of its answer.", ["route"], buckets=LONG_S, registry=registry
        )
        self.open_requests = Gauge("llamaherd_open_requests", "Requests whose answers have not ended.", registry=registry)
        self.refused = Counter("llamaherd_refused", "Requests that were told to come again (429), by why.", ["reason"], registry=registry)
        self.first_token_seconds = Histogram(
            "llamaherd_first_token_seconds", "From a sequence's arrival to its first token.", ["model"], buckets=LONG_S, registry=registry
        )
        self.token_seconds = Histogram(
            "llamaherd_token_seconds", "From a token to the next one of its sequence.", ["model"], buckets=TOKEN_S, registry=registry
        )
        self.guard_decisions = Counter(
            "llamaherd_guard_decisions", "Prompts and answers that the guard has decided on.", ["where", "outcome"], registry=registry
        )
        self.guard_turns_left_out = Counter(
            "llamaherd_guard_turns_left_out", "Oldest turns left out of checks, since the guard's context was full.", registry=registry
        )
        self.guard_seconds = Histogram(
            "llamaherd_guard_check_seconds", "One check, its waiting included.", buckets=LONG_S, registry=registry
        )
        for where in ("prompt", "answer"):  # so that they are there, at 0, before the first decision
            for outcome in ("passed", "refused", "failed"):
                self.guard_decisions.labels(where, outcome)

    def watch(self, service: "Service") -> None:
        """Reads the service's state and what its workers count, whenever somebody asks."""
        self.registry.register(_Watched(service))

    def observer(self, model: str) -> Callable[[Literal["first_token", "token"], Sequence[float]], None]:
        """For a worker's latencies in seconds (`Stats.observer`)."""
        histograms = {"first_token": self.first_token_seconds.labels(model), "token": self.token_seconds.labels(model)}

        def observe(latency: Literal["first_token", "token"], seconds: Sequence[float]) -> None:
            for one in seconds:
                histograms[latency].observe(one)

        return observe

    def decided(self, where: Where, outcome: Outcome) -> None:
        """One decision of the guard."""
        self.guard_decisions.labels(where, outcome).inc()


class _Watched:
    """A collector: what is known elsewhere already, read at the moment of asking."""

    def __init__(self, service: "Service"):
        self._service = service

    def collect(self) -> Iterable[Metric]:
        state = GaugeMetricFamily("llamaherd_state", "1 for the state that the server is in.", labels=["state"])
        for name in STATES:
            state.add_metric([name], float(self._service.health == name))
        yield state
        loaded = GaugeMetricFamily("llamaherd_model_loaded", "Whether a model is loaded.", labels=["model"])
        gauges: dict[str, GaugeMetricFamily] = {
            "waiting": GaugeMetricFamily("llamaherd_sequences_waiting", "Sequences without a token yet.", labels=["model"]),
            "running": GaugeMetricFamily("llamaherd_sequences_running", "Sequences that are at work.", labels=["model"]),
        }
        counts: dict[str, CounterMetricFamily] = {
            "cancelled": CounterMetricFamily("llamaherd_sequences_cancelled", "Sequences that nobody waited for.", labels=["model"]),
            "failed": CounterMetricFamily("llamaherd_sequences_failed", "Sequences that ended with an error.", labels=["model"]),
            "prompt_tokens_read": CounterMetricFamily(
                "llamaherd_prompt_tokens_read", "Tokens of prompts that were read.", labels=["model"]
            ),
            "prompt_tokens_known": CounterMetricFamily(
                "llamaherd_prompt_tokens_known", "Tokens of prompts that memory held, and that were not read.", labels=["model"]
            ),
            "tokens": CounterMetricFamily("llamaherd_tokens", "Tokens that were made.", labels=["model"]),
            "steps": CounterMetricFamily("llamaherd_steps", "Steps of the engine.", labels=["model"]),
            "step_s": CounterMetricFamily("llamaherd_step_seconds", "Seconds in steps of the engine.", labels=["model"]),
        }
        finished = CounterMetricFamily("llamaherd_sequences_finished", "Sequences that came to their end.", labels=["model", "reason"])
        for base in self._service.bases:
            loaded.add_metric([base.name], float(base.worker is not None))
            if base.worker is None:
                continue
            stats = base.worker.stats
            for name, gauge in gauges.items():
                gauge.add_metric([base.name], float(getattr(stats, name)))
            for name, count in counts.items():
                count.add_metric([base.name], float(getattr(stats, name)))
            for reason, times in stats.finished.items():
                finished.add_metric([base.name, reason], float(times))
        yield from (loaded, *gauges.values(), *counts.values(), finished)


class Measured:
    """Middleware: counts every request by the template of its route, whichever way it ends."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), GONE

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        metrics = self._metrics
        metrics.open_requests.inc()
        try:
            await self._app(scope, receive, counted)
        finally:
            metrics.open_requests.dec()
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            if status == 429:
                metrics.refused.labels(scope.get(CODE) or "none").inc()
            metrics.requests.labels(route, method, str(status)).inc()
            metrics.request_seconds.labels(route).observe(time.perf_counter() - started)
