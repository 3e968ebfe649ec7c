"""Serves with a federation's model and without a training: what a domain can do on its first day.

The model brings what texts say; what is popular and what is met together is counted at home (``client/calibrate.py``).
Nothing is learnt by gradients, nothing leaves the domain, no server is asked.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from client.calibrate import calibrate
from client.corpus import Corpus
from client.evaluate import evaluate
from client.gate import Candidate, candidate
from client.rounds import DomainMember
from client.store import Home
from shared.errors import ConfigError, DataError
from shared.exported import read_exported
from shared.model import Recommender, adapter_tensors, base_fingerprint, initial_state, load_adapter_tensors
from shared.payload import Tensors, check_like
from shared.plan import Plan

ADOPTED, DRAWN = "adopted", "zero-shot"


def adopt(member: DomainMember, folder: Path) -> dict[str, Any]:
    """Take the model exported to ``folder`` into the member's home; what it reaches there.

    Raises DataError for a folder that is none or damaged, PayloadError where the model does not fit ours, ConfigError
    where the home serves what was trained.
    """
    if trained(member.home):
        raise ConfigError(
            f"{member.home.folder} serves a model that was trained there, which this would replace; "
            "keep it, or pass another --home"
        )
    given = read_exported(folder)
    plan = given.plan
    if member.base is not None:
        plan = replace(plan, model=replace(plan.model, base=member.base))
    model = member.workshop.model(plan)
    own = base_fingerprint(plan.model, model.base)
    if given.base != own:
        raise DataError(
            f"the model's base is {given.base[:60]!r}, ours is {own!r}; pass --base and the same checkpoint"
        )
    check_like(given.adapter, adapter_tensors(model), f"the model in {folder}")
    corpus = member.corpus(plan)
    load_adapter_tensors(model, given.adapter)
    federated = evaluate(model, corpus, corpus.split.test)
    found, valid = best(model, corpus, plan, given.adapter)
    private = found.put(model, corpus)
    result = {
        "domain": member.name,
        "protocol": member.protocol,
        "rounds": given.round,
        "federated": federated,
        "personal": evaluate(model, corpus, corpus.split.test, private),
        "valid": valid,
        "served": found.name,
        "privacy": member.spent(plan),
    }
    member.keep(model, private, plan, own, result)
    return result


def trained(home: Home) -> bool:
    """Whether the home serves what took a training, as far as can be told: only over what was adopted goes another."""
    if not home.about.is_file():
        return False
    try:
        return json.loads(home.result.read_text(encoding="utf-8"))["served"] not in (ADOPTED, DRAWN)
    except (OSError, ValueError, KeyError, TypeError):
        return True


def best(model: Recommender, corpus: Corpus, plan: Plan, adapter: Tensors) -> tuple[Candidate, dict[str, float]]:
    """The adapter given or, where that validates better, the one as drawn, each with its own counts; (it, validation
    NDCG@10 of both). So nobody serves a federated model that is worse than the texts alone."""
    found = []
    for name, tensors in ((ADOPTED, adapter), (DRAWN, initial_state(plan)[0])):
        load_adapter_tensors(model, tensors)
        private = corpus.private(model)
        found.append(candidate(name, calibrate(model, corpus, private), model, private))
    chosen = max(found, key=lambda one: one.valid)  # the first of equals: adopted
    return chosen, {one.name: one.valid for one in found}
