"""Task -> AdapterUpdate: load, train, subtract, sign off. The resident side of one domain."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from client.budget import (
    Limits,
    check_budget,
    check_delta,
    check_passports,
    check_protocol,
    check_sharing,
    declared,
    planned_round,
    spent_at,
    told_at,
)
from client.calibrate import calibrate
from client.corpus import Corpus, build_corpus
from client.dataset import Domain
from client.evaluate import evaluate, validate
from client.forgotten import read_at_home
from client.gate import alone, better, between, candidate
from client.journal import Journal
from client.privacy import sampled_users, train_privately
from client.released import drop_begun, keep_none_released, keep_released, load_released, pay
from client.store import Home, Kept, keep, keep_round, load_round
from client.train import Outcome, Tick, train
from client.workshop import Workshop
from shared.accounting import epsilon, finite
from shared.errors import PayloadError, TrainingError
from shared.ledger import GaussianSteps, PlainRelease, append_event, reserved
from shared.model import Recommender, adapter_tensors, base_fingerprint, load_adapter_tensors, released_names
from shared.neighbours import tensors_of
from shared.payload import (
    COUNTED,
    LEARNT,
    PAIRS,
    AdapterUpdate,
    Task,
    Tensors,
    check_like,
    common,
    name_of,
    run_of,
    table,
    table_keys,
    table_name,
)
from shared.plan import ModelPlan, Plan, check_silos
from shared.prefix import find_base
from shared.private import Private, item_table, load_item_table
from shared.takeover import mark_of


class DomainMember:
    """One domain, resident between rounds: its data, its model, its ledger. Only updates leave it."""

    def __init__(
        self,
        domain: Domain,
        home: Home,
        workshop: Workshop,
        *,
        protocol: str = "loo",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        base: str | None = None,
        simulated: bool = False,
    ) -> None:
        """``base`` is the checkpoint to open whatever path a task names; None trusts the task (simulations)."""
        self.domain, self.home, self.workshop = domain, home, workshop
        self.protocol, self.limits, self.base, self.simulated = protocol, limits, base, simulated
        self._corpus: tuple[tuple[ModelPlan, int, bool], Corpus] | None = None
        self._forgotten = mark_of(home.forgotten)

    @property
    def name(self) -> str:
        return self.domain.name

    def corpus(self, plan: Plan) -> Corpus:
        """The domain's data as this plan's model sees it; built once."""
        key = (plan.model, plan.train.user_events, plan.private)
        if self._corpus is None or self._corpus[0] != key:
            space = self.workshop.space(plan, self.domain)
            self._corpus = (key, build_corpus(self.domain, self.protocol, space, plan))
        return self._corpus[1]

    def train(self, task: Task) -> AdapterUpdate:
        """One round from the task's adapter; a function of the task, the data, the seed and what the round before left.

        Raises PayloadError when the task does not fit, ConfigError when it promises what only devices can keep,
        BudgetError when it would overspend, TrainingError when nothing moved.
        """
        if not task.plan.private:
            return self._update(task)
        with reserved(self.home.released):  # one process makes it, and pays once; another waits and sends the same
            return self._update(task)

    def _update(self, task: Task) -> AdapterUpdate:
        check_silos(task.plan)  # the server's start refuses it too: whoever sends it is another's
        check_protocol(task.plan, self.protocol)
        check_sharing(task.plan, self.limits)  # before its table: what is wrong with that tells of the catalogue
        task, model = self._take(task)
        released = released_names(task.plan, list(common(task.adapter)))
        try:
            return self._once(task, model, released) if task.plan.private else self._trained(task, model, released)
        except TrainingError as error:
            nothing = {name: np.zeros_like(task.adapter[name]) for name in released}
            error.instead = AdapterUpdate(self.name, task.round, nothing, 0.0, task.base)
            raise

    def _once(self, task: Task, model: Recommender, released: frozenset[str]) -> AdapterUpdate:
        """The update of a private task, made and paid for once however often it is asked."""
        if (kept := load_released(self.home, name_of(task))) is not None:
            return kept
        users = len(sampled_users(self.corpus(task.plan)))
        paid = replace(planned_round(task.plan, users, run_of(task)), task=name_of(task))
        pay(self.home, task.plan, self.limits, paid, simulated=self.simulated)
        try:
            update = self._trained(task, model, released, paid)
        except Exception:  # it will be told, so what was spent is gone
            drop_begun(self.home)
            raise
        keep_released(self.home, name_of(task), update)
        if mark_of(self.home.forgotten) != self._forgotten:  # somebody who is in it was forgotten meanwhile
            keep_none_released(self.home)
        return update

    def _trained(
        self, task: Task, model: Recommender, released: frozenset[str], paid: GaussianSteps | None = None
    ) -> AdapterUpdate:
        corpus = self.corpus(task.plan)
        place = ("client", self.name, task.round)
        items: Tensors = {}
        quality: float | None = None
        if task.plan.private:
            assert paid is not None  # nothing is trained under a promise that the ledger does not know
            noise, tick = paid.noise_multiplier, self.workshop.tick
            train_privately(model, corpus, task.plan, noise, released, place, simulated=self.simulated, tick=tick)
        else:
            check_budget(task.plan, self.limits, (), None)
            append_event(self.home.ledger, PlainRelease("update"))  # what was promised before bounds no more
            private, _ = self.private_before(task, model)
            train(
                model,
                [corpus],
                [private],
                task.plan,
                epochs=task.plan.train.round_epochs,
                place=place,
                early_stopping=False,
                released=released,
                part=(min(task.round, task.plan.federation.rounds) - 1, task.plan.federation.rounds),
                tick=self.workshop.tick,
            )
            if private is not None:
                keep_round(self.home, run_of(task), task.round, private.state_dict())
                items = self._items_moved(task, private)
            if self.limits.share_quality and len(corpus.split.valid):
                quality = round(validate(model, corpus, private), 2)
        after = adapter_tensors(model)
        delta = {name: after[name] - task.adapter[name] for name in sorted(released)}
        must_move(delta)
        weight = float(declared(len(sampled_users(corpus))))
        return AdapterUpdate(self.name, task.round, {**delta, **items}, weight, task.base, quality)

    def private_before(self, task: Task, model: Recommender) -> tuple[Private | None, bool]:
        """The private parameters that a task starts with, and whether rounds trained them: as the run's last left them,
        else fresh.

        None where they stay out of the rounds: what was trained without noise may feed no gradient that is released
        under a promise of privacy (and ``train_privately`` takes none).
        """
        if task.plan.private or not task.plan.train.private_rounds:
            return None, False
        private = self.corpus(task.plan).private(model)
        if (kept := load_round(self.home, run_of(task), task.round - 1)) is not None:
            try:
                private.load_state_dict(kept)
            except RuntimeError:  # of other data: somebody, or an item, came or went since
                private, kept = self.corpus(task.plan).private(model), None
        load_item_table(private, table(task.adapter))
        return private, kept is not None

    def _items_moved(self, task: Task, private: Private) -> Tensors:
        """What this domain adds to the table that its catalogue's owners share; all it has where there is none yet."""
        if not task.plan.model.shared_items:
            return {}
        catalogue, before = self.domain.catalog.fingerprint, table(task.adapter)
        now = item_table(private, catalogue)
        if COUNTED[0] in table_keys(task.plan, task.round):
            now |= self._counted(task.plan)
        return {name: value - before[name] if name in before else value for name, value in now.items()}

    def _counted(self, plan: Plan) -> Tensors:
        """What was met, and met together, divided by the weight that the mean over owners gives this domain."""
        corpus = self.corpus(plan)
        weight = min(float(declared(len(sampled_users(corpus)))), plan.federation.weight_cap)
        counts = dict(zip(COUNTED, corpus.pairs(), strict=True))
        catalogue = self.domain.catalog.fingerprint
        return {table_name(catalogue, key): value / np.float32(weight) for key, value in counts.items()}

    def finish(self, task: Task) -> None:
        """Keep the final adapter, fine-tune privately on top of it, evaluate at home."""
        check_sharing(task.plan, self.limits)
        task, model = self._take(task)
        corpus = self.corpus(task.plan)
        if task.plan.private:  # what was spent is told at this delta from now on
            check_delta(task.plan, len(sampled_users(corpus)))
        federated = evaluate(model, corpus, corpus.split.test)
        private, facts = self.serve_best(model, task)
        result = {
            "domain": self.name,
            "protocol": self.protocol,
            "rounds": task.round - 1,
            "federated": federated,
            "personal": evaluate(model, corpus, corpus.split.test, private),
            **facts,
            "privacy": self.spent(task.plan),
        }
        self.keep(model, private, task.plan, task.base, result)

    def serve_best(self, model: Recommender, task: Task) -> tuple[Private, dict[str, Any]]:
        """Fine-tune the federated model given, and leave in it whichever validates better: that, or our own alone.

        The private parameters go on from where the rounds left them.
        """
        plan = task.plan
        corpus, tick = self.corpus(plan), self.workshop.tick
        private, outcome = personalise(model, corpus, plan, *self.private_before(task, model), tick)
        counted = {name.rpartition(".")[2]: value for name, value in table(task.adapter).items()}
        found = candidate("federated", calibrate(model, corpus, private, counted), model, private)
        curve = list(outcome.valid)
        facts: dict[str, Any] = {"personal_epochs": outcome.epochs, "curve": curve, "valid": {"federated": found.valid}}
        if plan.train.gate:
            own = alone(model, corpus, plan, self.protocol, self.home.alone, tick)
            facts["valid"]["alone"] = own.valid
            if plan.train.mix:
                mixed = between(model, corpus, found, own, counted)
                facts["valid"]["between"] = mixed.valid
                found = max(found, mixed, key=lambda one: one.valid)  # the first of equals: federated
            found = better(found, own, task.kin)
            private = found.put(model, corpus)
        return private, {**facts, "served": found.name}

    def keep(self, model: Recommender, private: Private, plan: Plan, base: str, result: dict[str, Any]) -> None:
        """Save what serving needs into the home."""
        kept = Kept(
            plan,
            base,
            self.domain.folder,
            self.name,
            self.protocol,
            adapter_tensors(model),
            {**private.state_dict(), **tensors_of(private.neighbours)},
        )
        keep(self.home, kept, result)

    def spent(self, plan: Plan) -> dict[str, float | None]:
        """Epsilon of all releases so far (None: no bound), as ``told_at`` has it; empty where nothing is promised."""
        events = spent_at(self.home)
        if not events or all(isinstance(event, PlainRelease) for event in events):
            return {}
        spent = finite(epsilon(events, told_at(plan)))
        return {"epsilon": spent, "delta": told_at(plan), "releases": len(events)}

    def _take(self, task: Task) -> tuple[Task, Recommender]:
        """Check a task against our own base and load its adapter; the task as this domain carries it out.

        The checkpoint's path is ours: a server must not choose what a member opens or fetches.
        """
        if (mark := mark_of(self.home.forgotten)) != self._forgotten:  # somebody, since this process read the data
            entries = Journal(self.home.journal).entries
            self.domain, self._corpus = read_at_home(self.home, self.domain.folder, self.name, entries), None
            self._forgotten = mark
        if self.base is not None:
            task = replace(task, plan=replace(task.plan, model=replace(task.plan.model, base=self.base)))
        model = self.workshop.model(task.plan)
        own = base_fingerprint(task.plan.model, model.base)
        if task.base != own:
            raise PayloadError(
                f"the task's base is {task.base[:60]!r}, ours is {own!r}; start with --base and the same checkpoint"
            )
        check_like(common(task.adapter), adapter_tensors(model), "the task's adapter")
        if came := table(task.adapter):
            if not task.plan.model.shared_items:
                raise PayloadError("the task holds an item table, its plan shares none; both sides must run one plan")
            catalogue, items = self.domain.catalog.fingerprint, len(self.domain.catalog)
            shapes = {"bias": (items,), "vectors": (items, model.dim), "met": (items,), "pairs": (items, PAIRS)}
            keys = LEARNT + COUNTED if table_name(catalogue, COUNTED[0]) in came else LEARNT
            own_table = {table_name(catalogue, key): np.empty(shapes[key], np.float32) for key in keys}
            check_like(came, own_table, "the task's item table")
        load_adapter_tensors(model, task.adapter)
        return task, model


