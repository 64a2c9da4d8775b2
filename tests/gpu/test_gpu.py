"""The model on a GPU, and how fast it is there. Without one, or without CUDA in torch, all of this is skipped.

python -m pytest tests/gpu -s        # prints the figures; needs torch, transformers, pydantic, numpy and safetensors alone
"""

from __future__ import annotations

import pytest
import torch

from helpers import gpu_tier
from helpers.gpu_tier import LARGE, SMALL

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch finds no CUDA device")
DEVICE = "cuda"
CLOSE = 1e-3
"""Relative, of losses in fp32 on a GPU and on a CPU."""


@pytest.fixture(scope="module", autouse=True)
def exact_products() -> None:
    """TF32 would round the inputs of matrix products to 10 bits."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]):
    def told(text: str) -> None:
        with capsys.disabled():
            print(f"\n{torch.cuda.get_device_name()}: {text}")

    return told


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_losses_are_those_of_the_cpu(stage: str) -> None:
    here, there = (gpu_tier.train(SMALL, device, stage) for device in (DEVICE, "cpu"))
    assert here.losses == pytest.approx(there.losses, rel=CLOSE)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_speed_and_memory_of_training(stage: str, tell) -> None:
    found = gpu_tier.train(LARGE, DEVICE, stage)
    parameters = sum(p.numel() for p in gpu_tier.model_on(LARGE, DEVICE).parameters())
    tell(f"{stage}, {parameters / 1e6:.0f} M parameters, {LARGE.precision}: {found.tokens_per_second:.0f} tokens/s, "
         f"{found.seconds:.3f} s a step of {found.tokens} tokens, peak {(found.peak or 0) / 2**30:.1f} GiB")  # fmt: skip
    assert all(torch.isfinite(torch.tensor(found.losses)))
    assert (found.peak or 0) > 16 * parameters  # weights, gradients and both moments


def test_questions_share_a_prompt(tell) -> None:
    found = gpu_tier.prefix_reuse(LARGE, DEVICE)
    tell(f"{LARGE.questions} questions about a clip: {1e3 * found.watched_once:.1f} ms each, "
         f"{1e3 * found.watched_each:.1f} ms when each watches it anew")  # fmt: skip
    assert found.answers_agree
    assert found.watched_once < found.watched_each


def test_pruned_prompts(tell) -> None:
    found = gpu_tier.pruning(LARGE, DEVICE)
    tell("prompts of " + ", ".join(f"{tokens} tokens {1e3 * seconds:.1f} ms" for tokens, seconds in found.values()))
    lengths = [tokens for tokens, _ in found.values()]
    assert lengths == sorted(lengths, reverse=True)


def test_the_engine_writes_what_generate_writes() -> None:
    found = gpu_tier.writing(SMALL, DEVICE)
    assert found.ours == found.theirs


def test_speed_of_the_engine_against_generate(tell) -> None:
    found = gpu_tier.writing(LARGE, DEVICE)
    tell(f"{LARGE.questions} open answers about a clip: {found.ours_per_second:.0f} tokens/s, "
         f"generate {found.theirs_per_second:.0f}")  # fmt: skip
    assert len(found.ours) == LARGE.questions
