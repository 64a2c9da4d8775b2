"""Which weights of the backbone are trained (`train.tuning`): all, adapters of peft, adapters on a 4-bit base.

Adapters are injected in place, so `vlm.hf` stays the model that it was, with layers of peft inside.
"""

from __future__ import annotations

from torch import nn

from cluenet.model.vlm import VisionLanguageModel

ADAPTER_PARTS = (".lora_", ".modules_to_save.")
"""In names of weights: what peft added to the backbone, adapters and layers that are trained whole."""


def has_adapter(vlm: VisionLanguageModel) -> bool:
    return bool(getattr(vlm.hf, "peft_config", None))


def saved_names(model: nn.Module) -> frozenset[str] | None:
    """Names of the entries of `model.state_dict()` that a checkpoint of this ClueNet must hold; None: all of them.

    With adapters these are the adapters, what is trained whole beside them, and all clue parts: the frozen backbone comes
    from the folder it was loaded from. A checkpoint is complete if it has every one of these names, and no other.
    """
    vlm = getattr(model, "vlm", None)
    if vlm is None or not has_adapter(vlm):
        return None
    names = model.state_dict()
    return frozenset(name for name in names if not name.startswith("vlm.") or any(p in name for p in ADAPTER_PARTS))
