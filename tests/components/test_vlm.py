"""The adapter against Hugging Face's own forward pass, and its shared prefix against separate runs."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForImageTextToText

from cluenet.errors import CheckpointError
from cluenet.model.batch import Collator
from cluenet.model.packing import Segment, pack
from cluenet.model.vlm import VisionLanguageModel
from helpers.models import base_folder, clip, example, tiny_model


@pytest.fixture(scope="module")
def vlm():
    return VisionLanguageModel.load(base_folder()).eval()


def prefix_of(vlm, clips, *, layer=None, whole=True):
    grids = [vlm.grid(c.frames_THWC, c.seconds_T) for c in clips]
    collator = Collator(vlm, slots=0, words=2, extracts=False, sees_video=True, letters=True)
    batch = collator.prefix(clips, grids)
    return vlm.prefix(batch, layer=layer, whole=whole), batch.text_starts, grids, batch


def text_after(vlm, prefix, starts, texts):
    packed = pack([[Segment(ids)] for ids in texts], offsets=starts, pad=0)
    embeds = F.embedding(packed.ids_BL, vlm.embeddings_VD)
    return vlm.text_pass(embeds, packed.positions_BL, packed.allowed_BLL, prefix=prefix)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(4, 32, 48), (3, 32, 32), (1, 16, 16)])
def test_equals_the_ordinary_forward_pass(vlm, shape):
    frames, height, width = shape
    c = clip(1, frames=frames, height=height, width=width)
    prefix, starts, (grid,), batch = prefix_of(vlm, [c])
    question = vlm.ids("which one hits red ?") + vlm.ids("<answer>")
    ours = vlm.head(text_after(vlm, prefix, starts, [question]))[0]
    ids = torch.tensor([vlm.video_ids(grid) + question])
    theirs = AutoModelForImageTextToText.from_pretrained(base_folder(), dtype=torch.float32).eval()(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values_videos=vlm.processor.normalised(batch.pixels),
        video_grid_thw=batch.grid_B3, mm_token_type_ids=(ids == vlm.placeholder).int() * 2,
    ).logits[0, -len(question) :]  # fmt: skip
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_pixels_are_in_the_order_of_the_hf_processor(vlm):
    """Against the definition, patch by patch: blocks of 2 x 2 patches are contiguous, channels before time before y, x."""
    c = clip(2, frames=4, height=32, width=48)
    grid = vlm.grid(c.frames_THWC, c.seconds_T)
    patches = vlm.pixels(c.frames_THWC, grid)
    row = 0
    for block in range(grid.blocks):
        for token_row in range(grid.rows):
            for token_col in range(grid.cols):
                for inner_y in range(2):
                    for inner_x in range(2):
                        y, x = (token_row * 2 + inner_y) * 8, (token_col * 2 + inner_x) * 8
                        cut = c.frames_THWC[block * 2 : block * 2 + 2, y : y + 8, x : x + 8].astype(np.float32)
                        wanted = (cut / 127.5 - 1).transpose(3, 0, 1, 2).reshape(-1)
                        assert np.allclose(patches[row].numpy(), wanted, atol=1e-5)
                        row += 1
    assert row == len(patches)


@torch.no_grad()
def test_visual_states_do_not_depend_on_the_question_and_stopping_early_changes_nothing(vlm):
    c = clip(3)
    stopped, *_ = prefix_of(vlm, [c], layer=2, whole=False)
    whole, starts, _, _ = prefix_of(vlm, [c], layer=2, whole=True)
    assert torch.equal(stopped.visual_BND, whole.visual_BND)
    assert len(stopped.keys_values) == 2
    assert len(whole.keys_values) == vlm.layers
    before = [k.clone() for k, _ in whole.keys_values]
    text_after(vlm, whole, starts, [vlm.ids("why does it move ?")])
    assert all(torch.equal(a, k) for a, (k, _) in zip(before, whole.keys_values))


@torch.no_grad()
def test_ragged_clips_equal_single_ones(vlm):
    clips = [clip(4, frames=4), clip(5, frames=2, height=32, width=32)]
    texts = [vlm.ids("which one hits red ?"), vlm.ids("why ?")]
    prefix, starts, _, _ = prefix_of(vlm, clips, layer=1)
    together = text_after(vlm, prefix, starts, texts)
    for i, (c, text) in enumerate(zip(clips, texts)):
        single, start, (grid,), _ = prefix_of(vlm, [c], layer=1)
        alone = text_after(vlm, single, start, [text])
        assert torch.allclose(together[i, : len(text)], alone[0], atol=1e-5)
        assert torch.allclose(prefix.visual_BND[i, : grid.tokens], single.visual_BND[0], atol=1e-5)
        assert int(prefix.visual_mask_BN[i].sum()) == grid.tokens


@torch.no_grad()
def test_packed_questions_equal_separate_ones(vlm):
    prefix, starts, _, _ = prefix_of(vlm, [clip(6)])
    texts = [vlm.ids("which one hits red ?"), vlm.ids("why does it move itself ?"), vlm.ids("why ?")]
    packed = pack([[Segment(ids) for ids in texts]], offsets=starts, pad=0)
    out = vlm.text_pass(
        F.embedding(packed.ids_BL, vlm.embeddings_VD), packed.positions_BL, packed.allowed_BLL, prefix=prefix
    )
    for start, ids in zip(packed.starts[0], texts):
        alone = text_after(vlm, prefix, starts, [ids])
        assert torch.allclose(out[0, start : start + len(ids)], alone[0], atol=1e-5)


def test_attention_on_a_gpu_needs_no_plan_for_every_length():
    torch.backends.cuda.enable_cudnn_sdp(True)
    VisionLanguageModel.load(base_folder())
    assert not torch.backends.cuda.cudnn_sdp_enabled()


@torch.no_grad()
def test_fast_vision_is_exact(vlm):
    _, _, _, batch = prefix_of(vlm, [clip(7), clip(8)])
    plain = AutoModelForImageTextToText.from_pretrained(base_folder(), dtype=torch.float32).eval()
    wanted = plain.model.visual(vlm.processor.normalised(batch.pixels), grid_thw=batch.grid_B3).pooler_output
    assert torch.allclose(vlm.encode(batch.pixels, batch.grid_B3)[0], wanted, atol=1e-5)


def test_an_odd_frame_is_repeated_and_times_are_the_middles_of_blocks(vlm):
    c = clip(9, frames=3)
    grid = vlm.grid(c.frames_THWC, c.seconds_T)
    assert (grid.blocks, grid.seconds) == (2, (0.125, 0.5))
    doubled = np.concatenate([c.frames_THWC, c.frames_THWC[-1:]])
    assert torch.equal(vlm.pixels(c.frames_THWC, grid), vlm.pixels(doubled, grid))


def test_other_sizes_are_resized_to_whole_tokens(vlm):
    c = clip(10, height=30, width=50)
    grid = vlm.grid(c.frames_THWC, c.seconds_T)
    assert (grid.rows, grid.cols) == (2, 3)
    assert len(vlm.pixels(c.frames_THWC, grid)) == grid.tokens * 4


def test_save_and_load_are_exact_and_normalisation_comes_from_the_folder(vlm, tmp_path):
    vlm.save(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]})
    )
    again = VisionLanguageModel.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(vlm.state_dict().values(), again.state_dict().values()))
    assert again.processor.mean == (0.1, 0.2, 0.3)
    assert again.ids("which one hits red ?") == vlm.ids("which one hits red ?")


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        VisionLanguageModel.load(tmp_path)


def test_muon_gets_the_hidden_matrices_only():
    model = tiny_model()
    chosen = {id(p) for p in model.matrix_parameters()}
    names = {name for name, p in model.named_parameters() if id(p) in chosen}
    assert "extractor.blocks.0.query.weight" in names
    assert any("visual.blocks.0" in name for name in names)
    assert not any(word in name for name in names for word in ("embed", "norm", "gate.mlp", "queries", "bias"))
    assert example().answer_text in example().options
