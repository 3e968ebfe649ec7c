"""Serves with a federation's model and without a training: what a domain can do on its first day.

The model brings what texts say; what is popular and what is met together is counted at home (``client/calibrate.py``).
Nothing is learnt by gradients, nothing leaves the domain, no server is asked.
"""

import json
from dataclasses import replace
from typing import Any

from client.calibrate import calibrate
from client.corpus import Corpus
from client.evaluate import evaluate, validate
from client.rounds import DomainMember
from client.store import Home
from shared.errors import ConfigError, DataError
from shared.exported import Exported
from shared.model import Recommender, adapter_tensors, base_fingerprint, initial_state, load_adapter_tensors
from shared.payload import Tensors, check_like
from shared.private import Private

ADOPTED, DRAWN = "adopted", "zero-shot"


def adopt(member: DomainMember, given: Exported) -> dict[str, Any]:
    """Take the model given into the member's home; what it reaches there.

    Raises DataError, PayloadError where it does not fit ours, ConfigError where the home serves what was trained.
    """
    if trained(member.home):
        raise ConfigError(
            f"{member.home.folder} serves a model that was trained there, which this would replace; "
            "keep it, or pass another --home"
        )
    plan = given.plan
    if member.base is not None:
        plan = replace(plan, model=replace(plan.model, base=member.base))
    model = member.workshop.model(plan)
    own = base_fingerprint(plan.model, model.base)
    if given.base != own:
        raise DataError(
            f"the model's base is {given.base[:60]!r}, ours is {own!r}; pass --base and the same checkpoint"
        )
    check_like(given.adapter, adapter_tensors(model), "the model given")
    corpus = member.corpus(plan)
    load_adapter_tensors(model, given.adapter)
    federated = evaluate(model, corpus, corpus.split.test)
    private, facts = best(model, corpus, initial_state(plan)[0], given.adapter)
    result = {
        "domain": member.name,
        "protocol": member.protocol,
        "rounds": given.round,
        "federated": federated,
        "personal": evaluate(model, corpus, corpus.split.test, private),
        **facts,
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


def best(model: Recommender, corpus: Corpus, drawn: Tensors, adapter: Tensors) -> tuple[Private, dict[str, Any]]:
    """Leave in the model the adapter given or, where texts alone validate better by it, the one as ``drawn``; what is
    counted at home on top of it, and how both validate. So nobody serves an adapter that is worse than none."""
    valid = {}
    for name, tensors in ((DRAWN, drawn), (ADOPTED, adapter)):
        load_adapter_tensors(model, tensors)
        valid[name] = validate(model, corpus)
    served = ADOPTED
    if valid[DRAWN] > valid[ADOPTED]:
        served = DRAWN
        load_adapter_tensors(model, drawn)
    private = corpus.private(model)
    return private, {"served": served, "valid": {**valid, "counted": calibrate(model, corpus, private)}}
