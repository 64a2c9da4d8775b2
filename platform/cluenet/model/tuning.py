"""Which weights of the backbone are trained (`train.tuning`): all, adapters of peft, adapters on a 4-bit base.

Adapters are injected in place, so `vlm.hf` stays the model that it was, with layers of peft inside. The clue parts around
the backbone always train.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from cluenet.config.tuning import FullTuning, LoraTuning
from cluenet.errors import Problem, RecipeError, suggestion
from cluenet.model.families import FAMILIES, Family
from cluenet.model.vlm import VisionLanguageModel

if TYPE_CHECKING:
    from peft import LoraConfig

PROJECTIONS = r".*\.(language_model|text_model)\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
"""What gets an adapter by default. Names alone would not do: most families have modules of the same names in the tower."""
ADAPTER_PARTS = (".lora_", ".modules_to_save.")
"""In names of weights: what peft added to the backbone, adapters and modules that are trained whole."""


def tune(vlm: VisionLanguageModel, tuning: FullTuning | LoraTuning) -> None:
    """Freeze or adapt the backbone, in place. Raises RecipeError when `targets` matches no layer of it."""
    if isinstance(tuning, LoraTuning):
        _adapt(vlm, tuning)
        return
    trained = {"vision": tuning.vision, "projector": tuning.projector, "text": True}
    for name, parameter in vlm.hf.named_parameters():
        parameter.requires_grad_(trained[part_of(name, vlm.family)])


def _adapt(vlm: VisionLanguageModel, tuning: LoraTuning) -> None:
    from peft import get_peft_model  # slow to import, and not always wanted
    from peft.utils import ModulesToSaveWrapper

    with quiet():
        get_peft_model(vlm.hf, lora_config(vlm.hf, vlm.family, tuning))
    for wrapper in filter(lambda module: isinstance(module, ModulesToSaveWrapper), vlm.hf.modules()):
        _to_fp32(wrapper.modules_to_save)


@contextmanager
def quiet() -> Iterator[None]:
    """peft asks transformers for a name that transformers is to give up, and would say so to the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _to_fp32(trained: nn.ModuleDict) -> None:
    """Small steps would be lost in weights of half precision; peft does the same for the adapters."""
    for module in trained.float().values():
        module.register_forward_pre_hook(lambda module, inputs: tuple(value.float() for value in inputs))


def recompute_activations(vlm: VisionLanguageModel) -> None:
    """Gradient checkpointing of transformers; decoder layers keep their caches, which are then such that backward may find
    them as they were."""
    vlm.recomputes = True
    vlm.hf.activation_checkpointing_enable({"use_reentrant": False})
    vlm.hf.disable_input_require_grads()  # only reentrant ones need them; a frozen tower would go through backward for nothing
    for layer in vlm.text.layers:
        layer._can_checkpoint_with_cache = True


def part_of(name: str, family: Family) -> str:
    """Whose parameter of the backbone it is: of the language model with its head (`text`), of the `vision` tower, or of the
    `projector`, which is what lies between them."""
    if not name.startswith("model.") or name.startswith(f"{family.text}."):
        return "text"
    in_projector = any(name.startswith(f"{path}.") for path in (family.projector, family.deepstack) if path)
    return "vision" if name.startswith(f"{family.tower}.") and not in_projector else "projector"


# ------------------------------------------------------------------------------------------------------- adapters


def has_adapter(vlm: nn.Module) -> bool:
    return bool(getattr(getattr(vlm, "hf", None), "peft_config", None))


def saved_names(model: nn.Module) -> frozenset[str] | None:
    """Names of the entries of `model.state_dict()` that a checkpoint of this ClueNet must hold; None: all of them.

    With adapters these are the adapters, what is trained whole beside them, and all clue parts: the frozen backbone comes
    from the folder it was loaded from. A checkpoint is complete if it has every one of these names, and no other.
    """
    if not has_adapter(getattr(model, "vlm", model)):
        return None
    return frozenset(
        name for name in model.state_dict() if not name.startswith("vlm.") or any(p in name for p in ADAPTER_PARTS)
    )


def lora_config(hf: nn.Module, family: Family, tuning: LoraTuning) -> LoraConfig:
    """As peft writes it down. Raises RecipeError like `targets_of`."""
    from peft import LoraConfig

    return LoraConfig(
        r=tuning.r, lora_alpha=tuning.alpha, lora_dropout=tuning.dropout, target_modules=targets_of(hf, family, tuning),
        modules_to_save=_projector_modules(hf, family) if tuning.projector else None,
    )  # fmt: skip


