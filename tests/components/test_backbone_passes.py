"""What silently gives wrong numbers in forward passes of Hugging Face's multimodal models: a test per trap, named after it.
Where Hugging Face's behaviour is the trap, the test shows it too: it fails when a new version has it no longer."""

import pytest
import torch
import torch.nn.functional as F

from cluenet.model.attention_map import attention_map
from cluenet.model.families import FAMILIES
from cluenet.model.grid import Grid
from cluenet.model.hooks import inputs_of
from cluenet.model.shared_prompt import prefix_batch
from cluenet.model.tiny import new_model
from cluenet.model.tiny_tokenizer import fit_tokenizer
from cluenet.model.vision import TowerStates
from cluenet.testing.backbone_pair import ORDINARY_INPUTS, rows_of
from helpers.adapters import adapter, hugging_face, logits_after, prompt_of, text_of
from helpers.models import clip

ONE_AXIS = ("llava_onevision", "internvl", "smolvlm")
families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


# --------------------------------------------------------------------------------------------- 4. two passes


def test_deepstack_is_in_the_states_that_hf_hidden_states_miss():
    vlm, c = adapter("qwen3_vl"), clip(0)
    prompt = prompt_of(vlm, c)
    inputs = vlm._prompt(prompt)
    hidden = vlm.text(**inputs, output_hidden_states=True).hidden_states
    columns = prompt.visual_index_BN[0]
    for layer, missed in enumerate([False, True, True, False]):
        ours = vlm.prefix(prompt, layer=layer, whole=False).visual_BND[0]
        assert torch.allclose(ours, hidden[layer][0, columns], atol=1e-4) == (not missed), layer


@families
def test_ending_a_pass_early_leaves_the_model_as_it_was(family):
    vlm, c = adapter(family), clip(0)
    before = logits_after(vlm, prompt_of(vlm, c), "why ?")
    hooks = [len(module._forward_pre_hooks) for module in vlm.modules()]
    vlm.prefix(prompt_of(vlm, c), layer=1, whole=False)
    vlm.tower(prompt_of(vlm, c).pixels, prompt_of(vlm, c).grid_B3)
    assert [len(module._forward_pre_hooks) for module in vlm.modules()] == hooks
    assert torch.equal(logits_after(vlm, prompt_of(vlm, c), "why ?"), before)


@families
def test_the_lens_of_the_last_states_is_the_prediction(family):
    vlm, c = adapter(family), clip(0)
    prompt = prompt_of(vlm, c)
    top = vlm.prefix(prompt, layer=vlm.layers, whole=True).visual_BND
    states = vlm.read_layers(prompt, lambda states: states)[-1]  # the stack's own output
    assert torch.allclose(vlm.lens(top), vlm.head(states), atol=1e-4 * float(vlm.head(states).abs().max()))


@pytest.mark.parametrize("family", ONE_AXIS)
def test_gaps_in_positions_are_no_borders_of_packed_sequences(family):
    """Without a mask and a cache, as in training, Transformers takes a gap for the start of another sequence."""
    vlm, c = adapter(family), clip(0, frames=3)
    grid = vlm.grid(c.frames_THWC, c.seconds_T)
    kept = torch.ones(grid.tokens, dtype=torch.bool)
    kept[5:20] = False
    prompt = prompt_of(vlm, c, kept=[kept])
    inputs = vlm._prompt(prompt)
    embeds, positions = inputs["inputs_embeds"], prompt.positions_3BP[0]
    ones = torch.ones(embeds.shape[:2], dtype=torch.long)
    wanted, packed = (
        vlm.text(inputs_embeds=embeds, position_ids=positions, attention_mask=mask, use_cache=False).last_hidden_state
        for mask in (ones, None)
    )
    states = vlm.prefix(prompt, layer=vlm.layers, whole=True).visual_BND
    ours = vlm.text.norm(states)[0, prompt.visual_mask_BN[0]]
    columns = prompt.visual_index_BN[0, prompt.visual_mask_BN[0]]
    assert torch.allclose(ours, wanted[0, columns], atol=1e-4)
    assert float((packed - wanted).abs().max()) > 0.1


