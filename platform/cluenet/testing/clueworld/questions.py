"""Questions about a scene, with options, the clues that decide them, and a chain from clues to answer.

Seven types mirror NExT-QA, STAR and MVBench (descriptive, counting, causal, temporal, predictive); two more are yes/no pairs
about absent objects and events (hallucination). What keeps a reader of the questions alone at chance:
counts are uniform; `itself` is the reason for a fifth of the moves; wrong options of temporal questions are other true
events of the same video; anchors of temporal questions are never a hit or a caused move, whose successor is known.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from cluenet.records import Clue, Example, VideoRef
from cluenet.testing.clueworld.facts import ahead_fact, event_fact, event_words, shape_fact, states
from cluenet.testing.clueworld.scene import Scene
from cluenet.testing.clueworld.settings import COLOURS, SHAPES

TYPES = ("shape", "count", "who", "causal", "after", "before", "predict")
YES_NO_TYPES = ("exists_object", "exists_event")
NUMBERS = ("zero", "one", "two", "three")
ITSELF = "it moves itself"


class _Asker:
    """Makes examples of one scene; options are shuffled and cut to five, the right one among them."""

    def __init__(self, scene: Scene, scene_id: str, video: VideoRef, rng: random.Random):
        self.scene, self.scene_id, self.video, self.rng = scene, scene_id, video, rng

    def ask(
        self, kind: str, question: str, answer: str, options: Sequence[str], clues: list[Clue], *, tail: str = "", most: int = 5
    ) -> Example:
        wrong = [option for option in dict.fromkeys(options) if option != answer]
        self.rng.shuffle(wrong)
        shown = [*wrong[: most - 1], answer]
        self.rng.shuffle(shown)
        return self._example(kind, question, shown, answer, clues, tail or kind)

    def yes_no(self, kind: str, question: str, answer: str, clues: list[Clue]) -> Example:
        return self._example(kind, question, ["yes", "no"], answer, clues, f"{kind}-{answer}")

    def _example(self, kind: str, question: str, options: list[str], answer: str, clues: list[Clue], tail: str) -> Example:
        told = {clue.text for clue in clues}
        others = [event_fact(self.scene, k) for k in range(len(self.scene.events))]
        reasons = " . ".join(clue.text for clue in clues[:3])
        return Example(
            id=f"{self.scene_id}-{tail}", dataset="clueworld", video=self.video, question=question, options=tuple(options),
            answer=options.index(answer), type=kind, clues=tuple(clues[:3]),
            distractors=tuple(fact for fact in others if fact.text not in told),
            chain=f"{reasons} . so {answer}" if reasons else f"so {answer}",
        )  # fmt: skip


def questions_of(scene: Scene, scene_id: str, video: VideoRef, types: Sequence[str], *, seed: int) -> list[Example]:
    """All questions of the given types that this scene allows. Every time a box is given as a fraction of the frame, a
    span in seconds. The first question also carries the scene's states (`facts.states`) among its distractors."""
    asker = _Asker(scene, scene_id, video, random.Random(seed))
    makers: dict[str, Callable[[_Asker], Iterator[Example]]] = {
        "shape": _shape, "count": _count, "who": _who, "causal": _causal, "after": _after, "before": _before,
        "predict": _predict, "exists_object": _exists_object, "exists_event": _exists_event,
    }  # fmt: skip
    found = [example for kind in (*TYPES, *YES_NO_TYPES) if kind in types for example in makers[kind](asker)]
    if found:
        first = found[0]
        found[0] = first.with_clues(first.clues, first.chain, (*first.distractors, *states(scene)))
    return found


def _shape(asker: _Asker) -> Iterator[Example]:
    scene = asker.scene
    i = asker.rng.choice([i for i, cell in enumerate(scene.cells[0]) if cell is not None])
    yield asker.ask("shape", f"what shape is {scene.colours[i]} ?", scene.shapes[i], SHAPES, [shape_fact(scene, i)])


def _count(asker: _Asker) -> Iterator[Example]:
    lights = [k for k, event in enumerate(asker.scene.events) if event.verb == "lights"]
    clues = [event_fact(asker.scene, k) for k in lights]
    yield asker.ask("count", "how many light ?", NUMBERS[len(lights)], NUMBERS, clues)


def _who(asker: _Asker) -> Iterator[Example]:
    verbs = [event.verb for event in asker.scene.events]
    single = [k for k, verb in enumerate(verbs) if verb in ("lights", "enters", "leaves") and verbs.count(verb) == 1]
    if single:
        k = asker.rng.choice(single)
        answer = asker.scene.colours[asker.scene.events[k].who]
        yield asker.ask("who", f"which one {verbs[k]} ?", answer, asker.scene.colours, [event_fact(asker.scene, k)])


