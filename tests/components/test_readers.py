"""Every reader, third parties' included: frame 17 is frame 17, in every kind of file, and all readers say the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cluenet.contracts import Reader
from cluenet.errors import DataError, MediaError
from cluenet.registry import register
from cluenet.testing.videos import (
    counting_frames,
    write_audio_only,
    write_empty,
    write_frame_folder,
    write_garbage,
    write_truncated,
    write_video,
)
from cluenet_components.readers import _small, decord, pyav
from helpers.readers import COUNT, EXACT, FPS, HARD, SPREAD, UNEVEN, numbers, opened, video_of_kind

READERS = (decord.DecordReader.name, pyav.PyavReader.name)
readers = pytest.mark.parametrize("reader", READERS)


@pytest.fixture(params=["auto", "seek", "scan", "small"])
def strategy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of `pyav`. small: `auto` where every file counts as small, so that its frames are kept as it is opened."""
    if request.param == "small":
        monkeypatch.setattr(_small, "SMALL_PIXELS", 2**30)
    return "auto" if request.param == "small" else request.param


@pytest.fixture(scope="module")
def frames_THWC() -> np.ndarray:
    return counting_frames(COUNT, height=64, width=96)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`video("b_frames.mp4")` is made once."""
    return partial(video_of_kind, tmp_path_factory.mktemp("videos"))


# ------------------------------------------------------------------------------------------------- exact frames


@readers
@pytest.mark.parametrize("name", EXACT)
def test_frames_are_the_ones_asked_for(video, reader: str, name: str) -> None:
    with opened(reader, video(name)) as file:
        assert len(file.seconds_F) == COUNT
        assert (file.height, file.width) == (64, 96)
        assert numbers(file.frames(SPREAD, None)) == SPREAD
        assert numbers(file.frames([3], None)) == [3], "and backwards, in a second call"


@pytest.mark.parametrize("name", HARD)
def test_pyav_is_exact_where_decord_is_not(video, name: str) -> None:
    first = HARD[name].get("trim_frames", 0)
    count = COUNT - first
    with opened("pyav", video(name)) as file:
        assert len(file.seconds_F) == count
        assert np.allclose(file.seconds_F, np.arange(count) / FPS, atol=1e-3)
        wanted = [index for index in SPREAD if index < count]
        assert numbers(file.frames(wanted, None)) == [index + first for index in wanted]
        assert numbers(file.frames(range(count), None)) == list(range(first, COUNT))


@pytest.mark.parametrize("name", HARD)
def test_decord_refuses_what_it_would_get_wrong(video, name: str) -> None:
    with pytest.raises(MediaError, match="use the reader pyav") as error:
        opened("decord", video(name))
    assert error.value.reason == "unsupported"


@pytest.mark.parametrize("name", [*EXACT, *HARD])
def test_every_strategy_of_pyav_gives_the_same(video, frames_THWC, name: str, strategy: str) -> None:
    first = {**EXACT, **HARD}[name].get("trim_frames", 0)
    with opened("pyav", video(name), strategy=strategy) as file:
        for wanted in ([40], [2], [0, 30, 54], [11, 12, 13], [len(file.seconds_F) - 1]):
            assert numbers(file.frames(wanted, None)) == [index + first for index in wanted]


def test_seeking_decodes_less_and_auto_takes_the_cheaper_way(video) -> None:
    def decoded(name: str, strategy: str, wanted: Sequence[int]) -> int:
        with opened("pyav", video(name), strategy=strategy) as file:
            file.frames(wanted, None)
            return file.frames_decoded  # type: ignore[attr-defined]

    assert decoded("constant.mp4", "scan", [50]) == 51
    assert decoded("constant.mp4", "seek", [50]) <= 12
    assert decoded("constant.mp4", "auto", [50]) <= 12
    assert decoded("open_gop.mp4", "seek", [50]) <= 20, "an open group's key frame will do"
    assert decoded("refresh.mp4", "seek", [50]) == 51, "a picture that is refreshed bit by bit has no second start"
    everything = range(COUNT)
    assert decoded("constant.mp4", "auto", everything) == COUNT, "no seek where all frames are wanted"
    assert decoded("one_gop.mp4", "auto", [50]) == 51, "no key frame to seek to"


# ------------------------------------------------------------------------------------------------------- values


@readers
def test_times_are_those_of_a_variable_rate(video, reader: str) -> None:
    with opened(reader, video("uneven.mp4")) as file:
        assert np.allclose(file.seconds_F, UNEVEN, atol=1e-3)
        assert file.duration_seconds >= UNEVEN[-1]


@readers
def test_times_start_at_zero_and_end_with_the_duration(video, reader: str) -> None:
    with opened(reader, video("ntsc.mp4")) as file:
        assert file.seconds_F[0] == 0
        assert (np.diff(file.seconds_F) > 0).all()
        assert np.allclose(file.seconds_F, np.arange(COUNT) * 1001 / 30000, atol=1e-4)
        assert file.duration_seconds == pytest.approx(COUNT * 1001 / 30000, abs=1e-3)


@readers
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied_to_pixels_and_size(tmp_path: Path, frames_THWC, reader: str, rotation: int) -> None:
    """Stored turned clockwise and marked to be turned back: shown, the frames are upright."""
    stored = np.rot90(frames_THWC, k=-rotation // 90, axes=(1, 2))
    path = write_video(tmp_path / "turned.mp4", stored, fps=FPS, gop=12, rotation=rotation)
    with opened(reader, path) as file:
        assert (file.height, file.width) == (64, 96)
        assert numbers(file.frames(SPREAD, None)) == SPREAD
        small = file.frames([17, 18], (40, 80))
        assert small.shape == (2, 40, 80, 3)
        assert numbers(small) == [17, 18]


@readers
def test_odd_sizes(tmp_path: Path, reader: str) -> None:
    path = write_video(tmp_path / "odd.mp4", counting_frames(9, height=63, width=97), pixel_format="yuv444p")
    with opened(reader, path) as file:
        assert (file.height, file.width) == (63, 97)
        assert file.frames([4], None).shape == (1, 63, 97, 3)
        assert numbers(file.frames([4, 8], None)) == [4, 8]


@readers
@pytest.mark.parametrize("size", [(32, 48), (33, 47), (24, 16), (32, 72), (128, 96)])
def test_resized_while_decoding(video, reader: str, size: tuple[int, int]) -> None:
    with opened(reader, video("b_frames.mp4")) as file:
        resized = file.frames([17, 40], size)
        assert resized.shape == (2, *size, 3)
        assert resized.dtype == np.uint8
        assert numbers(resized) == [17, 40]
        assert file.frames([17], None).shape == (1, 64, 96, 3), "a size holds for one call"


def test_decord_at_every_narrow_width(video) -> None:
    """decord pads the rows of narrow pictures, and takes the padding for channels at some widths."""
    with opened("decord", video("constant.mp4")) as file:
        for width in range(8, 132, 4):
            assert numbers(file.frames([9, 40], (32, width))) == [9, 40], width


@readers
def test_repeats_are_repeated(video, reader: str) -> None:
    with opened(reader, video("constant.mp4")) as file:
        assert numbers(file.frames([5, 5, 6, 6, 6, 59], None)) == [5, 5, 6, 6, 6, 59]


def natural_frames(count: int = 12) -> np.ndarray:
    """Smooth colours that move: what a resize and a colour conversion can get wrong."""
    y, x = np.mgrid[0:72, 0:128] / 20
    waves = [np.stack([np.sin(x + t / 5), np.sin(y - t / 7), np.sin(x + y + t / 3)], -1) for t in range(count)]
    return ((np.stack(waves) + 1) * 127).astype(np.uint8)


@pytest.mark.parametrize(("size", "most"), [(None, 2), ((36, 64), 3), ((48, 80), 3), ((144, 256), 3)])
def test_readers_agree_on_pixels_and_times(tmp_path: Path, size: tuple[int, int] | None, most: int) -> None:
    path = write_video(tmp_path / "waves.mp4", natural_frames(), fps=FPS, bframes=2)
    with opened("decord", path) as one, opened("pyav", path) as other:
        assert np.array_equal(one.seconds_F, other.seconds_F)
        assert one.duration_seconds == other.duration_seconds
        difference = one.frames([0, 5, 11], size).astype(int) - other.frames([0, 5, 11], size)
        assert np.abs(difference).max() <= most


# ------------------------------------------------------------------------------------------------ frame folders


@readers
@pytest.mark.parametrize("pattern", ["%05d.png", "%05d.jpg", "frame_%d.png"])
def test_folder_of_numbered_images(tmp_path: Path, reader: str, pattern: str) -> None:
    folder = write_frame_folder(tmp_path / "frames", counting_frames(12, height=64, width=96), pattern=pattern)
    with opened(reader, folder, fps=4) as file:
        assert file.seconds_F.tolist() == [i / 4 for i in range(12)]
        assert file.duration_seconds == 3
        assert (file.height, file.width) == (64, 96)
        assert numbers(file.frames([0, 1, 9, 9, 11], None)) == [0, 1, 9, 9, 11], "2 comes before 10"
        assert file.frames([3], (32, 40)).shape == (1, 32, 40, 3)


@readers
def test_a_missing_image_is_a_gap_in_time(tmp_path: Path, reader: str) -> None:
    folder = write_frame_folder(tmp_path / "frames", counting_frames(6))
    (folder / "00003.png").unlink()
    with opened(reader, folder, fps=2) as file:
        assert file.seconds_F.tolist() == [0, 0.5, 1.5, 2, 2.5]
        assert numbers(file.frames([1, 2], None)) == [1, 3]


@readers
def test_folder_without_a_rate_says_what_to_do(tmp_path: Path, reader: str) -> None:
    folder = write_frame_folder(tmp_path / "frames", counting_frames(2))
    with pytest.raises(MediaError, match="give the dataset's frames per second") as error:
        opened(reader, folder)
    assert error.value.reason == "no_fps"


@readers
def test_folder_without_images_and_damaged_images(tmp_path: Path, reader: str) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("no frames here")
    with pytest.raises(MediaError) as error:
        opened(reader, tmp_path / "none", fps=1)
    assert error.value.reason == "empty"

    folder = write_frame_folder(tmp_path / "frames", counting_frames(3))
    write_truncated(folder / "00002.png", folder / "00002.png", keep=0.4)
    with opened(reader, folder, fps=1) as file:
        assert numbers(file.frames([0, 2], None)) == [0, 2]
        with pytest.raises(MediaError, match=r"00002\.png") as error:
            file.frames([1], None)
    assert error.value.reason == "corrupt"


# ------------------------------------------------------------------------------------------------------ bad files


@readers
@pytest.mark.parametrize("faststart", [False, True], ids=["table_last", "table_first"])
def test_reasons(tmp_path: Path, frames_THWC, reader: str, faststart: bool) -> None:
    flags = {"movflags": "faststart"} if faststart else {}
    good = write_video(tmp_path / "good.mp4", frames_THWC, fps=FPS, gop=12, container_options=flags)
    cases = {
        "missing": tmp_path / "nowhere.mp4",
        "empty": write_empty(tmp_path / "empty.mp4"),
        "no_video_stream": write_audio_only(tmp_path / "sound.mp4"),
        "corrupt": write_truncated(tmp_path / "half.mp4", good),
    }
    found = {}
    for path in cases.values():
        with pytest.raises(MediaError, match=path.name) as error:
            opened(reader, path)
        found[error.value.reason] = path
    assert found == cases
    with pytest.raises(MediaError) as error:
        opened(reader, write_garbage(tmp_path / "garbage.mp4"))
    assert error.value.reason == "corrupt"


@readers
def test_a_video_that_is_given_a_rate_is_refused(video, reader: str) -> None:
    with pytest.raises(MediaError, match="folders of frames") as error:
        opened(reader, video("constant.mp4"), fps=3)
    assert error.value.reason == "fps_of_file"


@pytest.fixture
def holes(tmp_path: Path, frames_THWC: np.ndarray) -> Path:
    """Zeros over a stretch in the middle of the pictures."""
    path = write_video(tmp_path / "holes.mp4", frames_THWC, fps=FPS, gop=6)
    content = bytearray(path.read_bytes())
    middle, length = content.find(b"mdat") + len(content) // 2, len(content) // 5
    content[middle : middle + length] = bytes(length)
    path.write_bytes(content)
    return path


def test_pyav_reports_damaged_frames_and_never_shows_a_neighbour(holes: Path, strategy: str) -> None:
    delivered, refused = [], []
    with opened("pyav", holes, strategy=strategy) as file:
        for index in range(COUNT):
            try:
                delivered.append((index, *numbers(file.frames([index], None))))
            except MediaError as error:
                refused.append(error.reason)
    assert all(asked == shown for asked, shown in delivered)
    assert set(refused) == {"corrupt"}
    assert len(delivered) > COUNT / 3


@readers
def test_a_damaged_stretch_is_an_error_and_what_lies_before_it_is_right(holes: Path, reader: str) -> None:
    with opened(reader, holes) as file:
        with pytest.raises(MediaError) as error:
            file.frames(range(COUNT), None)
        assert error.value.reason == "corrupt"
        assert numbers(file.frames([59], None)) == [59], "a failure does not spoil the next call"


def test_decord_that_cannot_be_imported_names_the_way_out(monkeypatch: pytest.MonkeyPatch, video) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(DataError, match=r"data\.reader to pyav"):
        opened("decord", video("constant.mp4"))


@readers
def test_closing_twice_is_harmless_and_a_closed_file_frees_its_handle(video, reader: str) -> None:
    path = video("constant.mp4")
    file = opened(reader, path)
    file.frames([1], None)
    file.close()
    file.close()
    held = [link for link in Path("/proc/self/fd").glob("*") if link.is_symlink() and str(path) in str(link.readlink())]
    assert held == []


@pytest.mark.parametrize("name", sorted(register.reader))
def test_registered_readers_follow_the_contract(video, name: str) -> None:
    cls = register.reader[name]
    if any(field.is_required() for field in cls.Config.model_fields.values()):
        pytest.skip("needs settings of its own")
    assert issubclass(cls, Reader)
    with opened(name, video("constant.mp4")) as file:
        assert file.seconds_F.dtype == np.float64
        assert numbers(file.frames([3, 3, 17], (32, 48))) == [3, 3, 17]
