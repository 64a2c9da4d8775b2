"""What the benches of the endpoint ask, and of which model: 19 M parameters, so that the engine is what takes the time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluenet.ask import decode, example_of
from cluenet.decoding import FramePolicy
from cluenet.model.checkpoint import read_frame_policy, save_model
from cluenet.model.engine.engine import Question
from cluenet.model.tiny import new_model
from cluenet.model.tiny_tokenizer import fit_tokenizer
from cluenet.records import VideoRef
from cluenet.testing.videos import write_video
from helpers.evaluation import recipe
from helpers.http_load import Found, Load, http_load
from helpers.models import tiny_model
from helpers.serving import OPTIONS

Asked = list[tuple[Path, str]]
"""(video, question)"""


def write_model(folder: Path) -> Path:
    tokenizer = fit_tokenizer(["which one hits red blue green ? why so"], blocks=8, max_words=100)
    size = {"hidden": 512, "layers": 6, "heads": 8, "vision_hidden": 128, "vision_layers": 2}
    new_model(tokenizer, family="qwen3_vl", patch=8, seed=0, **size).save(folder / "base")
    size = {"height": 96, "width": 128}
    settings = recipe(data={"size": size, "sampler": {"name": "uniform", "frames": 16}})
    policy = FramePolicy.from_section(settings.data).to_dict()
    built = tiny_model(folder=folder / "base")
    return save_model(built, folder / "model", recipe=settings.to_dict(), frame_policy=policy, card={})


def write_blocks(folder: Path, count: int, *, seed: int = 0) -> list[Path]:
    """Videos of 320 x 240 pixels and 4 s, each unlike all others."""
    videos = [folder / f"{seed + number}.mp4" for number in range(count)]
    for number, path in enumerate(videos):
        rng = np.random.default_rng(seed + number)
        small = rng.integers(0, 256, (96, 24, 32, 3), dtype=np.uint8)
        write_video(path, small.repeat(10, axis=1).repeat(10, axis=2), fps=24)
    return videos


def work(videos: Sequence[Path], count: int) -> Asked:
    """So many questions, as many about each video, in no order: over HTTP none is kept, and a batch with as many questions about
    each of its clips has less padding than others."""
    asked = [(videos[n % len(videos)], f"which one hits {OPTIONS[n % 3]} {n} ?") for n in range(count)]
    random.Random(0).shuffle(asked)
    return asked


def questions_of(model: Path, asked: Asked) -> list[Question]:
    """The same for an engine."""
    policy = FramePolicy.from_dict(read_frame_policy(model))
    frames = {video: decode(VideoRef(str(video)), policy)[0] for video in {video for video, _ in asked}}
    return [Question(str(video), example_of(str(video), question, OPTIONS), frames[video]) for video, question in asked]


def load(url: str, asked: Asked, clients: int = 1, rate: float | None = None) -> Found:
    """`rate`: questions per second, whether they are answered or not; else so many clients wait for their answers."""
    bodies = [
        {"question": question, "options": OPTIONS, "video_url": video.as_uri(), "explain": False}
        for video, question in asked
    ]
    return http_load(Load(f"{url}/v1/videoqa", bodies, clients, rate))


def answered_rate(found: Found) -> float:
    """Questions per second, all of which were answered."""
    assert found.count(200) == len(found.answers)
    return len(found.answers) / found.seconds


def percentiles(seconds: Sequence[float]) -> str:
    return ", ".join(f"p{p} {1000 * np.percentile(seconds, p):.0f} ms" for p in (50, 95, 99))