def test_qwen2_5_text_goes_on_behind_the_highest_position_of_all_axes():
    """As Transformers 4.57 counted and Qwen trained. 5.23 leaves time out, and puts text among the frames of long videos."""
    vlm, hf = adapter("qwen2_5_vl"), hugging_face("qwen2_5_vl")

    def both(seconds):
        grid = Grid(6, 2, 3, tuple(seconds * block for block in range(6)), seconds)
        ids = vlm.video_ids(grid) + vlm.ids("why ?")
        row = torch.tensor([ids])
        theirs, _ = hf.model.get_rope_index(
            row, mm_token_type_ids=(row == vlm.placeholder).int() * 2, video_grid_thw=torch.tensor([[6, 4, 6]]),
            second_per_grid_ts=torch.tensor([seconds]),
        )  # fmt: skip
        return vlm.positions(ids, grid), theirs[:, 0], ids.index(vlm.placeholder), 36

    ours, theirs, first, tokens = both(0.1)  # time does not reach beyond the columns
    assert torch.equal(ours, theirs)
    ours, theirs, first, tokens = both(2.0)  # 4 positions per block: time ends at 20
    behind = slice(first + tokens, None)
    assert torch.equal(ours[:, : first + tokens], theirs[:, : first + tokens])
    assert int(ours[0, first + tokens - 1]) == first + 20
    assert torch.equal(ours[:, behind], first + 21 + torch.arange(ours[:, behind].shape[1]).expand(3, -1))
    assert int(theirs[0, behind][0]) == first + 3


def test_qwen3_positions_are_those_of_hugging_face():
    vlm, hf = adapter("qwen3_vl"), hugging_face("qwen3_vl")
    for rows, cols in ((2, 3), (3, 2)):
        grid = Grid(5, rows, cols, tuple(0.25 + block for block in range(5)), 1.0)
        ids = vlm.video_ids(grid) + vlm.ids("why ?")
        row, patches = torch.tensor([ids]), torch.tensor([[5, 2 * rows, 2 * cols]])
        theirs, _ = hf.model.get_rope_index(
            row, mm_token_type_ids=(row == vlm.placeholder).int() * 2, video_grid_thw=patches
        )  # fmt: skip
        assert torch.equal(vlm.positions(ids, grid), theirs[:, 0])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_positions_left_by_an_earlier_call_are_not_used(family):
    vlm, c = adapter(family), clip(0)
    before = logits_after(vlm, prompt_of(vlm, c), "why ?")
    vlm.hf.model.rope_deltas = torch.tensor([[-50]])
    assert torch.equal(logits_after(vlm, prompt_of(vlm, c), "why ?"), before)


@families
def test_what_stands_around_pruned_frames_goes_too(family):
    vlm, c = adapter(family), clip(0, frames=6)
    grid = vlm.grid(c.frames_THWC, c.seconds_T)
    whole = prompt_of(vlm, c)
    kept = torch.zeros(grid.tokens, dtype=torch.bool)
    kept[grid.per_block + 1] = True  # one token, of the second block
    pruned = prompt_of(vlm, c, kept=[kept])
    assert vlm.tokenizer.decode(pruned.ids_BP[0]) == prompt_with_only(vlm, grid, block=1, tokens=1)
    assert int(pruned.visual_mask_BN.sum()) == 1
    assert pruned.text_starts == whole.text_starts  # the question stands where it stood
    column = int(whole.visual_index_BN[0, grid.per_block + 1])
    mine = int(pruned.visual_index_BN[0, grid.per_block + 1])
    assert torch.equal(pruned.positions_3BP[:, 0, mine], whole.positions_3BP[:, 0, column])


def prompt_with_only(vlm, grid, *, block: int, tokens: int) -> str:
    """By hand: the prompt with so many visual tokens of one block."""
    video = vlm.family.video_text(grid, vlm.labels(grid))
    head, between, _ = vlm.chat_parts()
    pad = vlm.tokenizer.convert_ids_to_tokens(vlm.placeholder)
    return head + video.before + video.blocks[block].replace(pad * grid.per_block, pad * tokens) + video.after + between


@families
def test_pruning_nothing_changes_nothing(family):
    vlm, c = adapter(family), clip(0)
    grid = vlm.grid(c.frames_THWC, c.seconds_T)
    all_of_it = prompt_of(vlm, c, kept=[torch.ones(grid.tokens, dtype=torch.bool)])
    assert torch.equal(logits_after(vlm, all_of_it, "why ?"), logits_after(vlm, prompt_of(vlm, c), "why ?"))


