"""What happens in an episode, drawn at random: a function of its number and the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.faults import states
from tests.faults.injections import DAMAGES, Injection
from tests.faults.running import Topology

ALONE = Topology(1, 1)

TOPOLOGIES = {
    "recognition": {Topology(1, 1): 5, Topology(2, 1): 5, Topology(1, 4): 1, Topology(2, 2): 2, Topology(4, 1): 1},
    "gan": {Topology(1, 1): 2, Topology(2, 1): 2, Topology(1, 2): 1},
    "synthesize": {Topology(1, 1): 1, Topology(2, 1): 1, Topology(1, 2): 1},
    "matching": {Topology(1, 1): 1, Topology(2, 1): 1, Topology(1, 2): 1, Topology(4, 1): 1},
}
"""On which each stage runs, with weights."""


@dataclass
class Plan:
    """An episode: a stage on a topology, and what happens to it, with a start after each injection."""

    number: int
    stage: str
    topology: Topology
    injections: list[Injection]
    remote: bool = False


def draw(number: int, seed: int, kinds: list[str], stages: dict[str, int], length: int) -> Plan:
    """Draws an episode: a function of its number and the seed."""
    chance = random.Random(f"{seed}/{number}")
    stage = chance.choices(list(stages), list(stages.values()))[0]
    topologies = TOPOLOGIES[stage]
    topology = chance.choices(list(topologies), list(topologies.values()))[0]
    remote = stage == "recognition" and "remote paths" in kinds and chance.random() < 0.15
    plan = Plan(number, stage, topology, [], remote=remote)
    now = topology
    for _ in range(length):
        plan.injections.append(_draw(chance, plan, now, kinds))
        now = plan.injections[-1].topology
    return plan


def _draw(chance: random.Random, plan: Plan, topology: Topology, kinds: list[str]) -> Injection:
    training = plan.stage in states.TRAININGS
    several = topology.processes > 1
    weights = {"SIGTERM": 5, "kill -9": 5}
    weights |= {"hung process": 2} if several or training else {}
    if plan.remote:
        weights = {"remote paths": 1}
    else:
        weights |= {"restart on another topology": 3, "skewed clocks": 2, "slow storage": 2, "disk full": 2}
        weights |= {"NaN in a step": 2} if training else {}
        weights |= dict.fromkeys(DAMAGES, 3 if training else 1) if plan.stage != "synthesize" else {DAMAGES[1]: 1}
    weights = {kind: weight for kind, weight in weights.items() if kind in kinds}
    kind = chance.choices(list(weights), list(weights.values()))[0]
    if kind == "hung process":
        way = chance.choice(["stop"] * several + ["stall"] * (training or not several))
    elif kind == "NaN in a step":
        way = chance.choice(["before", "after"])
    elif kind == "disk full":
        way = ""
    else:
        way = {"SIGTERM": "term", "kill -9": "kill"}.get(kind) or chance.choice(["term", "kill"])
    everybody = range(topology.processes)
    # only one of several may be told, killed or hang; without the others, all go
    alone = kind in ("SIGTERM", "kill -9", "hung process", "slow storage", "remote paths") and chance.random() < 0.8
    victims = (chance.choice(everybody),) if alone or way in ("stop", "stall") else tuple(everybody)
    early = way in ("term", "kill") and chance.random() < (0.05 if several else 0.15)
    after = 0 if early else chance.randint(1, 5 if training else 4)
    now = chance.choice([x for x in TOPOLOGIES[plan.stage] if x != topology]) if "topology" in kind else topology
    return Injection(kind, way, victims, after, chance.uniform(0, 3 if early else 0.4), now, chance.randrange(1 << 30))
