"""A pretrained multimodal language model from a Hugging Face folder or hub id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from pydantic import Field

from cluenet.contracts import Backbone, PretrainContext
from cluenet.errors import CheckpointError
from cluenet.model.loading import Attention, Checkpoint, DType
from cluenet.model.unloaded import unloaded_model
from cluenet.model.vlm import VisionLanguageModel
from cluenet.records import Example
from cluenet.registry import ComponentConfig, register
from cluenet_components._files import checkpoint_hash


@register.backbone("hf_vlm")
class HuggingFaceVLM(Backbone):
    """A checkpoint in Hugging Face layout (see `cluenet.model.families` for the families): a local folder or a hub id."""

    class Config(ComponentConfig):
        path: str = Field(description="Folder, or hub id such as Qwen/Qwen3-VL-2B-Instruct.")
        revision: str | None = Field(None, description="Commit, tag or branch of the hub id.")
        dtype: DType = Field(
            "float32",
            description="Of the weights. Half precision halves their memory: for inference, or under adapters; training in "
            "full wants float32, with train.precision=bf16 to compute faster.",
        )
        attention: Attention = Field(
            "sdpa",
            description="How attention is computed. flash_attention_2 is for the vision tower alone: the decoder's packed "
            "questions need masks that it does not have, and use sdpa. eager is slow, for comparisons.",
        )

    def pretrain(self, context: PretrainContext) -> Path:
        return self._checked()

    def sources(self) -> list[str]:
        return [checkpoint_hash(self._checked())]

    def loading(self) -> dict[str, Any]:
        return {"dtype": self.config.dtype, "attention": self.config.attention}

    def _checked(self) -> Path:
        """All that can be wrong with it is said before weights are read, and before there are workers."""
        return Checkpoint.open(self._folder(), attention=self.config.attention).folder

    def unloaded(self, examples: Sequence[Example], note: Callable[[str], None]) -> VisionLanguageModel:
        texts = (text for example in examples for text in (example.question, *example.options, example.chain or ""))
        return unloaded_model(self._config_folder(), texts=texts, note=note, dtype=self.config.dtype)

    def _config_folder(self) -> Path:
        """Where config.json is on this machine; nothing is downloaded."""
        local = Path(self.config.path).expanduser()
        if local.exists():
            return local
        try:
            found = try_to_load_from_cache(self.config.path, "config.json", revision=self.config.revision)
        except HFValidationError:
            found = None
        if isinstance(found, str):
            return Path(found).parent
        raise CheckpointError(
            f"model.backbone.path: {self.config.path!r} is neither a folder nor a hub id whose config.json is on this machine. "
            f"Planning needs that file alone: hf download {self.config.path} config.json{self._revision_option()}"
        )

    def _folder(self) -> Path:
        local = Path(self.config.path).expanduser()
        if (local / "config.json").is_file():
            return local
        if local.exists():
            raise CheckpointError(f"model.backbone.path: {local} has no config.json; it is not a checkpoint folder.")
        try:
            return Path(snapshot_download(self.config.path, revision=self.config.revision))
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, ValueError, OSError) as error:
            raise CheckpointError(
                f"model.backbone.path: {self.config.path!r} is neither a folder here nor a hub id that can be had "
                f"({type(error).__name__}). Give a folder, or download it first: hf download {self.config.path}"
                f"{self._revision_option()}"
            ) from error

    def _revision_option(self) -> str:
        return "" if self.config.revision is None else f" --revision {self.config.revision}"
