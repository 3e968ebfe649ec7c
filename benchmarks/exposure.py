"""What the knobs of an answer trade: quality on a domain's own test cases beside what the lists expose.

    python benchmarks/exposure.py runs/mine shop --cases 1500

Prints a table over ``popularity`` and ``diversity`` (shared/policy.py): NDCG@10 and HR@10 of the answers as the doors
give them, items of the history included as the protocol wants it, mean popularity of what is shown, coverage and Gini.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from client.corpus import build_corpus
from client.recommend import open_serving
from client.store import Home
from shared.metrics import exposure
from shared.policy import Person, Wish, recommend
from shared.seeding import stream

K = 10
POPULARITY = (-2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)
DIVERSITY = (0.2, 0.4, 0.6)


def measure(serving, cases, popularity_of, wish: Wish) -> dict[str, float]:
    """Means over the cases; NDCG has binary gains and the ideal ordering of min(k, targets) hits."""
    top, gains, hits = np.zeros((len(cases), K), np.int64), [], []
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(K) + 2.0))])
    signals = serving.signals_for(None)
    for case, user in enumerate(cases.users.tolist()):
        rows = cases.histories.row(case).astype(np.int64)
        past = serving.engine.scorer.past(rows.tolist(), cases.histories.behaviour_row(case).astype(np.int64).tolist())
        known = user if serving.private.user is not None and user < serving.private.user.num_embeddings else None
        answer = recommend(serving.engine, Person(past, known, ("",) * len(rows)), wish, signals)
        top[case] = [serving.engine.catalog.row[item.item_id] for item in answer.items]
        targets = np.unique(cases.targets.row(case))
        found = np.flatnonzero(np.isin(top[case], targets))
        gains.append((1 / np.log2(found + 2.0)).sum() / ideal[min(K, len(targets))])
        hits.append(len(found) > 0)
    return {"ndcg@10": float(np.mean(gains)), "hr@10": float(np.mean(hits)), **exposure(top, popularity_of)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("domain")
    parser.add_argument("--cache", type=Path, default=Path("var/cache"))
    parser.add_argument("--cases", type=int, default=1500, help="test cases, drawn once; 0 takes all")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    serving = open_serving(Home(given.run / "homes" / given.domain), given.cache)
    corpus = build_corpus(serving.domain, serving.kept.protocol, serving.space(), serving.plan)
    cases = corpus.split.test
    if 0 < given.cases < len(cases):
        cases = cases.take(np.sort(stream(0, "exposure").choice(len(cases), given.cases, replace=False)))
    print(f"{given.domain}, protocol {serving.kept.protocol}, {len(cases):,} of {len(corpus.split.test):,} cases")
    print(
        f"{'popularity':>10} {'diversity':>9} {'NDCG@10':>8} {'HR@10':>7} {'mean pop.':>9} {'coverage':>8} {'Gini':>6}"
    )
    settings = [(value, 0.0) for value in POPULARITY] + [(0.0, value) for value in DIVERSITY]
    found = []
    for popularity, diversity in settings:
        wish = Wish(K, popularity=popularity, diversity=diversity, seen=serving.kept.protocol != "time")
        part = measure(serving, cases, corpus.popularity, wish)
        found.append({"popularity": popularity, "diversity": diversity, **part})
        print(
            f"{popularity:>10g} {diversity:>9g} {part['ndcg@10']:>8.4f} {part['hr@10']:>7.4f} "
            f"{part['popularity@10']:>9.1f} {part['coverage@10']:>8.4f} {part['gini@10']:>6.3f}",
            flush=True,
        )
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
