"""The same model says the same offline and online: ClueWorld through `cluenet evaluate`, and through HTTP."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from ray import serve

from cluenet.data.prepare import prepare
from cluenet.evaluate.evaluator import evaluate
from cluenet.recipe import Recipe
from cluenet.serve import launch
from cluenet.serve.arguments import AppArgs
from helpers.evaluation import Silent
from helpers.evaluation import recipe as tiny_recipe
from helpers.serving import engines, free_port, varied_model_folder

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(900)]


def clueworld(folder: Path, questions: int) -> Recipe:
    test = {
        "name": "clueworld", "split": "test", "videos": questions // 5 + 1, "max_samples": questions,
        "folder": str(folder / "clueworld"),
    }  # fmt: skip
    data = {**tiny_recipe().to_dict()["data"], "test": [test]}
    evaluate = {"shuffles": 0, "questions_per_batch": 16, "rows": ["own"], "bootstrap": 100}
    return tiny_recipe(store=str(folder / "store"), data=data, evaluate=evaluate)


def offline(recipe: Recipe, model: Path, folder: Path) -> list[dict]:
    prepared = prepare(recipe, recipe.data.test[0], progress=Silent)
    evaluate(recipe, model_folder=model, prepared=[prepared], out=folder / "out", progress=Silent, local=True)
    lines = (folder / "out" / "clueworld-test" / "samples.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def online(url: str, samples: list[dict]) -> list[dict]:
    def ask(sample: dict) -> dict:
        body = {
            "question": sample["question"], "options": sample["options"], "video_url": Path(sample["video"]).as_uri(),
            "start_seconds": sample["start_seconds"], "end_seconds": sample["end_seconds"],
        }  # fmt: skip
        response = httpx2.post(f"{url}/v1/videoqa", json=body, timeout=120)
        assert response.status_code == 200, response.text
        return response.json()

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(ask, samples))


@pytest.mark.parametrize("questions", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_the_same_answers_offline_and_online(questions: int, tmp_path: Path) -> None:
    recipe = clueworld(tmp_path, questions)
    model = varied_model_folder(tmp_path / "model", recipe)
    samples = offline(recipe, model, tmp_path)
    port = free_port()
    section = {"port": port, "allowed_roots": [str(tmp_path)], **engines(2)}
    launch.start(AppArgs(model=str(model), serve=section))
    try:
        found = online(f"http://127.0.0.1:{port}", samples)
    finally:
        serve.shutdown()
    assert len(found) == questions
    assert len({tuple(one["option_logprobs"]) for one in samples}) > questions // 2, "they must differ to show anything"
    for mine, theirs in zip(found, samples, strict=True):
        assert mine["index"] == theirs["prediction"]
        assert mine["probabilities"] == pytest.approx(probabilities(theirs), abs=1e-4)
        same_clues(mine["clues"], theirs["clues"])


def probabilities(sample: dict) -> list[float]:
    return [2.718281828459045**value for value in sample["option_logprobs"]]


def same_clues(mine: list[dict], theirs: list[dict]) -> None:
    assert [(one["text"], one["kept"]) for one in mine] == [(one["text"], one["kept"]) for one in theirs]
    for one, other in zip(mine, theirs):
        for name in ("start_seconds", "end_seconds", "gate"):
            assert one[name] == pytest.approx(other[name], abs=1e-4)
        if other["box"] is None:
            assert one["box"] is None
        else:
            assert one["box"] == pytest.approx(other["box"], abs=1e-4)
