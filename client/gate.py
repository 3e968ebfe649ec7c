"""What a domain reaches alone, and the gate: it never serves a federated model that its own validation finds worse."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from client.corpus import Corpus
from client.neighbours import fit_neighbours
from client.store import save_model, write_json
from client.train import Tick, train
from shared.model import Private, Recommender, adapter_tensors, load_adapter_tensors
from shared.payload import Tensors
from shared.plan import Plan


@dataclass(frozen=True)
class Candidate:
    """A model that a domain could serve."""

    name: str
    valid: float  # validation NDCG@10 at home
    adapter: Tensors
    private: dict[str, torch.Tensor]

    def put(self, model: Recommender, corpus: Corpus) -> Private:
        """Load it into the model; returns its private parameters."""
        load_adapter_tensors(model, self.adapter)
        private = corpus.private(model)
        private.load_state_dict(self.private)
        return private


def candidate(name: str, valid: float, model: Recommender, private: Private) -> Candidate:
    """The model as it is now, copied."""
    state = {key: value.detach().clone() for key, value in private.state_dict().items()}
    return Candidate(name, valid, adapter_tensors(model), state)


def better(federated: Candidate, alone: Candidate) -> Candidate:
    """The federated model, unless the domain alone validates better."""
    return alone if alone.valid > federated.valid else federated


def alone(
    model: Recommender, corpus: Corpus, plan: Plan, protocol: str, folder: Path, tick: Tick | None = None
) -> Candidate:
    """The domain's own model, trained on its data alone from the adapter as drawn; zero-shot is its start, so it is
    never worse than that on validation.

    It is kept in ``folder`` and read back while data, protocol and settings are the same.
    """
    key = _key(model, corpus, plan, protocol)
    if (kept := _read(folder, key)) is not None:
        return kept
    start = Recommender(plan.model, model.base, plan.federation.seed)
    load_adapter_tensors(model, adapter_tensors(start))
    del start
    private = corpus.private(model)
    place = ("local", corpus.name)
    outcome = train(
        model, [corpus], [private], plan, epochs=plan.train.epochs, place=place, early_stopping=True, tick=tick
    )
    found = candidate("alone", fit_neighbours(model, corpus, private), model, private)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    save_model(folder, found.adapter, found.private)
    about = {"key": key, "valid": found.valid, "epochs": outcome.epochs, "curve": list(outcome.valid)}
    write_json(folder / "alone.json", about)  # last: without it the rest counts for nothing
    return found


def _key(model: Recommender, corpus: Corpus, plan: Plan, protocol: str) -> str:
    """Names everything that the result is a function of."""
    digest = hashlib.sha256()
    # Whether others later share its items changes nothing of a training alone.
    parts = [
        asdict(replace(plan.model, shared_items=False)),
        asdict(plan.train),
        asdict(plan.adversary),
        plan.federation.seed,
        protocol,
    ]
    digest.update(json.dumps([*parts, model.base.fingerprint, corpus.domain.catalog.fingerprint]).encode())
    for histories in (corpus.split.train, corpus.split.valid.histories, corpus.split.valid.targets):
        digest.update(histories.offsets.tobytes() + histories.items.tobytes() + histories.behaviours.tobytes())
    return digest.hexdigest()


def _read(folder: Path, key: str) -> Candidate | None:
    """What is kept there under that key; anything else is trained again."""
    try:
        about = json.loads((folder / "alone.json").read_text(encoding="utf-8"))
        if about["key"] != key:
            return None
        adapter, private = load_file(folder / "model.safetensors"), load_torch(folder / "private.safetensors")
        return Candidate("alone", float(about["valid"]), adapter, private)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
