"""The model on a GPU computes what it computes on a CPU. Without a GPU, or without CUDA in torch, all of this is skipped; how fast
it is there: tests/bench/bench_gpu.py.

python -m pytest tests/gpu -rs        # needs torch, transformers, pydantic, numpy and safetensors alone
"""

from __future__ import annotations

import pytest
import torch

from cluenet.model.optimizers import orthogonalise
from helpers import gpu_inference
from helpers.gpu_tier import SMALL
from helpers.gpu_training import Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch finds no CUDA device")
DEVICE = "cuda"
CLOSE = 1e-3
"""Relative, of losses in fp32 on a GPU and on a CPU; absolute, of log-probabilities."""


@pytest.fixture(scope="module", autouse=True)
def exact_products() -> None:
    """TF32 would round the inputs of matrix products to 10 bits."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_losses_are_those_of_the_cpu(stage: str) -> None:
    here, there = (Training(SMALL, device, stage, lr=1e-3) for device in (DEVICE, "cpu"))
    losses = [one.ours(one.batch(SMALL.questions)).losses for one in (here, there)]
    assert losses[0] == pytest.approx(losses[1], rel=CLOSE)


def test_questions_share_a_prompt() -> None:
    assert gpu_inference.prefix_reuse(SMALL, DEVICE).farthest < CLOSE


def test_keeping_all_prunes_nothing() -> None:
    found = gpu_inference.pruning(SMALL, DEVICE, questions=SMALL.questions, keeps=(1.0,), times=1)
    for mode in gpu_inference.MODES:
        for one, whole in zip(found[f"{mode} 100%"].answers, found["none"].answers, strict=True):
            assert one.option_logprobs == pytest.approx(whole.option_logprobs, abs=CLOSE)


def test_letters_are_scored_as_hugging_face_scores_them() -> None:
    assert gpu_inference.letters(SMALL, DEVICE, times=1).farthest < CLOSE


def test_the_engine_writes_what_generate_writes() -> None:
    found = gpu_inference.writing(SMALL, DEVICE, questions=SMALL.questions, tokens=SMALL.written, times=1)
    assert found.ours == found.theirs


def test_matrices_are_made_orthogonal_as_on_a_cpu() -> None:
    """In bf16 here, in fp32 there."""
    matrices = torch.randn(3, 64, 192, generator=torch.Generator().manual_seed(0))
    here, there = orthogonalise(matrices.to(DEVICE)), orthogonalise(matrices)
    assert here.dtype == torch.float32
    assert torch.allclose(here.cpu(), there, atol=0.05)


def test_layers_that_are_run_again_give_the_same_gradients() -> None:
    """Gradient checkpointing: backward must find the kernels of the forward pass."""
    norms = []
    for again in (False, True):
        training = Training(SMALL, DEVICE, "stage2", recompute=again)
        training.loss(training.batch(SMALL.questions)).backward()
        norms.append([float(p.grad.norm()) for p in training.model.parameters() if p.grad is not None])
    assert norms[0] == pytest.approx(norms[1], rel=CLOSE, abs=CLOSE)
