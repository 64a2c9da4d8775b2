"""`cluenet inspect --open`: every video opened in processes of their own, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path

from cluenet.inspection import report, splits
from cluenet.testing.videos import counting_frames, write_audio_only, write_frame_folder, write_garbage, write_video
from helpers.evaluation import Silent


def test_videos_that_cannot_be_read_are_counted_by_reason(tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4", counting_frames(20), fps=10)
    write_frame_folder(tmp_path / "frames", counting_frames(4))
    write_garbage(tmp_path / "bad1.mp4")
    write_garbage(tmp_path / "bad2.mp4", seed=1)
    write_audio_only(tmp_path / "sound.mp4")
    rows = [("good.mp4", 0, 1), ("good.mp4", 1, 2), ("good.mp4", 60, 70), ("frames", 0, 1)]
    rows += [(name, 0, 1) for name in ("bad1.mp4", "bad2.mp4", "sound.mp4", "nowhere.mp4")]
    lines = [
        {"id": str(n), "video": name, "start": start, "end": end, "fps": 4, "question": "which?", "options": ["x", "y"], "answer": 0}
        for n, (name, start, end) in enumerate(rows)
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = splits.source_of("messages", [str(tmp_path / "rows.jsonl"), "split=train"])
    videos = report.inspect(source, opened=True, progress=Silent)["splits"]["train"]["videos"]
    assert (videos["files"], videos["missing"]) == (6, 1)
    assert {reason: found["files"] for reason, found in videos["unreadable"].items()} == {
        "corrupt": 2, "no_video_stream": 1, "outside": 1,
    }  # fmt: skip
    assert "bad1.mp4" in videos["unreadable"]["corrupt"]["first"]
    assert "no frame from 60 s to 70 s" in videos["unreadable"]["outside"]["first"]
    assert "unreadable" not in report.inspect(source, progress=Silent)["splits"]["train"]["videos"]
