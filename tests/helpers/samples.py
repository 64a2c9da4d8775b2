"""Hand-made lines of samples.jsonl."""

from __future__ import annotations

from typing import Any


def sample(
    number: int, *, prediction: int = 0, answer: int | None = 0, video: str = "v0", **changes: Any
) -> dict[str, Any]:
    """Question `q<number>` with four options, one stated clue that is right, and rows of all kinds."""

    def verdict(row_prediction: int) -> dict[str, Any]:
        right = None if answer is None else row_prediction == answer
        return {"prediction": row_prediction, "option_logprobs": [-1.386294] * 4, "correct": right}

    words, span = ["<t1>", "red", "hits", "blue"], {"start_seconds": 0.5, "end_seconds": 1.0}
    box = {"seconds": 0.75, "x1": 0.0, "y1": 0.0, "x2": 0.5, "y2": 0.5}
    values = {
        "id": f"q{number}", "dataset": "fake", "type": "who", "video": video, "start_seconds": 0.0, "end_seconds": None,
        "clip": f"clip-{video}", "question": "which one hits blue ?", "options": ["red", "blue", "green", "cyan"],
        "answer": answer, **verdict(prediction), "rows": {row: verdict(0) for row in ("oracle", "none", "text")},
        "clues": [{"text": "red hits blue", "words": words, **span, "box": box, "gate": 0.75, "kept": True,
                   "pointing": True, "pointing_chance": 0.125}],
        "true_clues": [{"text": "red hits blue", "words": words, **span, "boxes": [box]}],
        "chain": "red hits blue . so red", "meta": {}, "tokens": {"visual": 16, "seen": 0, "clue_words": 4},
    }  # fmt: skip
    line = {**values, **changes}
    return {"order": list(range(len(line["options"]))), **line}
