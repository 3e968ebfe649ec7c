"""The ways to recommend in each domain, side by side: what does a federation bring?

zero_shot  the frozen base's texts alone, nothing trained
local      the domain alone, with everything it may use at home
federated  the global model, as it leaves the last round
personal   the global model, then private fine-tuning at home
adopted    nothing trained at home: the global model as an unknown domain gets it, and what is counted at home
pooled     all domains' data in one place: what no federation may do
devices    no domain holds anything: each of its users is a client
together   likewise, and a device also reads what it holds of the other domains
and the baselines, each on one domain alone
"""

import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.adopt import best
from client.calibrate import calibrate
from client.evaluate import TOP, Ranked, measure, model_score, rank_cases
from client.gate import alone
from client.rounds import DomainMember
from client.store import write_json
from client.train import Tick, train
from client.workshop import Workshop
from server import registry
from server.aggregate import aggregator_for
from server.rounds import ServerState, adapter_for, step, tasks
from shared.errors import ConfigError
from shared.lora import save_adapter
from shared.memory import give_back
from shared.model import Recommender, base_fingerprint, initial_state, load_adapter_tensors, released_names
from shared.payload import Tensors
from shared.plan import Plan, check_silos
from shared.private import Private
from shared.whole import read_json
from simulations.baselines import BASELINES, find_baseline
from simulations.devices import train_devices, train_together
from simulations.flower_run import run_in_flower
from simulations.in_process import carrier_for
from simulations.overlap import known_elsewhere
from simulations.private_devices import check_devices, spent_by_devices, train_under_promise
from simulations.same_run import DAMAGED, check_data, check_plan, other_run
from simulations.versions import commit, fingerprints, versions

Say = Callable[[str], None]
UNKNOWN = ""  # a domain that the server never heard of
METHODS = ("zero_shot", "local", "federated", "personal", "adopted", "pooled", "devices", "together")


