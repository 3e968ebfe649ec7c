"""What a domain sets at home once training is over, from its own counts: expected counts of rare items, neighbours, how
much everybody goes with the crowd, and what items that nobody met get in return for having no neighbours.

All stay out of training: there an event would find itself among what was counted.
"""

import math
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from client.batches import in_order, pad
from client.corpus import Corpus
from client.evaluate import BLOCK_ROWS, BLOCK_SCORES, model_score, rank_cases, validate
from client.splits import Cases
from shared.metrics import Ints, case_metrics
from shared.model import Recommender
from shared.neighbours import from_sketch
from shared.payload import COUNTED, Tensors
from shared.private import Private
from shared.seeding import stream

# Weight and sharpness that validated best over owners of five kinds of shops (simulations/LOG.md): of a domain's own
# counts, and of those of all its kin, which are worth more.
OWN, SHARED = (0.5, 100.0), (1.0, 100.0)
Near = tuple[float, float, float]  # as in ``Private.near``
OFF: Near = (0.0, 0.0, 0.0)
SURE = 2.0  # standard errors by which something else must validate better
WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SHARPNESS = (1.0, 10.0, 100.0)
RARE = 2  # events of an item, at most
UNSEEN = 0.5  # events that an item stands for that was never met
CROWD = (10.0, 100.0)  # how many times as much an item's popularity may count as training left it
EXTRA = (0.5, 1.0, 1.5, 2.0)  # what such an item may get besides
AGAIN = 0.05  # of validation targets that stand in their own history: from there on how lately they did is asked
ITSELF = (1.0, 10.0, 100.0)  # the cosine of an item with itself, as far as it comes again
CASES = 4000  # validation cases that the choice is made on, at most


def calibrate(model: Recommender, corpus: Corpus, private: Private, counted: Tensors | None = None) -> float:
    """Set ``private.lift`` and ``private.near`` by validation; returns validation NDCG@10 with both.

    Into ``private.lift`` go expected counts, the crowd (``_crowd``), and, as neighbours lift all but what nobody met,
    something for that too, as far as validation does not feel it (``_extra``).

    ``counted`` are sizes and sketched pairs of all owners of the catalogue who are alike, where they share them
    (``payload.COUNTED``); they take the place of the domain's own.
    """
    private.uncalibrate()
    if private.neighbours is not None:
        private.neighbours = corpus.neighbours  # a calibration before may have changed them
    popularity, usual = corpus.popularity, (*OWN, model.plan.recency)
    if counted and all(key in counted for key in COUNTED) and private.neighbours is not None:
        met, pairs = (counted[key] for key in COUNTED)
        private.neighbours = from_sketch(met, pairs, corpus.near)
        least = np.float64(met[met > 0].min(initial=np.inf))  # stands for one event
        popularity = np.rint((met / least).clip(0, 1e6)).astype(np.int64)
        usual = (*SHARED, model.plan.recency)
    if model.plan.expected_counts:
        private.lift.copy_(torch.from_numpy(lift(popularity)))
    _choose_near(model, corpus, private, usual)
    if (more := _crowd(model, corpus, private)) > 1:
        private.lift += (more - 1) * (private.strength * private.bias).detach()
        _choose_near(model, corpus, private, usual)
    _again(model, corpus, private, usual)
    unmet = torch.from_numpy(popularity == 0)
    if model.plan.expected_counts and private.near[0] > 0 and bool(unmet.any()):
        private.lift[unmet] += _extra(model, corpus, private, unmet)
    return validate(model, corpus, private)


def lift(popularity: Ints) -> npt.NDArray[np.float32]:
    """What to add to the logits of items met at most ``RARE`` times: log(count to be expected / count seen), (items,).

    Good-Turing (Good 1953): items seen n times are to be seen (n + 1) * N[n + 1] / N[n] times in as much data again,
    N[n] being how many items were seen n times; one more of each against division by zero. How rare a rare item is
    depends on the catalogue: where few items are unseen, one that is has hardly had its chance. No rare item is taken
    for more than an average one; one never seen counts as half an event.
    """
    having = np.bincount(popularity, minlength=RARE + 2).astype(np.float64)
    found = np.zeros(len(popularity), np.float32)
    for n in range(RARE + 1):
        expected = min((n + 1) * (having[n + 1] + 1) / (having[n] + 1), popularity.mean())
        found[popularity == n] = math.log(max(expected, UNSEEN) / max(n, UNSEEN))
    return found


def _choose_near(model: Recommender, corpus: Corpus, private: Private, usual: Near) -> None:
    """Set ``private.near``, where there are neighbours, to what validates best if that is beyond chance, else to what
    is ``usual``, or off where that changes nothing.

    Of many settings the one that does best on a few hundred cases owes much of it to chance.
    """
    if private.neighbours is not None:
        private.near.zero_()
        found = _try(model, corpus, private)
        best = max(found, key=lambda near: found[near].mean())
        lead = found[best] - found[usual]
        if lead.mean() > SURE * lead.std() / math.sqrt(len(lead)):
            usual = best
        private.near.copy_(torch.tensor(usual if np.any(found[usual] != found[OFF]) else OFF))


