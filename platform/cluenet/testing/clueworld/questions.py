"""Questions about a scene, with options, the clues that decide them, and a chain from clues to answer.

Seven types mirror NExT-QA, STAR and MVBench: descriptive (`shape`), counting (`count`, `who`), `causal`, temporal (`after`,
`before`) and predictive (`predict`); `cluenet.testing.clueworld.pairs` adds yes/no pairs. What keeps a reader of questions
and options alone at chance:

- colours are exchangeable, counts uniform, options shuffled;
- a shape that the world never gives to a colour is not an option for it;
- a fifth of the moves that are asked about happened by themselves, and that is one of five options;
- wrong options of temporal questions are true events of the same video that could stand there too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from cluenet.records import Clue, Example, VideoRef
from cluenet.testing.clueworld.drafts import Draft
from cluenet.testing.clueworld.facts import ahead_fact, event_fact, event_words, shape_fact, state_facts
from cluenet.testing.clueworld.pairs import exists_event, exists_object
from cluenet.testing.clueworld.settings import TYPES, YES_NO_TYPES, QuestionType
from cluenet.testing.clueworld.world import Scene, allowed_shapes

NUMBERS = ("zero", "one", "two", "three")
ITSELF = "it moves itself"
ITSELF_SHARE = 0.2
MAX_OPTIONS = 5
TEMPORAL_OPTIONS = 4


def questions_of(
    scene: Scene, scene_id: str, video: VideoRef, types: Sequence[QuestionType] = TYPES, most: int | None = None
) -> list[Example]:
    """The questions of these types that the scene allows, or `most` of them chosen at random.

    A type's question is the same whichever other types are asked. Ids read <scene id>-<type>, those of yes/no pairs
    <scene id>-<type>-pair0-<answer>, with the pair's name in `meta`. Distractors are the scene's other events, and the
    scene's state facts (`facts.state_facts`), which are many: each stands in the first question only that it does not help.
    """
    events = [event_fact(scene, k) for k in range(len(scene.events))]
    examples = []
    for kind in (*TYPES, *YES_NO_TYPES):
        if kind in types:
            rng = random.Random(f"{scene.seed}/{kind}")
            for draft in _MAKERS[kind](scene, rng):
                examples.append(_example(draft, kind, scene_id, video, rng, events))
    if most is not None and most < len(examples):
        chosen = random.Random(f"{scene.seed}/most").sample(range(len(examples)), most)
        examples = [examples[i] for i in sorted(chosen)]
    return _with_states(examples, scene)


def _with_states(examples: list[Example], scene: Scene) -> list[Example]:
    told = [{clue.text for clue in example.clues or ()} for example in examples]
    placed: list[list[Clue]] = [[] for _ in examples]
    for fact in state_facts(scene):
        fitting = [i for i, texts in enumerate(told) if fact.text not in texts]
        if fitting:  # a single question may be helped by one of them, which then stands nowhere
            placed[fitting[0]].append(fact)
    return [
        example.with_clues(example.clues, example.chain, (*example.distractors, *facts)) if facts else example
        for example, facts in zip(examples, placed, strict=True)
    ]


def _example(
    draft: Draft, kind: str, scene_id: str, video: VideoRef, rng: random.Random, events: Sequence[Clue]
) -> Example:
    options = [draft.answer, *draft.wrong]
    rng.shuffle(options)
    used = {clue.text for clue in draft.clues}
    name = f"{scene_id}-{kind}-pair0" if draft.half else f"{scene_id}-{kind}"
    return Example(
        id=f"{name}-{draft.half}" if draft.half else name,
        dataset="clueworld",
        video=video,
        question=draft.question,
        options=tuple(options),
        answer=options.index(draft.answer),
        type=kind,
        clues=draft.clues,
        distractors=tuple(fact for fact in events if fact.text not in used),
        chain=" . ".join([*(clue.text for clue in draft.clues), f"so {draft.answer} ."]),
        meta={"pair": name} if draft.half else {},
    )


def _shape(scene: Scene, rng: random.Random) -> Iterator[Draft]:
    i = rng.choice([i for i, cell in enumerate(scene.cells[0]) if cell is not None])
    wrong = _without(scene.shapes[i], allowed_shapes(scene.colours[i], scene.settings))
    yield Draft(f"what shape is {scene.colours[i]} ?", scene.shapes[i], wrong, (shape_fact(scene, i),))


def _count(scene: Scene, rng: random.Random) -> Iterator[Draft]:
    lights = [k for k, event in enumerate(scene.events) if event.verb == "lights"]
    answer = NUMBERS[len(lights)]
    yield Draft("how many light ?", answer, _without(answer, NUMBERS), tuple(event_fact(scene, k) for k in lights))


def _who(scene: Scene, rng: random.Random) -> Iterator[Draft]:
    verbs = [event.verb for event in scene.events]
    once = [k for k, verb in enumerate(verbs) if verb in ("lights", "enters", "leaves") and verbs.count(verb) == 1]
    if once:
        k = rng.choice(once)
        answer = scene.colours[scene.events[k].who]
        wrong = _some(rng, _without(answer, scene.colours), MAX_OPTIONS - 1)
        yield Draft(f"which one {verbs[k]} ?", answer, wrong, (event_fact(scene, k),))


def _causal(scene: Scene, rng: random.Random) -> Iterator[Draft]:
    """Only where both kinds of moves happen, or the commoner kind would be asked about more often."""
    moves = [(k, event) for k, event in enumerate(scene.events) if event.verb == "moves"]
    movers = [event.who for _, event in moves]
    once = [(k, event) for k, event in moves if movers.count(event.who) == 1]
    alone = [k for k, event in once if event.cause is None]
    caused = [k for k, event in once if event.cause is not None]
    if not alone or not caused:
        return
    k = rng.choice(alone if rng.random() < ITSELF_SHARE else caused)
    event = scene.events[k]
    others = [i for i in range(len(scene.colours)) if i not in (event.who, event.cause)]
    hits = [f"{scene.colours[i]} hits it" for i in others]
    question = f"why does {scene.colours[event.who]} move ?"
    if event.cause is None:
        yield Draft(question, ITSELF, _some(rng, hits, MAX_OPTIONS - 1), (event_fact(scene, k),))
    else:
        answer, wrong = f"{scene.colours[event.cause]} hits it", (*_some(rng, hits, MAX_OPTIONS - 2), ITSELF)
        yield Draft(question, answer, wrong, (event_fact(scene, k - 1), event_fact(scene, k)))


def _after(scene: Scene, rng: random.Random) -> Iterator[Draft]:
    return _temporal(scene, rng, "after", 1)


def _before(scene: Scene, rng: random.Random) -> Iterator[Draft]:
    return _temporal(scene, rng, "before", -1)


def _temporal(scene: Scene, rng: random.Random, relation: str, shift: int) -> Iterator[Draft]:
    """The anchor happens once, and is no part of a hit, whose neighbour is known from its words alone."""
    events = scene.events
    words = [event_words(scene, event) for event in events]
    shuffled = rng.sample(range(len(events)), len(events))
    told = {words[k]: k for k in shuffled}.values()  # of what happens twice one time counts, or it is right too often
    for k in shuffled:
        if events[k].verb == "hits" or events[k].cause is not None or words.count(words[k]) > 1:
            continue
        possible = [m for m in told if _can_be_neighbour(scene, k, m, relation, rng)]
        if len(possible) >= TEMPORAL_OPTIONS and k + shift in possible:
            wrong = [words[m] for m in possible if m != k + shift]
            clues = tuple(event_fact(scene, m) for m in sorted((k, k + shift)))
            question = f"what happens right {relation} {words[k]} ?"
            yield Draft(question, words[k + shift], _some(rng, wrong, TEMPORAL_OPTIONS - 1), clues)
            return


def _can_be_neighbour(scene: Scene, k: int, m: int, relation: str, rng: random.Random) -> bool:
    """Whether event `m` might stand next to the anchor `k` for all that words tell.

    Never an event of the anchor's object. A caused move follows its hit, a hit precedes its move, and nothing follows the
    approach.
    """
    anchor, event = scene.events[k], scene.events[m]
    objects = [i for i in (event.who, event.whom) if i is not None]
    if anchor.who in objects:
        return False
    if relation == "after" and event.cause is not None:
        return False
    if relation == "before" and (event.verb == "hits" or m == len(scene.events) - 1):
        return False
    # Whoever is out of view cannot be the anchor's object. Unless such events are left out as often as those of the
    # anchor's object are, what enters is right too often after an anchor, and what leaves before one.
    apart = _is_hidden(scene, anchor.who, m) or any(_is_hidden(scene, i, k) for i in objects)
    return not apart or rng.random() >= len(objects) / len(scene.colours)


def _is_hidden(scene: Scene, i: int, k: int) -> bool:
    """Whether object `i` is out of view while event `k` happens."""
    return scene.cells[k][i] is None and scene.cells[k + 1][i] is None


def _predict(scene: Scene, rng: random.Random) -> Iterator[Draft]:
    who, whom = (scene.colours[i] for i in scene.approach)
    wrong = [colour for colour in scene.colours if colour not in (who, whom)]
    clues = event_fact(scene, len(scene.events) - 1), ahead_fact(scene)
    yield Draft(f"which one will {who} reach ?", whom, _some(rng, wrong, MAX_OPTIONS - 1), clues)


def _without(answer: str, options: Sequence[str]) -> tuple[str, ...]:
    """The other options, each once."""
    return tuple(option for option in dict.fromkeys(options) if option != answer)


def _some(rng: random.Random, options: Sequence[str], most: int) -> tuple[str, ...]:
    return tuple(rng.sample(list(options), min(most, len(options))))


_MAKERS: dict[QuestionType, Callable[[Scene, random.Random], Iterator[Draft]]] = {
    "shape": _shape,
    "count": _count,
    "who": _who,
    "causal": _causal,
    "after": _after,
    "before": _before,
    "predict": _predict,
    "exists_object": exists_object,
    "exists_event": exists_event,
}