@dataclass
class Comparison:
    """One simulation: its members, its run directory, and the cells that are done."""

    plan: Plan
    members: Sequence[DomainMember]
    workshop: Workshop
    out: Path
    protocol: str
    carrier: str = "in-process"
    say: Say = print
    guests: Sequence[DomainMember] = ()  # do not train: they get what an unknown domain gets
    cells: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # method -> domain -> metrics
    seconds: dict[str, float] = field(default_factory=dict)
    commits: dict[str, list[str]] = field(default_factory=dict)  # code -> the cells that it made
    started: float = field(default_factory=time.monotonic)

    def run(self, methods: Sequence[str]) -> dict[str, Any]:
        """Fill the cells asked for that are not there yet, save after each, return ``result.json``'s content.

        Raises ConfigError when the directory holds a run of another plan or other domains, and on a method that this
        plan, protocol or machine cannot run.
        """
        self.check(methods)
        (self.out / "homes").mkdir(parents=True, exist_ok=True)
        made = fingerprints(self.plan, [member.domain for member in self.everyone])
        self.reopen(made)
        write_json(self.out / "versions.json", versions())
        (self.out / "plan.json").write_text(self.plan.to_json(), encoding="utf-8")
        write_json(self.out / "fingerprints.json", made)
        model = self.workshop.model(self.plan)
        start, _, _ = initial_state(self.plan)  # not what the resident model holds: another run may have trained it
        for member in self.everyone:
            member.corpus(self.plan)
        runs: dict[str, Callable[[Recommender, Tensors], None]] = {
            "zero_shot": self.zero_shot,
            "local": self.local,
            "federated": self.federated,
            "adopted": self.adopted,
            "pooled": self.pooled,
            "devices": self.devices,
            **{name: partial(self.baseline, name) for name in BASELINES},
            "together": self.together,  # last: its model is another one
        }
        for method, fill in runs.items():
            wanted = method in methods or (method == "federated" and not {"personal", "adopted"}.isdisjoint(methods))
            if wanted and not self.complete(method):
                load_adapter_tensors(model, start)
                with self.timed(method):
                    fill(model, start)
            if method == "federated" and "personal" in methods and not self.complete("personal"):
                with self.timed("personal"):
                    self.personal(model)
        return self.save()

    def check(self, methods: Sequence[str]) -> None:
        """Raises ConfigError on what could not run, before anything is trained or paid for."""
        asked = set(methods)
        if asked & {"federated", "personal", "adopted"}:
            check_silos(self.plan)
        if "devices" in asked and self.plan.private:
            check_devices(self.plan)
        if "together" in asked:
            if self.plan.private:
                raise ConfigError("together adds no noise and cannot go with privacy.epsilon; ask for devices")
            if self.protocol != "loo" or len(self.members) < 2:
                raise ConfigError("together expects two domains or more and --protocol loo")
        for name in BASELINES:
            if name in asked:
                find_baseline(name)

    @contextmanager
    def timed(self, method: str) -> Iterator[None]:
        """Add what this takes to the method's seconds, also where it breaks off with some of its cells done."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[method] = round(self.seconds.get(method, 0.0) + time.monotonic() - began, 1)
            if method in self.cells:
                self.save()

    def reopen(self, made: dict[str, Any]) -> None:
        """Take over the cells of an interrupted run of the same plan on the same data."""
        if not check_plan(self.out, self.plan):
            return
        paths = {name: self.out / f"{name}.json" for name in ("fingerprints", "result")}
        kept = {name: read_json(path, DAMAGED) for name, path in paths.items() if path.exists()}
        before = kept.get("result", {})
        if (protocol := before.get("protocol", self.protocol)) != self.protocol:
            raise other_run(self.out, f"another protocol ({protocol}, asked {self.protocol})")
        check_data(self.out, kept.get("fingerprints", {}), made)
        if not before:
            return
        self.commits = before.get("commits", {})
        self.seconds.update(before["seconds_by_method"])
        self.started -= before["seconds"]
        for name, domain in before["domains"].items():
            for method in (*METHODS, *BASELINES):
                if method in domain:
                    self.cells.setdefault(method, {})[name] = domain[method]

    def complete(self, method: str) -> bool:
        """Whether every domain asked has this cell."""
        return not self.lacking(method)

    def lacking(self, method: str) -> list[DomainMember]:
        """Whose cells of a method are not there yet."""
        return [member for member in self.asked(method) if member.name not in self.cells.get(method, {})]

    @property
    def everyone(self) -> list[DomainMember]:
        return [*self.members, *self.guests]

    def asked(self, method: str) -> list[DomainMember]:
        """Whose cells a method fills."""
        return [*self.members, *(self.guests if method in ("zero_shot", "federated", "adopted") else ())]

    def zero_shot(self, model: Recommender, start: Tensors) -> None:
        for member in self.lacking("zero_shot"):
            self.put("zero_shot", member, self.ranked(model, member))

    def local(self, model: Recommender, start: Tensors) -> None:
        for member in self.lacking("local"):
            corpus, tick = member.corpus(self.plan), self.tick(f"{member.name} alone")
            own = alone(model, corpus, self.plan, self.protocol, member.home.alone, tick)
            self.say(f"{member.name} alone: validation NDCG@10 {own.valid:.4f}")
            self.put("local", member, self.ranked(model, member, own.put(model, corpus)))

    def pooled(self, model: Recommender, start: Tensors) -> None:
        corpora = [member.corpus(self.plan) for member in self.members]
        privates = [corpus.private(model) for corpus in corpora]
        epochs, tick = self.plan.train.pooled_epochs, self.tick("all domains pooled")
        outcome = train(
            model, corpora, privates, self.plan, epochs=epochs, place=("pooled",), early_stopping=True, tick=tick
        )
        self.say(f"pooled: kept epoch {outcome.epochs}, validation NDCG@10 {outcome.best:.4f}")
        for member, private in zip(self.members, privates, strict=True):
            calibrate(model, member.corpus(self.plan), private)
            self.put("pooled", member, self.ranked(model, member, private))

    def devices(self, model: Recommender, start: Tensors) -> None:
        """Each domain as a federation of its users' devices."""
        for member in self.lacking("devices"):
            load_adapter_tensors(model, start)
            if self.plan.private:
                tick = self.tick(f"{member.name}: devices")
                private, clip = train_under_promise(model, member, self.plan, tick)
                self.say(f"{member.name} devices: took the last step's model, the last clip was {clip:.3g}")
                self.put("devices", member, self.ranked(model, member, private))
                continue
            private, outcome = train_devices(
                model, member.corpus(self.plan), self.plan, self.tick(f"{member.name}: devices")
            )
            self.say(f"{member.name} devices: kept epoch {outcome.epochs}, validation NDCG@10 {outcome.best:.4f}")
            self.put("devices", member, self.ranked(model, member, private))

    def together(self, model: Recommender, start: Tensors) -> None:
        """Each domain in turn recommends on devices that hold their users' histories in all of them."""
        for member in self.lacking("together"):
            others = [other.domain for other in self.members if other is not member]
            corpus, tick = member.corpus(self.plan), self.tick(f"{member.name}: devices, together")
            ranked, outcome = train_together(self.workshop, corpus, others, self.plan, tick)
            self.say(f"{member.name} together: kept epoch {outcome.epochs}, validation NDCG@10 {outcome.best:.4f}")
            self.put("together", member, ranked)

    def baseline(self, name: str, model: Recommender, start: Tensors) -> None:
        """One of the baselines, on each domain alone."""
        for member in self.lacking(name):
            corpus = member.corpus(self.plan)
            place = member.home.folder / "baselines" / f"{name}.safetensors"
            recommend = find_baseline(name)(corpus, self.plan.federation.seed, self.workshop.tick, place)
            cases = corpus.split.test
            self.put(name, member, rank_cases(cases, len(corpus.space), recommend(cases), TOP))

    def tick(self, what: str) -> Tick | None:
        """Progress under a name of its own."""
        tick = self.workshop.tick
        return None if tick is None else lambda step, done, total: tick(f"{what}: {step}", done, total)

    def federated(self, model: Recommender, start: Tensors) -> None:
        """All rounds through the carrier; the adapter and each round's log go into the run directory."""
        base = base_fingerprint(self.plan.model, model.base)
        aggregator = aggregator_for(self.plan)
        if (self.out / "current").exists():
            state = registry.resume(self.out, self.plan.to_json())
        else:
            state = ServerState(1, self.plan, start, released_names(self.plan, list(start)), base, aggregator.init())
            registry.begin(self.out, state)
        began = time.monotonic()

        def on_round(now: ServerState) -> None:
            nonlocal began
            now = registry.with_report(now, seconds=round(time.monotonic() - began, 2))
            began = time.monotonic()
            registry.save_state(self.out, now)
            registry.append_round(self.out, now.report)
            # Where nothing is everyone's (towers by affinity, no LoRA), each domain's adapter moved by itself.
            moved = max(now.report["moved"].values(), default=0.0)
            self.say(f"round {now.round - 1}/{self.plan.federation.rounds}: largest common change {moved:.2g}")

        if self.carrier == "flower":
            names = [member.name for member in self.members]
            left = self.plan.federation.rounds + 1 - state.round
            state = run_in_flower(state, aggregator, left, names, self.spec(), torch.get_num_threads(), on_round)
        else:
            while state.round <= self.plan.federation.rounds:
                state = step(state, carrier_for(state, self.members), aggregator)
                on_round(state)
        lora = {name: value for name, value in state.adapter.items() if ".lora_" in name}
        save_adapter(model.top.wrapped, lora, self.out / "adapter")
        for member in self.lacking("federated"):
            load_adapter_tensors(model, adapter_for(state, aggregator, member.name))
            self.put("federated", member, self.ranked(model, member))
            if self.carrier == "flower":  # its members fine-tuned at home when the last round was over
                found = json.loads(member.home.result.read_text(encoding="utf-8"))
                self.note("personal", member, found["personal"])

    def personal(self, model: Recommender) -> None:
        """Private fine-tuning on top of the global model; what serving needs goes into each home."""
        state = registry.load_state(self.out)
        task_for = tasks(state, aggregator_for(self.plan), "finish")
        for member in self.lacking("personal"):
            task = task_for(member.name)
            load_adapter_tensors(model, task.adapter)
            private, facts = member.serve_best(model, task)
            scores = self.measured("personal", member, self.ranked(model, member, private))
            about = {"domain": member.name, "protocol": self.protocol, "personal": scores, **facts}
            # Before the cell: where that is, the home has what it serves.
            member.keep(model, private, task.plan, task.base, about)
            self.say(f"{member.name} serves {facts['served']}: validation NDCG@10 {spell(facts['valid'])}")
            self.note("personal", member, scores)

    def adopted(self, model: Recommender, start: Tensors) -> None:
        given = adapter_for(registry.load_state(self.out), aggregator_for(self.plan), UNKNOWN)
        for member in self.lacking("adopted"):
            corpus = member.corpus(self.plan)
            private, facts = best(model, corpus, start, given)
            self.say(f"{member.name} untrained, takes {facts['served']}: validation NDCG@10 {spell(facts['valid'])}")
            self.put("adopted", member, self.ranked(model, member, private))

    def spec(self) -> Path:
        """What Flower's actors need to open the members themselves."""
        options = {
            "cache": str(self.workshop.cache.resolve()),
            "protocol": self.protocol,
            "simulated": True,
            "share_items": True,
        }
        members = {
            member.name: {
                "folder": str(member.domain.folder.resolve()),
                "home": str(member.home.folder.resolve()),
                "options": options,
            }
            for member in self.members
        }
        path = self.out / "members.json"
        table = {"opener": "client.rounds:open_member", "secure": self.plan.federation.secure, "members": members}
        write_json(path, table)
        return path.resolve()

    def ranked(self, model: Recommender, member: DomainMember, private: Private | None = None) -> Ranked:
        """The test cases as the model ranks them."""
        corpus = member.corpus(self.plan)
        cases = corpus.split.test
        return rank_cases(cases, len(corpus.space), model_score(model, corpus, cases, private), TOP)

    def put(self, method: str, member: DomainMember, ranked: Ranked) -> None:
        """Keep a cell: its means in the result, its cases one by one at the domain's home."""
        self.note(method, member, self.measured(method, member, ranked))

    def measured(self, method: str, member: DomainMember, ranked: Ranked) -> dict[str, Any]:
        """A cell's means; its cases one by one lie at the domain's home from now on."""
        corpus = member.corpus(self.plan)
        others = [other.corpus(self.plan) for other in self.everyone if other is not member]
        found, by_case = measure(ranked, corpus, corpus.split.test, known_elsewhere(corpus, others))
        place = member.home.folder / "cases" / f"{method}.npz"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.savez(place, allow_pickle=False, **{name: value.astype(np.float32) for name, value in by_case.items()})
        return found

    def note(self, method: str, member: DomainMember, metrics: dict[str, Any]) -> None:
        self.cells.setdefault(method, {})[member.name] = metrics
        self.commits.setdefault(commit(), []).append(f"{member.name} {method}")
        give_back()
        self.say(f"{member.name} {method}: HR@10 {metrics['hr@10']:.4f}, NDCG@10 {metrics['ndcg@10']:.4f}")
        self.save()

    def save(self) -> dict[str, Any]:
        """Write ``result.json`` with what is known so far."""
        domains: dict[str, Any] = {}
        for member in self.everyone:
            data = member.domain
            domains[member.name] = {
                "users": len(data.interactions.user_ids),
                "items": len(data.catalog),
                "interactions": len(data.interactions),
                "notes": list(member.corpus(self.plan).split.notes),
                **{method: cells[member.name] for method, cells in self.cells.items() if member.name in cells},
            }
            if spent := member.spent(self.plan):
                domains[member.name]["privacy"] = spent
            if spent := spent_by_devices(member, self.plan):
                domains[member.name]["devices_privacy"] = spent
        result = {
            "protocol": self.protocol,
            "ranking": "sampled (99 negatives)" if self.protocol == "loo-99" else "full",
            "seed": self.plan.federation.seed,
            "rounds": self.plan.federation.rounds,
            "carrier": self.carrier,
            "family": self.plan.federation.family,
            "adversarial": self.plan.adversary.weight > 0,
            "seconds": round(time.monotonic() - self.started, 1),
            "seconds_by_method": self.seconds,
            "commits": self.commits,
            "peak_resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "domains": domains,
            "macro": {method: macro(cells) for method, cells in self.cells.items() if self.complete(method)},
        }
        write_json(self.out / "result.json", result)
        return result


def spell(valid: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in valid.items())


def macro(cells: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Mean over domains of each metric; where all have it."""
    shared = set.intersection(
        *({name for name, value in cell.items() if isinstance(value, float)} for cell in cells.values())
    )
    return {name: float(np.mean([cell[name] for cell in cells.values()])) for name in sorted(shared)}
