"""Updates of two kinds of domains whose towers pull into two directions; LoRA is everyone's."""

import numpy as np

from server.affinity import by_affinity
from server.likeness import NOISE
from shared.payload import AdapterUpdate

SIZE = 4000


def kinds(seed=0):
    draw = np.random.default_rng(seed)
    return {kind: draw.normal(size=SIZE) for kind in ("film", "tool")}, draw


def updates(directions, draw, number=1, noise=1.0, names=None):
    """Cosine within a kind about 1 / (1 + noise^2), across about 0."""
    names = names or [f"{kind}{row}" for kind in directions for row in range(3)]
    return [
        AdapterUpdate(
            name,
            number,
            {
                "x.lora_B.weight": np.full((2,), float(row + 1), np.float32),
                "item.weight": (directions[name[:4]] + noise * draw.normal(size=SIZE)).astype(np.float32),
            },
            NOISE,  # of so many users: half of a squared direction is noise
            "base",
        )
        for row, name in enumerate(names)
    ]


def after_two(given, more=None):
    """(delta, memory, facts) of a second round; the first one mixes all."""
    aggregator = by_affinity(4096)
    return aggregator.apply(aggregator.apply(None, given)[1], more or given)
