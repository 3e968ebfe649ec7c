"""What a domain reaches alone, what lies between that and the federated model, and the gate: a domain never serves a
federated model that its own validation finds worse."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from client.calibrate import calibrate
from client.corpus import Corpus
from client.evaluate import validate
from client.store import save_model, write_json
from client.train import Outcome, Tick, train
from shared.model import Recommender, adapter_tensors, load_adapter_tensors
from shared.neighbours import Neighbours
from shared.payload import Tensors
from shared.plan import Plan
from shared.private import Private

# By how much of its own figure a federated model without kin must be better: two trainings of one domain, apart in the
# order of batches alone, are as far apart as that (simulations/LOG.md).
MARGIN = 0.01
RISING = 0.01  # one of eight owners of shops' trainings rose so at its end, news' and that of people for people did
SHARES = (0.25, 0.5, 0.75)  # of the model trained alone, in a mean with the federated one


@dataclass(frozen=True)
class Candidate:
    """A model that a domain could serve."""

    name: str
    valid: float  # validation NDCG@10 at home
    adapter: Tensors
    private: dict[str, torch.Tensor]
    neighbours: Neighbours | None

    def put(self, model: Recommender, corpus: Corpus) -> Private:
        """Load it into the model; returns its private parameters."""
        load_adapter_tensors(model, self.adapter)
        private = corpus.private(model)
        private.load_state_dict(self.private)
        private.neighbours = self.neighbours
        return private


@dataclass(frozen=True)
class _Trained:
    """The best of a domain's own trainings so far."""

    outcome: Outcome
    adapter: Tensors
    private: dict[str, torch.Tensor]
    next_epochs: int  # of the training that is to follow; 0 for none


def candidate(name: str, valid: float, model: Recommender, private: Private) -> Candidate:
    """The model as it is now, copied."""
    state = {key: value.detach().clone() for key, value in private.state_dict().items()}
    return Candidate(name, valid, adapter_tensors(model), state, private.neighbours)


def better(federated: Candidate, alone: Candidate, kin: bool) -> Candidate:
    """The federated model where it validates no worse than the domain alone, and better by ``MARGIN`` where it
    has no ``kin``, no other domain in its towers; also where validation tells nothing, for want of cases or of hits."""
    least = alone.valid * (1 if kin else 1 + MARGIN)
    return alone if alone.valid > 0 and federated.valid < least else federated


def between(
    model: Recommender, corpus: Corpus, federated: Candidate, alone: Candidate, counted: Tensors | None = None
) -> Candidate:
    """The mean of both, parameter by parameter, in the ``SHARES`` that validate best.

    Both began at the same draw and end in one basin, where a mean is often better than either (Deng et al. 2020, APFL,
    equation 1, at the end of training; Wortsman et al. 2022). One model is served, whatever went into it.
    ``counted`` as in ``calibrate``.
    """

    def found(share: float, valid: float = 0.0) -> Candidate:
        adapter = {
            name: ((1 - share) * value + share * alone.adapter[name]).astype(value.dtype)
            for name, value in federated.adapter.items()
        }
        own = {name: torch.lerp(value, alone.private[name], share) for name, value in federated.private.items()}
        return Candidate("between", valid, adapter, own, federated.neighbours)

    tried = {share: validate(model, corpus, found(share).put(model, corpus)) for share in SHARES}
    best = found(max(tried, key=lambda share: tried[share]))
    private = best.put(model, corpus)
    return candidate("between", calibrate(model, corpus, private, counted), model, private)


def alone(
    model: Recommender, corpus: Corpus, plan: Plan, protocol: str, folder: Path, tick: Tick | None = None
) -> Candidate:
    """The domain's own model, trained on its data alone from the adapter as drawn; zero-shot is its start, so it is
    never worse than that on validation. One that was still rising is trained anew for twice as long (``unfinished``).

    What was trained is kept in ``folder``, after each training, and read back while data, protocol and settings are the
    same.
    """
    key = _key(model, corpus, plan, protocol)
    best = _read(folder, key)
    while best is None or best.next_epochs:
        epochs = plan.train.epochs if best is None else best.next_epochs
        load_adapter_tensors(model, adapter_tensors(Recommender(plan.model, model.base, plan.federation.seed)))
        private = corpus.private(model)
        place = ("local", corpus.name)
        outcome = train(model, [corpus], [private], plan, epochs=epochs, place=place, early_stopping=True, tick=tick)
        longer = 2 * epochs if unfinished(outcome.valid) and 2 * epochs <= plan.train.most_epochs else 0
        if best is None or outcome.best > best.outcome.best:
            best = _Trained(outcome, adapter_tensors(model), private.state_dict(), longer)
        else:
            best = replace(best, next_epochs=longer)
        _keep(folder, key, best)
    load_adapter_tensors(model, best.adapter)
    private = corpus.private(model)
    private.load_state_dict(best.private)
    return candidate("alone", calibrate(model, corpus, private), model, private)


def unfinished(valid: Sequence[float]) -> bool:
    """Whether a training's last epoch, its rate next to nothing, still validates better by ``RISING`` than all before.

    ``valid`` as ``Outcome`` has it, of a training that was not stopped early: such a one ends after falling.
    """
    return valid[-1] > (1 + RISING) * max(valid[:-1], default=math.inf)


def _key(model: Recommender, corpus: Corpus, plan: Plan, protocol: str) -> str:
    """Names everything that the result is a function of."""
    digest = hashlib.sha256()
    # Nothing of a federation, and nothing that follows a training, changes a training alone. Such a setting that came
    # later is left out, not given its usual value: what was kept before stays good.
    pace = replace(plan.train, round_epochs=1, private_rounds=True, personal_epochs=0, personal_rate=1.0)
    own = asdict(replace(pace, gate=True, mix=True, pooled_epochs=1))
    del own["pull"]
    parts = [
        asdict(replace(plan.model, shared_items=False, neighbours=0, expected_counts=False)),
        own,
        asdict(plan.adversary),
        plan.federation.seed,
        protocol,
    ]
    digest.update(json.dumps([*parts, model.base.fingerprint, corpus.domain.catalog.fingerprint]).encode())
    for histories in (corpus.split.train, corpus.split.valid.histories, corpus.split.valid.targets):
        digest.update(histories.offsets.tobytes() + histories.items.tobytes() + histories.behaviours.tobytes())
    if len(corpus.domain.unwanted.users):
        digest.update(np.concatenate(corpus.domain.unwanted).tobytes())
    return digest.hexdigest()


def _keep(folder: Path, key: str, best: _Trained) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "alone.json").unlink(missing_ok=True)
    save_model(folder, best.adapter, best.private)
    found = best.outcome
    about = {"key": key, "valid": found.best, "epochs": found.epochs, "curve": list(found.valid)}
    # Last: without it the rest counts for nothing.
    write_json(folder / "alone.json", {**about, "next_epochs": best.next_epochs})


def _read(folder: Path, key: str) -> _Trained | None:
    """What is kept there under that key; anything else is trained again."""
    try:
        about = json.loads((folder / "alone.json").read_text(encoding="utf-8"))
        if about["key"] != key:
            return None
        adapter, private = load_file(folder / "model.safetensors"), load_torch(folder / "private.safetensors")
        outcome = Outcome(about["epochs"], math.nan, tuple(about["curve"]))
        # What was kept before a training could begin anew tells of no more epochs.
        return _Trained(outcome, adapter, private, about.get("next_epochs", 0))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