def test_the_newline_of_llava_belongs_to_no_frame():
    vlm, c = adapter("llava_onevision"), clip(0)
    grid, prompt = vlm.grid(c.frames_THWC, c.seconds_T), prompt_of(vlm, c)
    embeds, _ = vlm.encode(prompt.pixels, prompt.grid_B3)
    assert len(embeds) == grid.tokens + 1
    assert torch.equal(embeds[-1], vlm.hf.model.image_newline)
    assert int((prompt.ids_BP == vlm.placeholder).sum()) == grid.tokens + 1
    assert prompt.visual_index_BN.shape[1] == int(prompt.visual_mask_BN.sum()) == grid.tokens
    assert len(vlm.visual_tokens(prompt.pixels, [grid])) == grid.tokens
    kept = torch.zeros(grid.tokens, dtype=torch.bool)
    kept[3] = True
    assert int((prompt_of(vlm, c, kept=[kept]).ids_BP == vlm.placeholder).sum()) == 2  # the token and the newline


def test_an_odd_number_of_patches_is_rounded_up_by_llava():
    """As with released ones: 27 patches along a side, 14 tokens."""
    tokenizer = fit_tokenizer(["red"], blocks=4, max_words=10, family="llava_onevision")
    sizes = {"hidden": 64, "layers": 2, "heads": 2, "vision_hidden": 32, "vision_layers": 1, "patch": 8, "image": 24}
    vlm, c = new_model(tokenizer, family="llava_onevision", seed=0, **sizes).eval(), clip(0)
    prompt, grid = prompt_of(vlm, c), vlm.grid(c.frames_THWC, c.seconds_T)
    assert (prompt.grid_B3.tolist(), grid.rows, grid.cols) == ([[4, 3, 3]], 2, 2)
    assert len(vlm.encode(prompt.pixels, prompt.grid_B3)[0]) == grid.tokens + 1
    assert torch.isfinite(logits_after(vlm, prompt, "red")).all()


def test_qwen2_5_tower_states_are_in_the_order_of_the_prompt():
    """Inside the tower they are sorted by attention window, which would mix clips up."""
    vlm, c = adapter("qwen2_5_vl"), clip(0, frames=4, height=40, width=56)
    prompt = prompt_of(vlm, c)
    with inputs_of([vlm.hf.model.visual.merger], stop_at=vlm.hf.model.visual.merger) as found:
        vlm.hf.model.visual(vlm.processor.normalised(prompt.pixels), grid_thw=prompt.grid_B3)
    states = vlm.tower(prompt.pixels, prompt.grid_B3)
    assert not torch.equal(states.states, found[0])
    wanted = vlm.hf.model.visual(vlm.processor.normalised(prompt.pixels), grid_thw=prompt.grid_B3).pooler_output
    assert torch.allclose(vlm.project(states)[0], wanted, atol=1e-5)


@families
@pytest.mark.parametrize("fast", [False, True])
def test_the_two_steps_of_vision_are_one_of_hugging_faces(family, fast, monkeypatch):
    """Bit for bit, but for the faster forms of `speed.py`, which add in another order."""
    if not fast:
        monkeypatch.setattr("cluenet.model.vlm.use_fast_vision", lambda tower: None)
    vlm, hf, c = adapter(family), hugging_face(family), clip(0, frames=4, height=40, width=56)
    prompt = prompt_of(vlm, c)
    visual = ORDINARY_INPUTS[family](vlm.processor.normalised(prompt.pixels), prompt.grid_B3)
    look = hf.model.get_video_features if "pixel_values_videos" in visual else hf.model.get_image_features
    theirs, (embeds, deepstack) = look(**visual), vlm.project(vlm.tower(prompt.pixels, prompt.grid_B3))
    levels = [rows_of(level) for level in getattr(theirs, "deepstack_features", None) or []]
    for ours, wanted in zip([embeds, *deepstack], [rows_of(theirs.pooler_output), *levels], strict=True):
        assert torch.allclose(ours, wanted, rtol=0, atol=5e-6 if fast else 0)


