"""`serve:` — a trained model as an endpoint: what is deployed, how it scales, what a request may be."""

from __future__ import annotations

from pydantic import Field, model_validator

from cluenet.config.base import Section
from cluenet.config.pruning import NoPruning, Pruning
from cluenet.steps import setting

MIB = 1 << 20


class Autoscaling(Section):
    """Between how many replicas Ray Serve moves, and how fast."""

    min_replicas: int = setting(1, "none", ge=0, description="Replicas without any request.")
    max_replicas: int = setting(2, "none", ge=1, description="Replicas at most.")
    target_ongoing_requests: float = setting(4, "none", gt=0, description="Requests per replica that scaling aims at.")
    look_back_period_s: float = setting(
        15, "none", gt=0, description="Seconds over which ongoing requests are averaged. Ray measures every 10 s."
    )
    upscale_delay_s: float = setting(5, "none", ge=0, description="Seconds of load before a replica is added.")
    downscale_delay_s: float = setting(300, "none", ge=0, description="Seconds of idling before one is removed.")

    @model_validator(mode="after")
    def _ordered(self) -> Autoscaling:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        return self


class Deployment(Section):
    """One kind of replica."""

    cpu: float = setting(1, "none", ge=0, description="CPUs of one replica.")
    gpu: float = setting(0, "none", ge=0, description="GPUs of one replica.")
    max_ongoing_requests: int = setting(64, "none", ge=1, description="Requests that one replica works on at a time.")
    autoscaling: Autoscaling = Field(default_factory=Autoscaling, description="How many replicas.")


class Limits(Section):
    """What is refused before it is decoded or answered."""

    max_bytes: int = setting(256 * MIB, "none", ge=1, description="Bytes of one video.")
    max_seconds: float = setting(1800, "none", gt=0, description="Length of one video.")
    max_pixels: int = setting(3840 * 2160, "none", ge=1, description="Pixels of one frame.")
    max_frames: int = setting(200_000, "none", ge=1, description="Frames of one video file.")
    max_question_chars: int = setting(4000, "none", ge=1, description="Characters of a question with its options.")
    max_queued_frames: int = setting(
        2_000_000, "none", ge=1,
        description="Frames of all videos that wait or are decoded at a time, as estimated from their headers; more is 503.",
    )  # fmt: skip
    max_queued_bytes: int = setting(
        2048 * MIB, "none", ge=1, description="Bytes of all request bodies in hand at a time; more is 503."
    )
    max_waiting: int = setting(512, "none", ge=1, description="Requests that wait or run at a time; more is 429.")
    decode_timeout_seconds: float = setting(60, "none", gt=0, description="A video that takes longer is refused.")
    fetch_timeout_seconds: float = setting(60, "none", gt=0, description="A download that takes longer is refused.")
    request_timeout_seconds: float = setting(300, "none", gt=0, description="A request that takes longer is 504.")


class ServeSection(Section):
    host: str = setting("127.0.0.1", "none", description="Address to listen on; 0.0.0.0 for all.")
    port: int = setting(8000, "none", ge=0, le=65535, description="Port to listen on.")
    ingress: Deployment = Field(
        default_factory=lambda: Deployment(cpu=0.25, max_ongoing_requests=512), description="HTTP, admission, routing."
    )
    decoding: Deployment = Field(
        default_factory=lambda: Deployment(cpu=0.5, max_ongoing_requests=8),
        description="Videos to frames, in isolated processes.",
    )
    engine: Deployment = Field(default_factory=Deployment, description="The model.")
    limits: Limits = Field(default_factory=Limits, description="What is refused.")
    model_name: str | None = setting(
        None,
        "none",
        description="What clients call the model; null: the name of its run folder, or of its own.",
        min_length=1,
    )
    allowed_roots: tuple[str, ...] = setting((), "none", description="Folders below which file:// videos may lie.")
    allow_private_hosts: bool = setting(
        False, "none", description="Let http(s) videos come from private, loopback and link-local addresses."
    )
    keys_variable: str | None = setting(
        None,
        "none",
        description="Environment variable with the bearer keys, joined by commas; null: no key is asked for.",
    )
    cors_origins: tuple[str, ...] = setting((), "none", description="Web origins that browsers may call from.")
    clip_cache_bytes: int = setting(1024 * MIB, "none", ge=0, description="Watched clips that one engine keeps.")
    frame_cache_bytes: int = setting(512 * MIB, "none", ge=0, description="Decoded clips that one engine keeps.")
    pruning: Pruning = setting(
        NoPruning(), "none", description="Which visual tokens the answer pass sees: none (all), two_pass or kv_select."
    )
    most_questions: int = setting(64, "none", ge=1, description="Questions that one engine answers together.")
    threads: int = setting(1, "none", ge=1, description="Torch threads of one engine.")
