"""What the replicas count, and one Prometheus page of all of them.

Every replica has a registry of its own; `/metrics` asks all of them and adds the labels `deployment` and `replica`, so that the
page is the same whichever ingress answers. Format: prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from ray import serve

from cluenet.model.engine.cache import CacheStats
from cluenet.model.engine.engine import Answered

Part = tuple[str, str, list["Family"]]
"""(deployment, replica, its metrics)"""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
QUESTIONS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Family:
    """One metric of one replica, as plain values. samples: (name, labels, value)."""

    name: str
    documentation: str
    type: str
    samples: tuple[tuple[str, dict[str, str], float], ...]


def replica_id() -> str:
    """Of this process."""
    return serve.get_replica_context().replica_id.unique_id


def families(registry: CollectorRegistry) -> list[Family]:
    return [
        Family(one.name, one.documentation, one.type, tuple((s.name, dict(s.labels), s.value) for s in one.samples))
        for one in registry.collect()
    ]


class EngineMetrics:
    """Of one engine."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self._seconds = Histogram(
            "cluenet_engine_seconds", "Of a question in the engine.", ["phase"], buckets=SECONDS, **own
        )
        self._together = Histogram("cluenet_engine_batch_questions", "Let in together.", buckets=QUESTIONS, **own)
        self._tokens = Counter(
            "cluenet_visual_tokens", "Of the clips asked about, by whether they were kept.", ["clip"], **own
        )
        self._clues = Counter("cluenet_clues", "That the model stated.", ["filter"], **own)
        self._queue = Gauge("cluenet_engine_questions", "In the engine, by state.", ["state"], **own)
        self._cache = Gauge("cluenet_cache", "Of watched clips and of frames.", ["cache", "what"], **own)

    def answered(self, one: Answered) -> None:
        for phase, seconds in one.seconds.items():
            self._seconds.labels(phase).observe(seconds)
        self._together.observe(one.together)
        self._tokens.labels("kept" if one.kept else "watched").inc(one.visual_tokens)
        for clue in one.answer.clues:
            self._clues.labels("kept" if clue.kept else "dropped").inc()

    def families(self, *, waiting: int, writing: int, caches: Mapping[str, CacheStats]) -> list[Family]:
        self._queue.labels("waiting").set(waiting)
        self._queue.labels("writing").set(writing)
        for name, stats in caches.items():
            for what, value in vars(stats).items():
                self._cache.labels(name, what).set(value)
        return families(self.registry)


class DecodingMetrics:
    """Of one decoding replica."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self.seconds = Histogram(
            "cluenet_decode_seconds", "Of a clip's decoding, waiting left out.", buckets=SECONDS, **own
        )
        self.clips = Counter("cluenet_decoded_clips", "By what became of them.", ["outcome"], **own)


class IngressMetrics:
    """Of one ingress."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self.requests = Counter("cluenet_requests", "By endpoint and HTTP status.", ["endpoint", "status"], **own)
        self.seconds = Histogram("cluenet_request_seconds", "Of answered questions.", ["phase"], buckets=SECONDS, **own)
        self.running = Gauge("cluenet_requests_running", "Waiting or being answered.", **own)
        self.retries = Counter("cluenet_retries", "Questions asked again because a replica was lost.", **own)


def page(parts: Iterable[Part]) -> bytes:
    """The Prometheus text of all replicas."""
    return generate_latest(_Merged(parts))  # type: ignore[arg-type]


class _Merged:
    """Samples of one name stand together, which the format asks for."""

    def __init__(self, parts: Iterable[Part]):
        self.metrics: dict[str, Metric] = {}
        for deployment, replica, found in parts:
            for family in found:
                metric = self.metrics.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for name, labels, value in family.samples:
                    metric.add_sample(name, {**labels, "deployment": deployment, "replica": replica}, value)

    def collect(self) -> Iterator[Metric]:
        yield from self.metrics.values()
