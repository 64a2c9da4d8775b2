"""A small transformer that reads questions and options and sees no video: what it can do, the words alone give away."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cluenet.records import Example

PAD, UNKNOWN, OPTION = range(3)
WIDTH, HEADS, LAYERS = 64, 4, 2
BATCH, PEAK, WARM_UP = 128, 2e-3, 60


class NeuralReader(nn.Module):
    """Reads `question <option> words <option> words ...` at once; the state at each <option> scores that option.

    So it knows every word of every option, and the option's place, when it scores one.
    """

    def __init__(self, examples: Sequence[Example], *, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        known = {word for example in examples for text in (example.question, *example.options) for word in text.split()}
        self.words = {word: i for i, word in enumerate(sorted(known), start=OPTION + 1)}
        self.length = max(len(self._tokens(example)) for example in examples)
        self.embedding = nn.Embedding(OPTION + 1 + len(known), WIDTH, padding_idx=PAD)
        self.place = nn.Parameter(torch.randn(self.length, WIDTH) * 0.1)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.score = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 1))

    def _tokens(self, example: Example) -> list[int]:
        ids = [self.words.get(word, UNKNOWN) for word in example.question.split()]
        for option in example.options:
            ids += [OPTION, *(self.words.get(word, UNKNOWN) for word in option.split())]
        return ids

    def encode(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """Token ids [N, L], and the column of the right option's <option> [N]. Longer rows than in training are an error."""
        ids_NL = torch.full((len(examples), self.length), PAD)
        right_N = torch.zeros(len(examples), dtype=torch.long)
        for row, example in enumerate(examples):
            tokens = self._tokens(example)
            ids_NL[row, : len(tokens)] = torch.tensor(tokens)
            right_N[row] = (ids_NL[row] == OPTION).nonzero()[example.answer]
        return ids_NL, right_N

    def forward(self, ids_NL: Tensor) -> Tensor:
        """[N, L] scores, -inf in every column that is no <option>"""
        states = self.encoder(self.embedding(ids_NL) + self.place, src_key_padding_mask=ids_NL == PAD)
        return self.score(states)[..., 0].masked_fill(ids_NL != OPTION, -math.inf)

    def fit(self, examples: Sequence[Example], *, epochs: int) -> list[float]:
        """AdamW under a cosine that ends at 0, so that it has converged at the end. Mean loss of every epoch."""
        ids_NL, right_N = self.encode(examples)
        optimizer = torch.optim.AdamW(self.parameters(), lr=PEAK, weight_decay=0.01)
        steps, step, losses = epochs * -(-len(examples) // BATCH), 0, []
        for _ in range(epochs):
            total = 0.0
            for rows in torch.randperm(len(examples)).split(BATCH):
                for group in optimizer.param_groups:
                    group["lr"] = PEAK * min(1.0, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2
                loss = F.cross_entropy(self(ids_NL[rows]), right_N[rows])
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters(), 1.0)
                optimizer.step()
                total, step = total + loss.item() * len(rows), step + 1
            losses.append(total / len(examples))
        return losses

    @torch.no_grad()
    def hits(self, examples: Sequence[Example]) -> np.ndarray:
        """1.0 for each question that is answered right, else 0.0."""
        ids_NL, right_N = self.encode(examples)
        chosen = torch.cat([self(part).argmax(-1) for part in ids_NL.split(512)])
        return chosen.eq(right_N).numpy().astype(np.float64)
