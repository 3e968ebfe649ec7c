"""Why an item is recommended: which events of the history carry its score."""

from dataclasses import dataclass

import torch

from shared.scoring import Past, Scorer


@dataclass(frozen=True)
class Reason:
    """One event, counted from the oldest, and by how much the item's score falls without it."""

    event: int
    drop: float


def drops(scorer: Scorer, past: Past, user: int | None, items: torch.Tensor) -> torch.Tensor:
    """By how much each item's score falls without each event that the model reads: (events, items).

    By leaving each out in turn (occlusion, Zeiler & Fergus 2014): true of the model, whatever the model is. All
    shortened histories go through the tower side by side.
    """
    read = past.last(scorer.model.plan.max_history)
    whole, *without = scorer.queries([read, *(read.without(event) for event in range(len(read)))], user)
    if not without:
        return torch.zeros(0, len(items))
    full = scorer.scores(whole, items)
    return torch.stack([full - scorer.scores(query, items) for query in without])


def reasons(scorer: Scorer, past: Past, user: int | None, items: torch.Tensor, most: int) -> list[list[Reason]]:
    """Of each item (rows) the ``most`` events without which its score falls furthest, the strongest first.

    Events that do not raise the score are no reasons; those too old to be read have no part in it.
    """
    oldest = max(0, len(past) - scorer.model.plan.max_history)
    found = []
    for column in drops(scorer, past, user, items).T.tolist():
        best = sorted(range(len(column)), key=lambda event: -column[event])[:most]
        found.append([Reason(oldest + event, column[event]) for event in best if column[event] > 0])
    return found
