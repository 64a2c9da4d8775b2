"""An endpoint without Ray: the real service, engine and decoder in one process, and a video to ask about."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import torch
from prometheus_client.parser import text_string_to_metric_families

from cluenet.ask import decode
from cluenet.config.serve import ServeSection
from cluenet.decoding import FramePolicy, encode_frames
from cluenet.errors import MediaError
from cluenet.model.checkpoint import read_frame_policy, save_model
from cluenet.recipe import Recipe
from cluenet.records import VideoRef
from cluenet.serve.engine_deployment import EngineReplica
from cluenet.serve.errors import ServeError
from cluenet.serve.messages import Asked, ClipRef, EncodedClip, EngineReply
from cluenet.serve.metrics import Part, families
from cluenet.serve.service import ServedModel, Service
from cluenet.testing.videos import write_video
from helpers.models import tiny_model

OPTIONS = ("red", "blue", "green")


def write_noise(path: Path, seed: int = 0, *, frames: int = 16) -> Path:
    """A small H.264 video that looks like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 64, 96, 3), dtype=np.uint8)
    write_video(path, pixels, fps=8)
    return path


class LocalBackend:
    """`service.Backend` in this process. `decoded`: keys of clips, as often as they were decoded."""

    def __init__(self, model: Path, section: ServeSection):
        self.engine = EngineReplica(str(model), section)
        self.policy = FramePolicy.from_dict(read_frame_policy(model))
        self.asked: list[Asked] = []
        self.decoded: list[str] = []

    async def ask(self, asked: Asked, frames: Any) -> EngineReply:
        self.asked.append(asked)
        return await self.engine.ask(asked, frames)

    def stream(self, asked: Asked, frames: Any) -> AsyncIterator[str | EngineReply]:
        self.asked.append(asked)
        return self.engine.stream(asked, frames)

    async def decode(self, clip: ClipRef, content: bytes | None) -> EncodedClip | ServeError:
        self.decoded.append(clip.key)
        video = VideoRef(clip.path, clip.start_seconds, clip.end_seconds)
        try:
            frames, reader = await asyncio.to_thread(decode, video, self.policy)
        except MediaError as error:
            return ServeError.of_media(error)
        return EncodedClip(encode_frames(frames, self.policy.codec), reader, 0.1)

    async def metrics(self) -> list[Part]:
        return [("Engine", "r1", families(self.engine.numbers.registry))]


def local_service(model: Path, *, name: str | None = "tiny", **section: Any) -> Service:
    """`section`: settings of `serve:`."""
    settings = ServeSection.model_validate(section)
    return Service(LocalBackend(model, settings), ServedModel.of(model, name), settings, node="here")


def varied_model_folder(folder: Path, settings: Recipe, **section: Any) -> Path:
    """An untrained model whose answers differ from question to question."""
    model = tiny_model(**section)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(2.0)
    changed = settings.model.model_validate({**settings.model.model_dump(), **section}).model_dump(mode="json")
    policy = FramePolicy.from_section(settings.data).to_dict()
    return save_model(model, folder, recipe={**settings.to_dict(), "model": changed}, frame_policy=policy, card={})


def free_port() -> int:
    """One that nobody listens on, from a range out of which the system gives no ports to others, such as Ray, meanwhile."""
    for port in random.SystemRandom().sample(range(15_000, 30_000), 200):
        with socket.socket() as listening:
            try:
                listening.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 15000 and 30000")


SMALL = {
    "ingress": {"cpu": 0.1, "autoscaling": {"max_replicas": 1}},
    "decoding": {"cpu": 0.1, "autoscaling": {"max_replicas": 1}},
    "engine": {"cpu": 0.2, "autoscaling": {"max_replicas": 1}},
}
"""Fits beside anything else on two CPUs."""


def engines(count: int, **autoscaling: Any) -> dict[str, Any]:
    """So many engine replicas, or settings of their autoscaling."""
    return {
        **SMALL,
        "engine": {"cpu": 0.2, "autoscaling": {"min_replicas": count, "max_replicas": count, **autoscaling}},
    }


def numbers(url: str, name: str, **labels: str) -> dict[str, float]:
    """Samples of `/metrics` with these labels, by replica."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx2.get(f"{url}/metrics", timeout=60).text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                found[sample.labels["replica"]] = found.get(sample.labels["replica"], 0) + sample.value
    return found


def replicas(deployment: str) -> dict[str, Any]:
    """Actors of a deployment's replicas, by id."""
    import ray
    from ray.util import list_named_actors

    marks = f"#{deployment}#"
    names = [one["name"] for one in list_named_actors(all_namespaces=True) if marks in one["name"]]
    return {name.rpartition("#")[2]: ray.get_actor(name, namespace="serve") for name in names}
