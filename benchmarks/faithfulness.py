"""Are explanations true of the model? What is named must matter more than anything else named at random.

    python benchmarks/faithfulness.py RUN DOMAIN [--people 400]

Of each person's best recommendation: the score's drop without the event that is named, and without another one drawn at
random, by occlusion (exact for one event by construction, so also without the three that are named, and three others)
and by gradient times input (one backward pass for all events). Of the words: the drop when the named word is deleted
from the item's text, read anew by the whole encoder, and when another is. One named thing alone proves nothing and does
not count.
"""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from client.recommend import Serving, open_serving
from client.store import Home
from shared.maps import some
from shared.policy import Person, Wish, recommend
from shared.reasons import drops
from shared.scoring import Past, Scorer, item_vectors
from shared.seeding import stream
from shared.words import item_words

BAR = 0.80


def main(
    run: Annotated[Path, typer.Argument(help="A simulation's run directory.")],
    domain: Annotated[str, typer.Argument(help="One of its domains.")],
    people: Annotated[int, typer.Option(help="How many users, drawn at random.")] = 400,
    texts: Annotated[int, typer.Option(help="Of how many of them also the words.")] = 150,
    cache: Annotated[Path, typer.Option(help="Where prefix states are kept.")] = Path("var/cache"),
) -> None:
    """Print the figures as JSON; ends with status 1 below the bar of 80 %."""
    torch.set_num_threads(1)
    serving = open_serving(Home(run / "homes" / domain), cache)
    ids = serving.domain.interactions.user_ids
    tally: dict[str, list[tuple[float, float]]] = {}
    gaps: list[float] = []
    took = {"occlusion": 0.0, "gradient": 0.0, "words": 0.0}
    draw = stream(7, "faithfulness", domain)
    chosen = draw.permutation(some(len(ids), people).numpy())
    for place, user in enumerate(chosen.tolist()):
        person = serving.known(ids[user])
        found = recommend(serving.engine, person, Wish(1), serving.signals)
        if not found.items or len(person.past) < 2:
            continue
        row = serving.engine.catalog.row[found.items[0].item_id]
        events(serving, person, row, draw, tally, took)
        if place < texts:
            words(serving, person, row, draw, tally, took, gaps)
        if place % 50 == 49:
            print(f"{place + 1} of {len(chosen)}", file=sys.stderr)
    figures = {name: summary(pairs) for name, pairs in tally.items()}
    within = float(np.mean(np.array(gaps) <= 0.05)) if gaps else None
    answer = {
        "domain": domain,
        "people": len(chosen),
        "figures": figures,
        "ms_each": {
            name: round(1000 * s / max(1, len(chosen) if name != "words" else len(gaps)), 1) for name, s in took.items()
        },
        "words": {"gap_median": float(np.median(gaps)) if gaps else None, "gap_within_tolerance": within},
    }
    print(json.dumps(answer, indent=1))
    if figures["event"]["larger"] < BAR:
        raise SystemExit(
            f"the named event matters more in {figures['event']['larger']:.0%} of cases, the bar is {BAR:.0%}"
        )


def events(serving: Serving, person: Person, row: int, draw: Any, tally: dict, took: dict) -> None:
    """One event, and three, named by occlusion and by the gradient, against others."""
    scorer = serving.engine.scorer
    past = person.past.last(scorer.model.plan.max_history)
    began = time.perf_counter()
    exact = drops(scorer, past, person.user, torch.tensor([row]))[:, 0].numpy()
    took["occlusion"] += time.perf_counter() - began
    began = time.perf_counter()
    cheap = gradient(scorer, past, person.user, row)
    took["gradient"] += time.perf_counter() - began
    for name, weights in (("event", exact), ("event by gradient", cheap)):
        best = int(weights.argmax())
        other = int(draw.choice(np.delete(np.arange(len(past)), best)))
        tally.setdefault(name, []).append((float(exact[best]), float(exact[other])))
        if len(past) >= 6:
            named = np.argsort(-weights)[:3]
            others = draw.choice(np.setdiff1d(np.arange(len(past)), named), 3, replace=False)
            pair = (without(scorer, past, person.user, row, named), without(scorer, past, person.user, row, others))
            tally.setdefault(f"three {name.replace('event', 'events')}", []).append(pair)
    tally.setdefault("gradient finds occlusion's event", []).append((float(exact.argmax() == cheap.argmax()), 0.5))


def gradient(scorer: Scorer, past: Past, user: int | None, row: int) -> np.ndarray:
    """(events,): gradient of the item's score times what the towers read of each event."""
    tuned, plain = (part[None].detach().clone().requires_grad_(True) for part in (past.tuned, past.plain))
    u, z = scorer.towers(tuned, plain, past.behaviours[None], torch.tensor([len(past) - 1]), user)
    weights, vectors = scorer.weights.detach(), scorer.vectors
    score = weights[0] * (u[0] @ vectors.v[row]) + weights[1] * (z[0] @ vectors.base[row])
    found = torch.autograd.grad(score, (tuned, plain))
    added = sum((grad * part).sum(-1) for grad, part in zip(found, (tuned, plain), strict=True))
    return added[0].detach().numpy()


def without(scorer: Scorer, past: Past, user: int | None, row: int, gone: np.ndarray) -> float:
    """By how much the score falls when several events had not been."""
    kept = torch.ones(len(past), dtype=torch.bool)
    kept[torch.as_tensor(gone)] = False
    left = Past(past.rows[kept], past.behaviours[kept], past.tuned[kept], past.plain[kept])
    whole, less = (scorer.scores(query, torch.tensor([row])) for query in scorer.queries([past, left], user))
    return float(whole - less)


def words(serving: Serving, person: Person, row: int, draw: Any, tally: dict, took: dict, gaps: list) -> None:
    """The named word deleted from the text, against another."""
    began = time.perf_counter()
    found = item_words(serving.engine, person, row)
    took["words"] += time.perf_counter() - began
    if found is None:
        return
    gaps.append(abs(found.gap) / max(abs(found.score), abs(found.blank), abs(found.score - found.blank)))
    if len(found.words) < 2:
        return
    weights = np.array([word.weight for word in found.words])
    best = int(weights.argmax())
    other = int(draw.choice(np.delete(np.arange(len(weights)), best)))
    spelt = [word.word for word in found.words]
    texts = [" ".join(spelt), *(" ".join(spelt[:gone] + spelt[gone + 1 :]) for gone in (best, other))]
    whole, named, random = scores(serving, person, row, texts)
    tally.setdefault("word", []).append((whole - named, whole - random))


def scores(serving: Serving, person: Person, row: int, texts: list[str]) -> list[float]:
    """Of the item, were its text another: all that the domain learnt of it beyond the text stays."""
    engine = serving.engine
    scorer, model = engine.scorer, engine.scorer.model
    plain, tuned = engine._read(texts)
    new = item_vectors(model, plain, tuned, None)
    vectors = scorer.vectors
    residual = vectors.v[row] - model.items(vectors.x[row : row + 1])[0].detach()
    query, weights = scorer.query(person.past, person.user), scorer.weights.detach()
    return (weights[0] * ((new.v + residual) @ query.user) + weights[1] * (new.base @ query.prior)).tolist()


def summary(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Share of cases in which the named one matters more, and the mean drops."""
    named, random = np.array(pairs).T
    return {
        "cases": len(pairs),
        "larger": round(float((named > random).mean()), 3),
        "drop_named": round(float(named.mean()), 3),
        "drop_random": round(float(random.mean()), 3),
    }


if __name__ == "__main__":
    typer.run(main)
