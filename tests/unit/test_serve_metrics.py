"""Numbers of several replicas as one Prometheus page."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluenet.model.engine.cache import CacheStats
from cluenet.model.engine.engine import Answered
from cluenet.records import Answer, PredictedClue
from cluenet.serve.metrics import EngineMetrics, IngressMetrics, families, page


def clue(kept: bool) -> PredictedClue:
    return PredictedClue("red hits blue", ("red",), None, None, None, None, kept)


def samples(text: bytes) -> dict[tuple, float]:
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(text.decode())
        for one in family.samples
    }


def engine(answers: int) -> list:
    numbers = EngineMetrics()
    for n in range(answers):
        answer = Answer("q", 0, (0.0,), (clue(True), clue(False)))
        numbers.answered(Answered(answer, n > 0, 12, {"wait": 0.5, "watch": 0.0, "answer": 2.0}, None, 4))
    caches = {"clips": CacheStats(hits=answers, misses=1, bytes=100, entries=1)}
    return numbers.families(waiting=3, writing=1, caches=caches)


def test_replicas_are_told_apart_and_each_metric_stands_together() -> None:
    ingress = IngressMetrics()
    ingress.requests.labels("/v1/videoqa", 200).inc()
    text = page([("Engine", "a", engine(3)), ("Engine", "b", engine(1)), ("Ingress", "c", families(ingress.registry))])
    found = samples(text)
    of = {name: (("deployment", "Engine"), ("replica", name)) for name in "ab"}
    assert found["cluenet_visual_tokens_total", ("clip", "kept"), *of["a"]] == 24
    assert found["cluenet_visual_tokens_total", ("clip", "watched"), *of["a"]] == 12
    assert found["cluenet_clues_total", *of["b"][:1], ("filter", "dropped"), *of["b"][1:]] == 1
    assert found["cluenet_engine_seconds_sum", *of["a"][:1], ("phase", "answer"), *of["a"][1:]] == pytest.approx(6.0)
    assert found["cluenet_engine_batch_questions_count", *of["b"]] == 1
    assert found["cluenet_cache", ("cache", "clips"), *of["a"], ("what", "hits")] == 3
    assert found["cluenet_engine_questions", *of["b"], ("state", "waiting")] == 3
    assert text.decode().count("# TYPE cluenet_engine_seconds ") == 1
    requests = ("deployment", "Ingress"), ("endpoint", "/v1/videoqa"), ("replica", "c"), ("status", "200")
    assert found["cluenet_requests_total", *requests] == 1