def personalise(
    model: Recommender,
    corpus: Corpus,
    plan: Plan,
    private: Private | None = None,
    trained: bool = False,
    tick: Tick | None = None,
) -> tuple[Private, Outcome]:
    """A fine-tuned copy of the model given, in place, and private parameters, fresh where none came; never sent.

    Those that no rounds ``trained`` have all to learn still: they take a training of full length.
    """
    pace = plan.train
    epochs, rate = (pace.personal_epochs, pace.personal_rate) if trained else (pace.epochs, 1.0)
    private = corpus.private(model) if private is None else private
    place = ("client", corpus.name, "personal")
    if not pace.personal_epochs:
        return private, Outcome(0, math.nan, (validate(model, corpus, private),))
    slower = replace(plan, train=replace(pace, lr=rate * pace.lr, lora_lr=rate * pace.lora_lr))
    outcome = train(
        model, [corpus], [private], slower, epochs=epochs, place=place, early_stopping=True, pull=pace.pull, tick=tick
    )
    return private, outcome


def must_move(delta: Tensors) -> None:
    """Raises TrainingError when the update is empty or an adapter tensor in it did not move.

    Towers may hold still in the first steps of a small domain (what lies below a zero-initialised layer has
    no gradient yet); adapters may not: private training that silently moves none is a known failure.
    """
    still = sorted(name for name, value in delta.items() if not np.any(value))
    adapters = [name for name in still if ".lora_" in name]
    if len(still) == len(delta) or adapters:
        raise TrainingError(
            f"training moved nothing in {len(still)} of {len(delta)} tensors, first {[*adapters, *still][0]!r}; "
            "raise train.lr or train.lora_lr, or train on more data"
        )


def open_member(
    folder: Path,
    name: str | None,
    home: Path,
    *,
    cache: str,
    protocol: str = "loo",
    max_epsilon: float | None = None,
    at_delta: float = Limits.at_delta,
    share_items: bool = False,
    share_quality: bool = False,
    for_passports: float = 0.0,
    base: str | None = None,
    simulated: bool = False,
) -> DomainMember:
    """A member from plain values, as a process that is told them in JSON needs it. Raises DataError, BudgetError."""
    limits = Limits(max_epsilon, at_delta, share_items, share_quality, for_passports)
    check_passports(limits, spent_at(Home(home)))
    as_of = mark_of(Home(home).forgotten)
    workshop = Workshop(Path(cache))
    domain = read_at_home(Home(home), folder, name, Journal(Home(home).journal).entries)
    if base is not None:
        find_base(base)  # a mistyped one is told now, not in the first round
    member = DomainMember(
        domain, Home(home), workshop, protocol=protocol, limits=limits, base=base, simulated=simulated
    )
    member._forgotten = as_of  # of who was forgotten while the data were read the next task hears
    return member