def _projector_modules(hf: nn.Module, family: Family) -> list[str]:
    lower = hf.get_submodule(family.deepstack).named_children() if family.deepstack else ()
    return [family.projector, *(f"{family.deepstack}.{name}" for name, _ in lower)]


def check_targets(tuning: FullTuning | LoraTuning, base_folder: str | Path, *, file: str) -> None:
    """Whether the adapters of recipe `file` find their layers in this base, from its config alone, without weights.

    Raises RecipeError like `targets_of`."""
    if isinstance(tuning, FullTuning):
        return
    config = AutoConfig.from_pretrained(base_folder)
    with torch.device("meta"):
        hf = AutoModelForImageTextToText.from_config(config)
    targets_of(hf, FAMILIES[config.model_type], tuning, file=file)


def targets_of(hf: nn.Module, family: Family, tuning: LoraTuning, *, file: str = "recipe") -> list[str]:
    """Names of the linear layers that get an adapter: of the language model, and with `vision` of the tower.

    Raises RecipeError for a target that matches none of them, with names that are like it.
    """
    text, tower = _linear_layers(hf, family)
    offered = [*text, *tower] if tuning.vision else text
    if tuning.targets is None:
        return [name for name in offered if name in tower or re.fullmatch(PROJECTIONS, name)]
    wanted = [tuning.targets] if isinstance(tuning.targets, str) else tuning.targets
    matches = re.fullmatch if isinstance(tuning.targets, str) else _is_called
    if lost := [one for one in wanted if not any(matches(one, name) for name in offered)]:
        in_tower = [] if tuning.vision else [name for name in tower if matches(lost[0], name)]
        raise RecipeError(file, [Problem("train.tuning.targets", _no_match(lost[0], offered, in_tower))])
    return [name for name in offered if any(matches(one, name) for one in wanted)]


def _linear_layers(hf: nn.Module, family: Family) -> tuple[list[str], list[str]]:
    """Names in the language model and in the tower, the projector left out."""
    names = [name for name, module in hf.named_modules() if isinstance(module, nn.Linear)]
    text = [name for name in names if name.startswith(f"{family.text}.")]
    return text, [name for name in names if part_of(f"{name}.", family) == "vision"]


def _is_called(wanted: str, name: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def _no_match(wanted: str, offered: Sequence[str], in_tower: Sequence[str]) -> str:
    if in_tower:
        return (
            f"{wanted!r} matches {len(in_tower)} layers of the vision tower, such as {in_tower[0]}, and none of the language "
            "model. Set train.tuning.vision to true to adapt the tower too"
        )
    last = {name.rpartition(".")[2] for name in offered}
    whole = {re.sub(r"\.\d+\.", ".0.", name) for name in offered}
    hint = suggestion(wanted, last, label="Layers are called") if wanted.isidentifier() else suggestion(wanted, whole)
    return f"{wanted!r} matches no linear layer. {hint}"


# --------------------------------------------------------------------------------------------- groups of parameters


def groups_of(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The trained parameters of a ClueNet by whose they are: `gate`, `clues`, `projector`, `vision`, `text`."""
    groups: dict[str, list[nn.Parameter]] = {"gate": [], "clues": [], "projector": [], "vision": [], "text": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[_group_of(name, model.vlm.family)].append(parameter)
    return groups


def _group_of(name: str, family: Family) -> str:
    if name.startswith("vlm.hf."):
        return part_of(name.removeprefix("vlm.hf."), family)
    return "gate" if name.startswith("filter.") else "clues"


def adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Both factors of every adapter."""
    return [parameter for name, parameter in model.named_parameters() if ".lora_" in name]


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Of a ClueNet: all of the backbone with its adapters, all clue parts, and those of both that are trained."""
    counts = {"backbone_parameters": 0, "clue_parameters": 0, "trainable_parameters": 0}
    for name, parameter in model.named_parameters():
        if ".original_module." in name:  # peft keeps what a layer was before it was trained
            continue
        count = parameter.numel() * (2 if type(parameter).__name__ == "Params4bit" else 1)  # two weights in each byte
        counts["backbone_parameters" if name.startswith("vlm.") else "clue_parameters"] += count
        counts["trainable_parameters"] += count if parameter.requires_grad else 0
    return counts
