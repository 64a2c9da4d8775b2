"""A replica that decodes: one isolated process per replica, so that a video that hangs or aborts costs an error message."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import ray

from cluenet.config.serve import ServeSection
from cluenet.decoding import FramePolicy, encode_frames
from cluenet.errors import CluenetError, MediaError
from cluenet.isolation import IsolatedDecoder
from cluenet.model.checkpoint import read_frame_policy, read_plugins
from cluenet.serve.errors import ServeError
from cluenet.serve.messages import BytesWanted, ClipRef, EncodedClip
from cluenet.serve.metrics import DecodingMetrics, Family, families, replica_id


class DecodingReplica:
    """Decodes as the model was trained. More at a time takes more replicas."""

    def __init__(self, model: str, section: ServeSection):
        self.policy = FramePolicy.from_dict(read_frame_policy(model))
        self.decoder = IsolatedDecoder(
            self.policy, timeout_seconds=section.limits.decode_timeout_seconds, plugins=read_plugins(model)
        )
        self.node = ray.get_runtime_context().get_node_id()
        self._free, self.numbers = asyncio.Lock(), DecodingMetrics()

    async def decode(self, clip: ClipRef, content: bytes | None = None) -> ray.ObjectRef | BytesWanted | ServeError:
        """The EncodedClip in the object store, from where the engine takes it. BytesWanted: the file is on another node, ask
        again with its content."""
        if content is None and clip.node != self.node:
            return BytesWanted()
        async with self._free:
            found = await asyncio.to_thread(self._decoded, clip, content)
        self.numbers.clips.labels("refused" if isinstance(found, ServeError) else "decoded").inc()
        if isinstance(found, ServeError):
            return found
        self.numbers.seconds.observe(found.seconds)
        return ray.put(found)

    def metrics(self) -> tuple[str, list[Family]]:
        return replica_id(), families(self.numbers.registry)

    def __del__(self) -> None:
        if hasattr(self, "decoder"):
            self.decoder.close()

    # ------------------------------------------------------------------------------------------- inside
    def _decoded(self, clip: ClipRef, content: bytes | None) -> EncodedClip | ServeError:
        if content is None:
            return self._of_file(clip.path, clip)
        with TemporaryDirectory(prefix="cluenet-decoding-") as folder:
            copy = Path(folder) / Path(clip.path).name
            copy.write_bytes(content)
            return self._of_file(str(copy), clip)

    def _of_file(self, path: str, clip: ClipRef) -> EncodedClip | ServeError:
        started = time.perf_counter()
        try:
            (decoded,) = self.decoder.decode([(path, None, ((clip.start_seconds, clip.end_seconds),))])
            (outcome,) = decoded.outcomes
        except CluenetError as error:  # no file can be decoded: a plug-in is missing
            return ServeError(500, "server_error", f"videos cannot be decoded here: {error}")
        if isinstance(outcome, MediaError):
            return ServeError.of_media(outcome)
        blob = encode_frames(outcome, self.policy.codec)
        return EncodedClip(blob, str(decoded.reader), time.perf_counter() - started)
