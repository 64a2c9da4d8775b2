"""What extractors without training share: which words may be stated, and clues at chosen visual tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from cluenet.model.clues import ClueStates
from cluenet.model.sight import Sight

_CLOSED_CLASSES = """
    a about above after again all also am an and any anything are around as at be because been before being below
    between both but by can cannot could did do does doing done down during each either else etc ever every few for from
    further get gets getting go goes going got had has have having he her here hers herself him himself his how however i
    if in into is it its itself just let like made make makes many may me might mine more most much must my myself near
    neither no nor not nothing now of off on once one only onto or other others our ours out over own per quite rather
    really same shall she should since so some something still such than that the their theirs them themselves then there
    these they thing things this those though through thus to together too toward towards under until up upon us use used
    using very via was we well were what whatever when where whether which while who whom whose why will with within
    without would yes yet you your yours yourself
"""
STOP_WORDS = frozenset(_CLOSED_CLASSES.split())
"""English words of closed classes, which name nothing that can be seen."""


def clues_at(sight: Sight, tokens_BQK: Tensor, attention_BQKN: Tensor, words_BNC: Tensor) -> ClueStates:
    """Clues that say the words of one visual token each, `when` first; a token of -1 leaves its slot empty."""
    said_BNW = torch.cat([sight.when_BN[..., None], words_BNC], dim=-1)
    index = tokens_BQK.clamp(min=0).flatten(1)[..., None].expand(-1, -1, said_BNW.shape[-1])
    ids_BQKW = said_BNW.gather(1, index).view(*tokens_BQK.shape, -1)
    ids_BQKW = ids_BQKW.masked_fill(tokens_BQK[..., None] < 0, sight.vocabulary.none)
    return ClueStates(None, attention_BQKN, ids_BQKW=ids_BQKW)
