"""Packed questions: who may look at whom, and where each stands."""

from cluenet.model.packing import Segment, branch_start, pack


def test_a_segment_with_branches_sees_common_and_itself_only():
    packed = pack([[Segment([1, 2], ([3, 4], [5])), Segment([6])]], offsets=[10], pad=0)
    assert packed.ids_BL.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert packed.positions_BL.tolist() == [[10, 11, 12, 13, 12, 10]]
    seen = [[column for column, ok in enumerate(row) if ok] for row in packed.allowed_BLL[0].tolist()]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4], [5]]
    assert packed.starts == [[0, 5]]


def test_shorter_rows_are_padded_and_padding_is_seen_by_nobody():
    packed = pack([[Segment([1, 2, 3])], [Segment([4])]], offsets=[0, 7], pad=9)
    assert packed.ids_BL.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert packed.allowed_BLL[1, 0].tolist() == [True, False, False]


def test_branch_start_counts_what_stands_before():
    segment = Segment([1, 2, 3], ([4], [5, 6], [7]))
    assert [branch_start(segment, index) for index in range(3)] == [3, 4, 6]
    assert segment.length == 7
