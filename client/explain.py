"""Why an item is recommended: which events of the history carry its score."""

from dataclasses import dataclass

from client.scoring import Past, Scorer


@dataclass(frozen=True)
class Reason:
    """One event, counted from the oldest, and by how much the item's score falls without it."""

    event: int
    drop: float


def reasons(scorer: Scorer, past: Past, user: int | None, item: int, most: int) -> list[Reason]:
    """The ``most`` events without which the score of ``item`` (a row) falls furthest, the strongest first.

    By leaving each out in turn (occlusion, Zeiler & Fergus 2014): true of the model, whatever the model is. Events
    that do not raise the score are no reasons; those too old to be read have no part in it.
    """
    whole = float(scorer.scores(past, user)[item])
    oldest = max(0, len(past) - scorer.model.plan.max_history)
    read = past.last(scorer.model.plan.max_history)
    drops = [whole - float(scorer.scores(read.without(event), user)[item]) for event in range(len(read))]
    found = sorted(
        (Reason(oldest + event, drop) for event, drop in enumerate(drops) if drop > 0), key=lambda r: -r.drop
    )
    return found[:most]
