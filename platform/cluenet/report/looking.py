"""The model itself, asked once more about the examples that a report shows: where each clue looks, and what each does to the options.

`samples.jsonl` does not hold this: attention is a number per visual token and clue, which for thousands of questions would be far
larger than everything else, while a report shows a few dozen. So it is measured when the report is made, from the model
folder, for the shown questions alone. Nothing is shown of a question to which the model says something else than it did
when it was evaluated (other hardware, a changed folder): the report says so instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cluenet.errors import CheckpointError, CluenetError
from cluenet.records import Example, Frames
from cluenet.report.sources import Evaluation, RunData

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.evidence import Evidence
    from cluenet.model.pipeline import ClueNet, Look

Looking: TypeAlias = Literal["auto", "always", "never"]
MOST_PARAMETERS = 300_000_000
"""`auto` asks larger models on an accelerator only: on a CPU a report would take minutes."""
CLIPS_AT_ONCE = 4
OTHERWISE = "The model said something else when this report was made than when it was evaluated, so what it looks at is not shown."

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """A shown question, and what reads the frames of its clip."""

    sample: Sample
    example: Example
    frames: Callable[[], Frames]


@dataclass(frozen=True)
class Seen:
    """What the model does with one question.

    attention: of each stated clue over the visual tokens of a grid of shape (blocks, rows, cols), empty where it has none;
    block_seconds: the middle of each block, from the start of the clip. shown: probabilities of the options, in the stored
    order, with the kept clues; changed: for each stated clue the same without it, or with it too where the filter dropped it.
    Both are empty for questions whose options are not scored.
    """

    shape: tuple[int, int, int]
    block_seconds: tuple[float, ...]
    attention: tuple[tuple[float, ...], ...]
    shown: tuple[float, ...]
    changed: tuple[tuple[float, ...], ...]


def model_of(run: RunData, evaluation: Evaluation, looking: Looking) -> tuple[Path | None, str]:
    """(the folder of the model that was evaluated, why it is not asked). One of them is empty."""
    if looking == "never":
        return None, "The model was not asked again, because of --look never."
    folders = (run.folder / "model", Path(evaluation.manifest.get("model", "")))
    folder = next((folder for folder in folders if (folder / "model_config.json").is_file()), None)
    if folder is None:
        return None, f"The model is not there any more ({folders[0]}), so what it looks at cannot be shown."
    size = sum(value for name, value in run.card.items() if name.endswith("_parameters"))
    if looking == "auto" and size > MOST_PARAMETERS and _device() == "cpu":
        return None, (
            f"The model has {size / 1e6:,.0f} M parameters and there is no accelerator here, so it was not asked again: "
            f"`cluenet report {run.folder} --look always` does so."
        )
    return folder, ""


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def look(folder: Path, asked: Sequence[Asked], manifest: Mapping[str, Any]) -> dict[str, Seen | str]:
    """By question id: what was seen, or why it is not shown. `manifest`: of the evaluation that asked them."""
    try:
        model = _load(folder, manifest)
    except CluenetError as error:
        return dict.fromkeys((one.sample["id"] for one in asked), str(error))
    return {name: seen for group in _by_clip(asked) for name, seen in _looked(model, group)}


def _load(folder: Path, manifest: Mapping[str, Any]) -> ClueNet:
    """As it was evaluated. Raises CheckpointError when it is another model."""
    from cluenet.config.pruning import pruning_of
    from cluenet.model.checkpoint import load_model, model_address

    if model_address(folder) != manifest["model_address"]:
        raise CheckpointError(f"{folder}: another model than was evaluated, so what it looks at is not shown.")
    return load_model(folder, device=_device()).prune(pruning_of(manifest.get("pruning", "none")))


def _by_clip(asked: Sequence[Asked]) -> Iterator[list[list[Asked]]]:
    clips: dict[str, list[Asked]] = {}
    for one in asked:
        clips.setdefault(one.sample["clip"], []).append(one)
    every = list(clips.values())
    yield from (every[start : start + CLIPS_AT_ONCE] for start in range(0, len(every), CLIPS_AT_ONCE))


def _looked(model: ClueNet, clips: Sequence[Sequence[Asked]]) -> Iterator[tuple[str, Seen | str]]:
    """Of one batch, its options in the order in which evaluation showed them."""
    shown = [(clip[0].frames(), [one.example.with_options_in(one.sample["order"]) for one in clip]) for clip in clips]
    batch = model.collate(shown, seed=0, shuffle_options=False).to(_device())
    seen = model.look(batch)
    own = model.own_evidence(batch, seen)
    probabilities = _probabilities(model, batch, seen, own)
    for b, clip in enumerate(clips):
        for q, one in enumerate(clip):
            options = [changed[b][q] for changed in probabilities]
            yield one.sample["id"], _seen(model, batch, own, (b, q), one, options)


def _probabilities(model: ClueNet, batch: Batch, seen: Look, own: Evidence) -> list[list[list[list[float]]]]:
    """[1 + K][B][Q][A] probabilities of the options: with the kept clues, then with each slot the other way round."""
    import torch

    from cluenet.model import evidence

    silence = model.silence(own.ids_BQKW)
    stated = evidence.unfiltered(model, seen).embeds_BQKWD if model.extracts else own.embeds_BQKWD
    turned = torch.where(own.keep_BQK[..., None, None], silence, stated)
    clues = [own.embeds_BQKWD]
    for slot in range(model.slots):
        one = own.embeds_BQKWD.clone()
        one[:, :, slot] = turned[:, :, slot]
        clues.append(one)
    return [model.logprobs_given(batch, seen.prefix, given).exp().tolist() for given in clues]


def _seen(
    model: ClueNet, batch: Batch, own: Evidence, place: tuple[int, int], one: Asked, options: Sequence[Sequence[float]]
) -> Seen | str:
    """`options`: probabilities of this question's, as `_probabilities` has them by change."""
    b, q = place
    grid, slots = batch.grids[b], [slot for slot in range(model.slots) if own.present_BQK[b, q, slot]]
    words = [list(model.collator.vocabulary.decode(own.ids_BQKW[b, q, slot].tolist())) for slot in slots]
    scored = bool(one.sample["options"]) and "reply" not in one.sample
    changes = (
        [_stored(options[change], one.sample["order"]) for change in (0, *(slot + 1 for slot in slots))]
        if scored
        else [()]
    )
    says = max(range(len(changes[0])), key=changes[0].__getitem__) if scored else one.sample["prediction"]
    if words != [clue["words"] for clue in one.sample["clues"]] or says != one.sample["prediction"]:
        return OTHERWISE
    attention = tuple(_attention(own, (b, q, slot), grid.tokens) for slot in slots)
    return Seen((grid.blocks, grid.rows, grid.cols), grid.seconds, attention, changes[0], tuple(changes[1:]))


def _stored(values: Sequence[float], order: Sequence[int]) -> tuple[float, ...]:
    """Values of shown options in the stored order."""
    by_index = dict(zip(order, values))
    return tuple(by_index[index] for index in range(len(order)))


def _attention(own: Evidence, place: tuple[int, int, int], tokens: int) -> tuple[float, ...]:
    if own.attention_BQKN is None:
        return ()
    return tuple(own.attention_BQKN[place][:tokens].float().cpu().tolist())