def _again(model: Recommender, corpus: Corpus, private: Private, usual: Near) -> None:
    """Make items their own neighbours where many come again and that validates better beyond chance.

    Training knows that something was met before; how lately, only this tells.
    """
    cases, plain = _some(corpus.split.valid), private.neighbours
    if plain is None or _repeats(cases) < AGAIN:
        return
    kept, before = (plain, private.near.clone()), _each(model, corpus, cases, private)
    best = before
    for cosine in ITSELF:
        private.neighbours = plain.with_itself(cosine)
        _choose_near(model, corpus, private, usual)
        found = _each(model, corpus, cases, private)
        lead = found - before
        if found.mean() > best.mean() and lead.mean() > SURE * lead.std() / math.sqrt(len(lead)):
            kept, best = (private.neighbours, private.near.clone()), found
    private.neighbours = kept[0]
    private.near.copy_(kept[1])


def _repeats(cases: Cases) -> float:
    """Of the targets, those that stand in their own history."""
    held = [np.isin(cases.targets.row(row), cases.histories.row(row)) for row in range(len(cases))]
    return float(np.concatenate(held).mean()) if held else 0.0


def _each(model: Recommender, corpus: Corpus, cases: Cases, private: Private) -> npt.NDArray[np.float64]:
    """NDCG@10 of each case, (cases,)."""
    return np.concatenate([_ndcg(part, scores) for part, scores in _scored(model, corpus, cases, private)])


@torch.no_grad()
def _crowd(model: Recommender, corpus: Corpus, private: Private) -> float:
    """Which of ``CROWD``, or 1, validates best as a factor of what items score by their popularity.

    Steps are coarse: they tell a domain where the crowd goes first (most who ask have no history yet, as after a cut in
    time) from one where it does not, and leave fine shades to training, which has more events to tell them by.
    """
    popular = private.strength * private.bias
    sums = dict.fromkeys((1.0, *CROWD), 0.0)
    for part, scores in _scored(model, corpus, _some(corpus.split.valid), private):
        for factor in sums:
            sums[factor] += float(_ndcg(part, scores + (factor - 1) * popular).sum())
    return max(sums, key=lambda factor: sums[factor])  # the first of equals: as it was


@torch.no_grad()
def _try(model: Recommender, corpus: Corpus, private: Private) -> dict[Near, npt.NDArray[np.float64]]:
    """NDCG@10 of some validation cases, (cases,), under each setting of ``private.near``, one of which is off."""
    parts: dict[Near, list[npt.NDArray[np.float64]]] = defaultdict(list)
    for part, scores in _scored(model, corpus, _some(corpus.split.valid), private):
        batch = pad(part.histories, np.arange(len(part)), part.users, model.plan.max_history)
        at = (torch.arange(len(part)), (batch.mask.sum(1) - 1).clamp(min=0))
        parts[OFF].append(_ndcg(part, scores))
        for decay in (model.plan.recency, 1.0):
            alike = private.likeness(batch, at, decay)
            for sharpness in SHARPNESS:
                raised = torch.log1p(sharpness * alike)
                for weight in WEIGHTS:
                    parts[weight, sharpness, decay].append(_ndcg(part, scores + weight * raised))
    return {near: np.concatenate(cases) for near, cases in parts.items()}


@torch.no_grad()
def _extra(model: Recommender, corpus: Corpus, private: Private, unmet: torch.Tensor) -> float:
    """The largest of ``EXTRA`` under which validation NDCG@10 falls by no more than one standard error of that fall.

    ``unmet`` (items,) tells whom it is given to. One standard error: of settings that the cases cannot tell apart the
    one that is wanted (Breiman et al. 1984, 3.4.3), and wanted is that new items be shown at all.
    """
    falls: list[npt.NDArray[np.float64]] = []
    for part, scores in _scored(model, corpus, _some(corpus.split.valid), private):
        plain = _ndcg(part, scores)
        falls.append(np.stack([plain - _ndcg(part, scores + extra * unmet) for extra in EXTRA]))
    felt = [fall.mean() > fall.std() / math.sqrt(len(fall)) for fall in np.concatenate(falls, 1)]
    return max((extra for extra, much in zip(EXTRA, felt, strict=True) if not much), default=0.0)


def _some(cases: Cases) -> Cases:
    """``CASES`` of them at most, always the same."""
    if len(cases) <= CASES:
        return cases
    return cases.take(np.sort(stream(0, "neighbours").choice(len(cases), CASES, replace=False)))


def _scored(model: Recommender, corpus: Corpus, cases: Cases, private: Private) -> Iterator[tuple[Cases, torch.Tensor]]:
    """The cases in parts, and the model's scores of the catalogue for each, (part, items)."""
    score, items = model_score(model, corpus, cases, private), len(corpus.space)
    for block in in_order(len(cases), max(1, min(BLOCK_ROWS, BLOCK_SCORES // items))):
        yield cases.take(block), score(block)


def _ndcg(part: Cases, scores: torch.Tensor) -> npt.NDArray[np.float64]:
    """NDCG@10 of each case, (part,)."""
    found = rank_cases(part, scores.shape[1], scores.__getitem__)
    return case_metrics(found.ranks, part.targets.offsets, found.candidates, (10,))["ndcg@10"]
