"""Which visual tokens the answer pass sees, question by question (`pruning` of `evaluate:` and `serve:`), at inference only.

Clues are extracted from the whole video. Then every question becomes a row of its own, with the prompt of its kept tokens:
`two_pass` runs that prompt through the decoder, `kv_select` takes its rows of the clip's key-value cache. What is kept has the
positions that it had, and so has the question. What the prompt says around blocks of which nothing is kept goes too.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cluenet.config.pruning import KvSelect, NoPruning, Pruning, TwoPass
from cluenet.errors import CluenetError
from cluenet.model.attention_map import at_visual_tokens, attention_map
from cluenet.model.evidence import Evidence, question_seeds
from cluenet.model.padding import stacked
from cluenet.model.prefix import Prefix
from cluenet.model.shared_prompt import PrefixBatch, PrunedPrefixBatch, pruned_batch

if TYPE_CHECKING:
    from cluenet.model.batch import Batch
    from cluenet.model.pipeline import ClueNet


def check(model: ClueNet, pruning: Pruning) -> None:
    """Raises CluenetError where the model cannot be pruned so."""
    if problem := pruning.misfit(model.reasoner.config, model.extractor.config):
        raise CluenetError(f"{problem}.")
    layer = _layer_of_attention(pruning)
    if layer > model.vlm.layers:
        raise CluenetError(
            f"pruning.layer: is {layer}, but the backbone has {model.vlm.layers} decoder layers. Lower it."
        )


def _layer_of_attention(pruning: Pruning) -> int:
    """Up to which the decoder must run for it; 0 where none is read."""
    return 0 if isinstance(pruning, NoPruning) or pruning.by != "attention" else pruning.attention_layer


# ------------------------------------------------------------------------------------------------- the first pass


def first_pass(model: ClueNet, prompts: PrefixBatch, pruning: TwoPass) -> Prefix:
    """What a second pass needs of the first: the decoder only up to where clues, or attention, are read; and what the
    decoder takes of the video."""
    visual = model.vlm.visual_inputs(prompts)
    read = _layer_of_attention(pruning)
    layer = model.extractor.layer if model.extracts else read
    whole = model.filter.sees_answer or read > layer
    prefix = model.vlm.prefix(prompts, layer=layer, whole=whole, visual=visual)
    prefix.visual_inputs_SBMD = _by_clip(visual, prompts.ids_BP.eq(model.vlm.placeholder) & prompts.valid_BP)
    return prefix


def _by_clip(visual: list[Tensor], is_visual_BP: Tensor) -> Tensor:
    """[S, B, M, D] of inputs that stand one clip behind the other."""
    clips = torch.stack(visual).split(is_visual_BP.sum(1).tolist(), dim=1)
    return stacked([clip[:, None] for clip in clips], 1)


# -------------------------------------------------------------------------------------------------- what is kept


def kept_tokens(
    model: ClueNet, batch: Batch, prefix: Prefix, read: Evidence, pruning: TwoPass | KvSelect
) -> list[Tensor]:
    """Bool [N], on the CPU, for every question in the order of `batch.examples`: exactly `pruning.count(N)` are kept."""
    scores_BQN = _scores(model, batch, prefix, read, pruning).float().cpu()
    seeds = question_seeds(batch, pruning.seed)
    return [
        _kept(scores_BQN[b, q, : batch.grids[b].tokens], int(seeds[b, q]), pruning)
        for b, clip in enumerate(batch.clips)
        for q in range(len(clip))
    ]


def _scores(model: ClueNet, batch: Batch, prefix: Prefix, read: Evidence, pruning: TwoPass | KvSelect) -> Tensor:
    """[B, Q, N]: how much of a token's worth is known from looking; 0 for `random` and `uniform`."""
    if pruning.by == "clues" and read.attention_BQKN is not None:
        return (read.attention_BQKN * (read.keep_BQK & read.present_BQK)[..., None]).sum(2)
    if pruning.by == "attention":
        return _last_tokens_attention(model, batch, prefix, read, pruning.attention_layer)
    return torch.zeros(*batch.valid_BQ.shape, batch.prefix.visual_mask_BN.shape[1])


