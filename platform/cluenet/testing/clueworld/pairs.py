"""Yes/no pairs about objects and events that are there and that are absent (hallucination).

Each pair asks about the same video, once with the answer yes and once with no, and both are right or the model saw things.
Both questions of a type have the same distribution of words, so that neither can be told from its words alone: the absent
object has any colour with any shape that this world has for it, the absent event another object that is there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from cluenet.records import Clue
from cluenet.testing.clueworld.drafts import Draft
from cluenet.testing.clueworld.facts import event_fact, shape_fact
from cluenet.testing.clueworld.settings import COLOURS
from cluenet.testing.clueworld.world import Event, Scene, allowed_shapes

_INFINITIVES = {"lights": "light", "enters": "enter", "leaves": "leave", "hits": "hit"}


def exists_object(scene: Scene, rng: random.Random) -> Iterator[Draft]:
    """Half of the absent objects have the wrong shape, the clue says which is right; half a colour that is not there."""
    i = rng.randrange(len(scene.colours))
    yield from _pair(
        (f"is there a {scene.colours[i]} {scene.shapes[i]} ?", (shape_fact(scene, i),)), _absent_object(scene, rng)
    )


def exists_event(scene: Scene, rng: random.Random) -> Iterator[Draft]:
    """Lights, enters, leaves and hits. Nothing shows that an event is absent, so the answer no has no clue."""
    verb = rng.choice(sorted({event.verb for event in scene.events} & set(_INFINITIVES)))
    told = [(k, event) for k, event in enumerate(scene.events) if event.verb == verb]
    k, event = rng.choice(told)
    absent = rng.choice(_absent_events(scene, verb, [event for _, event in told]))
    yield from _pair((_does(scene, event), (event_fact(scene, k),)), (_does(scene, absent), ()))


def _pair(present: tuple[str, tuple[Clue, ...]], absent: tuple[str, tuple[Clue, ...]]) -> Iterator[Draft]:
    yield Draft(present[0], "yes", ("no",), present[1], half="yes")
    yield Draft(absent[0], "no", ("yes",), absent[1], half="no")


def _absent_object(scene: Scene, rng: random.Random) -> tuple[str, tuple[Clue, ...]]:
    missing = [colour for colour in COLOURS if colour not in scene.colours]
    if missing and rng.random() < 0.5:
        colour = rng.choice(missing)
        return f"is there a {colour} {rng.choice(allowed_shapes(colour, scene.settings))} ?", ()
    i = rng.randrange(len(scene.colours))
    shapes = [shape for shape in allowed_shapes(scene.colours[i], scene.settings) if shape != scene.shapes[i]]
    return f"is there a {scene.colours[i]} {rng.choice(shapes)} ?", (shape_fact(scene, i),)


def _absent_events(scene: Scene, verb: str, told: list[Event]) -> list[Event]:
    """Events of this kind that objects of the scene could have done and did not."""
    objects = range(len(scene.colours))
    whoms = [None] if verb != "hits" else list(objects)
    happened = {(event.who, event.whom) for event in told}
    return [Event(verb, who, whom) for who in objects for whom in whoms if who != whom and (who, whom) not in happened]


def _does(scene: Scene, event: Event) -> str:
    whom = "" if event.whom is None else f" {scene.colours[event.whom]}"
    return f"does {scene.colours[event.who]} {_INFINITIVES[event.verb]}{whom} ?"