def _causal(asker: _Asker) -> Iterator[Example]:
    scene = asker.scene
    moves = [k for k, event in enumerate(scene.events) if event.verb == "moves"]
    once = [k for k in moves if sum(scene.events[m].who == scene.events[k].who for m in moves) == 1]
    by_itself = asker.rng.random() < 0.2
    fitting = [k for k in once if (scene.events[k].cause is None) == by_itself]
    if not fitting:
        return
    k = asker.rng.choice(fitting)
    event = scene.events[k]
    others = [colour for i, colour in enumerate(scene.colours) if i != event.who]
    reasons = [f"{colour} hits it" for colour in asker.rng.sample(others, len(others))][:4]
    answer, clues = ITSELF, [event_fact(scene, k)]
    if event.cause is not None:
        answer, clues = f"{scene.colours[event.cause]} hits it", [event_fact(scene, k - 1), event_fact(scene, k)]
    yield asker.ask("causal", f"why does {scene.colours[event.who]} move ?", answer, [*reasons, ITSELF], clues)


def _after(asker: _Asker) -> Iterator[Example]:
    yield from _temporal(asker, "after", 1)


def _before(asker: _Asker) -> Iterator[Example]:
    yield from _temporal(asker, "before", -1)


def _temporal(asker: _Asker, kind: str, shift: int) -> Iterator[Example]:
    scene, events = asker.scene, asker.scene.events
    words = [event_words(scene, event) for event in events]
    found = []
    for k, event in enumerate(events):
        if not 0 <= k + shift < len(events) or words.count(words[k]) > 1:
            continue
        if event.verb == "hits" or event.cause is not None:
            continue
        pool = [m for m in range(len(events)) if m != k and _may_neighbour(events[m], event.who, kind)]
        others = list(dict.fromkeys(words[m] for m in pool))
        if k + shift in pool and words.count(words[k + shift]) == 1 and len(others) >= 4:
            found.append((k, others))
    if found:
        k, others = asker.rng.choice(found)
        clues = [event_fact(scene, m) for m in sorted((k, k + shift))]
        yield asker.ask(kind, f"what happens right {kind} {words[k]} ?", words[k + shift], others, clues, most=4)


def _may_neighbour(event, anchor: int, kind: str) -> bool:
    """Only events that could stand there: never about the anchor itself, nor a caused move after it, nor a hit before."""
    touches = anchor in (event.who, event.whom)
    impossible = event.cause is not None if kind == "after" else event.verb == "hits"
    return not touches and not impossible


def _predict(asker: _Asker) -> Iterator[Example]:
    scene, (who, whom) = asker.scene, asker.scene.approach
    others = [colour for i, colour in enumerate(scene.colours) if i != who]
    clues = [event_fact(scene, len(scene.events) - 1), ahead_fact(scene)]
    yield asker.ask("predict", f"which one will {scene.colours[who]} reach ?", scene.colours[whom], others, clues)


def _exists_object(asker: _Asker) -> Iterator[Example]:
    """The absent one shares its colour or its shape with something that is there."""
    scene = asker.scene
    there = set(zip(scene.colours, scene.shapes))
    i = asker.rng.randrange(len(scene.colours))
    yield asker.yes_no("exists_object", f"is there a {scene.colours[i]} {scene.shapes[i]} ?", "yes", [shape_fact_seen(scene, i)])
    absent = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in there and (c in scene.colours or s in scene.shapes)]
    colour, shape = asker.rng.choice(sorted(absent))
    clues = [shape_fact_seen(scene, scene.colours.index(colour))] if colour in scene.colours else []
    yield asker.yes_no("exists_object", f"is there a {colour} {shape} ?", "no", clues)


def shape_fact_seen(scene: Scene, i: int) -> Clue:
    """Like `shape_fact`, for an object that may enter later: its state, with all boxes."""
    return next(fact for fact in states(scene) if fact.concepts["who"] == scene.colours[i] and fact.concepts["what"] == "is")


def _exists_event(asker: _Asker) -> Iterator[Example]:
    """The absent event is one that this video could have shown: another object does it."""
    scene = asker.scene
    solo = [k for k, event in enumerate(scene.events) if event.verb in ("lights", "enters", "leaves")]
    if not solo:
        return
    k = asker.rng.choice(solo)
    event = scene.events[k]
    doers = {e.who for e in scene.events if e.verb == event.verb}
    idle = [i for i in range(len(scene.colours)) if i not in doers]
    if not idle:
        return
    verb = {"lights": "light", "enters": "enter", "leaves": "leave"}[event.verb]
    yield asker.yes_no("exists_event", f"does {scene.colours[event.who]} {verb} ?", "yes", [event_fact(scene, k)])
    yield asker.yes_no("exists_event", f"does {scene.colours[asker.rng.choice(idle)]} {verb} ?", "no", [event_fact(scene, k)])
