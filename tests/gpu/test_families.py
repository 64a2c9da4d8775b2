"""All five families on a GPU: the conformance suite against Hugging Face's own code on the same device."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers.checkpoints import FAMILIES, checkpoint

for needed in ("peft", "num2words"):
    pytest.importorskip(needed)
from cluenet.testing import conformance  # noqa: E402 - it imports them

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch finds no CUDA device")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, family: str) -> None:
    if family == "smolvlm" and "lanczos" not in (F.interpolate.__doc__ or ""):
        pytest.skip(f"torch {torch.__version__} does not resize with lanczos, as SmolVLM wants it")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    check(checkpoint(family), "cuda")
