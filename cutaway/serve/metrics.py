"""What can be watched of a server, in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters, histograms and gauges of one app, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "cutaway_requests", "Requests that were answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "cutaway_request_seconds", "From the first byte of a request to the last of its answer.", ["route"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._read = Counter("cutaway_prompt_tokens", "Tokens that were read.", ["model"], registry=registry)
        self._held = Counter(
            "cutaway_prompt_tokens_cached", "Tokens of prompts that were held from earlier ones.", ["model"],
            registry=registry,
        )  # fmt: skip
        self._written = Counter("cutaway_written_tokens", "Tokens that were written.", ["model"], registry=registry)
        self._first = Histogram(
            "cutaway_first_token_seconds", "From a request to its first token.", ["model"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self._each = Histogram(
            "cutaway_token_seconds", "Mean time of an answer's tokens after the first.", ["model"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._batch = Histogram(
            "cutaway_batch_size", "Texts in one pass of a model.", ["model", "kind"], buckets=SIZES, registry=registry
        )
        ProcessCollector(registry=registry)

    def watch(self, gauges: Callable[[], Iterator[tuple[str, str, dict[str, str], float]]]) -> None:
        """Ask `gauges` for (name, meaning, labels, value) whenever somebody looks."""

        class Asked:
            def collect(self) -> Iterator[Any]:
                families: dict[str, Any] = {}
                for name, meaning, labels, value in gauges():
                    family = families.setdefault(name, GaugeMetricFamily(name, meaning, labels=list(labels)))
                    family.add_metric(list(labels.values()), value)
                yield from families.values()

        self.registry.register(Asked())

    def prompt(self, model: str, tokens: int, held: int) -> None:
        self._read.labels(model).inc(tokens)
        self._held.labels(model).inc(held)

    def first_token(self, model: str, seconds: float) -> None:
        self._first.labels(model).observe(seconds)

    def written(self, model: str, tokens: int) -> None:
        self._written.labels(model).inc(tokens)

    def each_token(self, model: str, seconds: float) -> None:
        self._each.labels(model).observe(seconds)

    def step(self, model: str, texts: int) -> None:
        self._batch.labels(model, "step").observe(texts)

    def encoded(self, model: str, texts: int, tokens: int) -> None:
        self._batch.labels(model, "encoder").observe(texts)
        self._read.labels(model).inc(tokens)

    def text(self) -> bytes:
        """All of them, as they are scraped."""
        return generate_latest(self.registry)
