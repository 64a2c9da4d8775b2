"""What a worker does with one batch of files: decode, encode, write the clips part with its account. Ray-free.

The account of a part, kept in its footer and returned to the driver:

    {"part": "part-00012-1f9c0b....parquet", "reused": false,
     "files": [{"path", "fps", "sha256", "openings",
                "clips": [{"start_seconds", "end_seconds", "key", "row_group", "bytes", "reader", "failed": [...]}
                          | {"start_seconds", "end_seconds", "reason", "detail", "reader"}]}]}
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluenet.data.batches import Batch, FileJob, Span
from cluenet.decoding import FramePolicy, encode_frames
from cluenet.errors import MediaError
from cluenet.folders import storage_errors
from cluenet.isolation import FileResult, IsolatedDecoder
from cluenet.prepared import ClipWriter, PreparedClip, atomic_file, read_account
from cluenet.recipe import Recipe
from cluenet.records import Frames, content_hash

Account = dict[str, Any]


class PartMaker:
    """Makes the parts of one prepared folder. Its decoding process starts with the first part that is not there yet."""

    def __init__(self, recipe: Recipe, folder: Path):
        self._folder = folder
        self._policy = FramePolicy.from_section(recipe.data)
        self._policy_hash = self._policy.fingerprint()
        self._timeout_seconds = recipe.data.decode_timeout_seconds
        self._plugins = recipe.plugins
        self._decoder: IsolatedDecoder | None = None

    def account(self, batch: Batch) -> Account:
        """The account of the batch's part, which is made unless it is there. Raises StorageError on a full disk."""
        part = self._folder / "clips" / batch.part
        account = read_account(part)
        if account is not None and not outdated(account, self._timeout_seconds):
            return {**account, "part": batch.part, "reused": True}
        return {**self._make(part, batch), "part": batch.part, "reused": False}

    def close(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