def _last_tokens_attention(model: ClueNet, batch: Batch, prefix: Prefix, read: Evidence, layer: int) -> Tensor:
    """Of the prompt's last token, mean over heads: what FastV's code ranks visual tokens by (pkunlp-icler/FastV)."""
    rows, chains = batch.answer, model.reasoner.config.generate_chain
    embeds = model.answer_inputs(batch, read.embeds_BQKWD)
    map_BLS = attention_map(
        model.vlm, embeds, rows.packed.positions_BL, rows.packed.allowed_BLL, prefix=prefix, layer=layer
    )
    return at_visual_tokens(map_BLS, rows.chain_index_BQ if chains else rows.answer_index_BQ, batch.prefix)


def _kept(scores_N: Tensor, seed: int, pruning: TwoPass | KvSelect) -> Tensor:
    generator, tokens = torch.Generator().manual_seed(seed), len(scores_N)
    count = pruning.count(tokens)
    if pruning.by == "random":
        return _marked(torch.randperm(tokens, generator=generator)[:count], tokens)
    return highest(scores_N, count, first=spread(tokens, count, generator))


def highest(scores_N: Tensor, count: int, *, first: Tensor) -> Tensor:
    """Bool [N]: so many of the highest scores; of equal ones those in `first`, bool [N], come before the others."""
    order = first.int().argsort(descending=True, stable=True)
    order = order[scores_N[order].argsort(descending=True, stable=True)]
    return _marked(order[:count], len(scores_N))


def spread(tokens: int, count: int, generator: torch.Generator) -> Tensor:
    """Bool [N]: one token, drawn, of each of `count` stretches that the video is cut into (stratified sampling). The stretches
    are of equal length, give or take a token, in the order of time, rows and columns."""
    edges = torch.arange(count + 1) * tokens // count
    lengths = edges.diff()
    drawn = (torch.rand(count, generator=generator) * lengths).long().minimum(lengths - 1)
    return _marked(edges[:-1] + drawn, tokens)


def _marked(index: Tensor, tokens: int) -> Tensor:
    return torch.zeros(tokens, dtype=torch.bool).index_fill(0, index, True)


# ----------------------------------------------------------------------------------------------- the answer's rows


def pruned(
    model: ClueNet, batch: Batch, prefix: Prefix | None, read: Evidence
) -> tuple[Batch, Prefix | None, Evidence]:
    """The same questions with what each sees: one row per question, in the order of `batch.examples`. Where nothing is pruned,
    what came in."""
    pruning = model.pruning
    if isinstance(pruning, NoPruning) or prefix is None:
        return batch, prefix, read
    device, (clip_R, place_R) = batch.valid_BQ.device, batch.valid_BQ.nonzero(as_tuple=True)
    grids = [batch.grids[b] for b in clip_R.tolist()]
    prompts = pruned_batch(model.vlm, grids, kept_tokens(model, batch, prefix, read, pruning))
    alone = model.collator.questions(prompts, grids, [[example] for example in batch.examples]).to(device)
    twice = isinstance(pruning, TwoPass)
    seen = _again(model, alone, prefix, clip_R) if twice else _selected(alone, prefix, clip_R)
    return alone, seen, _of_questions(read, clip_R, place_R)


def _again(model: ClueNet, batch: Batch, prefix: Prefix, clip_R: Tensor) -> Prefix:
    """The kept tokens of every row, run through the decoder. clip_R: the rows' clips."""
    assert prefix.visual_inputs_SBMD is not None
    extra, clips = model.vlm.family.extra_tokens, list(zip(clip_R.tolist(), batch.grids))
    visual = [
        torch.cat([level_BMD[b, : grid.tokens + extra] for b, grid in clips]) for level_BMD in prefix.visual_inputs_SBMD
    ]
    return model.vlm.prefix(batch.prefix, layer=None, whole=True, visual=visual)


def _selected(batch: Batch, prefix: Prefix, clip_R: Tensor) -> Prefix:
    """The kept tokens' rows of their clips' caches; rotary positions are in the keys already."""
    assert isinstance(batch.prefix, PrunedPrefixBatch)
    rows = clip_R[:, None], slice(None), batch.prefix.columns_BP
    keys_values = [(keys[rows].transpose(1, 2), values[rows].transpose(1, 2)) for keys, values in prefix.keys_values]
    return Prefix(keys_values, batch.prefix.valid_BP, None, batch.prefix.visual_mask_BN)


def _of_questions(read: Evidence, clip_R: Tensor, place_R: Tensor) -> Evidence:
    """[R, 1, ...] of [B, Q, ...]."""
    values = {item.name: getattr(read, item.name) for item in fields(read)}
    return Evidence(**{name: None if v is None else v[clip_R, place_R][:, None] for name, v in values.items()})