@families
def test_tower_states_survive_being_written_down(family, tmp_path):
    """For a store of features: clip by clip, in any order."""
    vlm, c = adapter(family), clip(0)
    prompt = prompt_of(vlm, c)
    states = vlm.tower(prompt.pixels, prompt.grid_B3)
    torch.save({"states": states.states, "deepstack": states.deepstack, "rows": states.rows}, tmp_path / "clip.pt")
    again = TowerStates(**torch.load(tmp_path / "clip.pt"))
    for ours, wanted in zip(
        (vlm.project(again)[0], *vlm.project(again)[1]), (vlm.project(states)[0], *vlm.project(states)[1])
    ):
        assert torch.equal(ours, wanted)
    assert len(states.deepstack) == (2 if family == "qwen3_vl" else 0)


# -------------------------------------------------------------------------------------- 6. attention maps


@families
def test_attention_maps_are_hugging_faces_and_the_fast_attention_comes_back(family):
    """Only eager attention has them, for the whole stack: the masks of one layer alone would be of the wrong kind."""
    vlm, c = adapter(family), clip(0)
    prompt = prompt_of(vlm, c)
    prefix = vlm.prefix(prompt, layer=None, whole=True)
    packed, embeds = text_of(vlm, prompt, "why does it move ?")
    before = logits_after(vlm, prompt, "why ?")
    ours = attention_map(vlm, embeds, packed.positions_BL, packed.allowed_BLL, prefix=prefix, layer=3)
    assert torch.equal(logits_after(vlm, prompt, "why ?"), before)
    vlm.text.set_attn_implementation("eager")
    whole = torch.cat([vlm._prompt(prompt)["inputs_embeds"], embeds], dim=1)
    positions = torch.cat([prompt.positions_3BP, packed.positions_BL.expand(3, 1, -1)], dim=-1)
    extra = {}
    if vlm.family.deepstack:
        inputs = vlm._prompt(prompt)
        mask = F.pad(inputs["visual_pos_masks"], (0, embeds.shape[1]))
        extra = {"visual_pos_masks": mask, "deepstack_visual_embeds": inputs["deepstack_visual_embeds"]}
    maps = vlm.text(
        inputs_embeds=whole, attention_mask=torch.ones(whole.shape[:2], dtype=torch.long), output_attentions=True,
        position_ids=positions if vlm.family.multimodal_rope else positions[0], **extra,
    ).attentions  # fmt: skip
    assert torch.allclose(ours, maps[2].mean(1)[:, -embeds.shape[1] :], atol=1e-4)
    assert torch.allclose(ours.sum(-1), torch.ones(ours.shape[:2]), atol=1e-5)


# ------------------------------------------------------------------------------------------------ 8. caches


@families
def test_a_shared_prompt_may_be_used_again_and_again(family):
    """Passes must not write into it: caches of Transformers grow in place."""
    vlm, c = adapter(family), clip(0)
    prompt = prompt_of(vlm, c)
    prefix = vlm.prefix(prompt, layer=None, whole=True)
    before = [(keys.clone(), values.clone()) for keys, values in prefix.keys_values]
    packed, embeds = text_of(vlm, prompt, "why ?")
    passes = [vlm.text_pass(embeds, packed.positions_BL, packed.allowed_BLL, prefix=prefix) for _ in range(2)]
    assert torch.equal(*passes)
    for (keys, values), (k, v) in zip(before, prefix.keys_values):
        assert torch.equal(keys, k)
        assert torch.equal(values, v)


@families
def test_clips_of_one_grid_have_their_prompt_made_once(family, monkeypatch):
    vlm, clips = adapter(family), [clip(0), clip(1), clip(2, frames=3)]
    grids = [vlm.grid(c.frames_THWC, c.seconds_T) for c in clips]
    assert grids[0] == grids[1] != grids[2]
    made, positions = [], vlm.positions
    monkeypatch.setattr(vlm, "positions", lambda ids, grid: made.append(grid) or positions(ids, grid))
    batch = prefix_batch(vlm, clips, grids)
    assert sorted(made, key=grids.index) == [grids[0], grids[2]]
    for number, c in enumerate(clips):
        alone = prompt_of(vlm, c)
        for name in ("ids_BP", "valid_BP", "visual_index_BN", "visual_mask_BN"):
            found, wanted = getattr(batch, name)[number], getattr(alone, name)[0]
            assert torch.equal(found[: len(wanted)], wanted), name
            assert not found[len(wanted) :].any(), name
        assert torch.equal(batch.positions_3BP[:, number, : alone.ids_BP.shape[1]], alone.positions_3BP[:, 0])
