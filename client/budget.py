"""Refuses a task that would overspend: the data owner decides, whatever the server asks."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from client.store import Home, plan_at
from shared.accounting import epsilon, finite, noise_for, spent
from shared.errors import BudgetError
from shared.ledger import Event, GaussianSteps, PlainRelease, TokenRelease, read_events
from shared.plan import Plan

SLACK = 1e-9  # sums of a few floats


@dataclass(frozen=True)
class Limits:
    """What a data owner allows; ``None`` leaves the choice to the federation's plan."""

    max_epsilon: float | None = None
    at_delta: float = 1e-5  # the laxest that it is measured at, whatever a server's plan has
    share_items: bool = False  # whether residuals, biases and counts of items may go to owners of their catalogue
    share_quality: bool = False  # whether the validation NDCG@10 travels with each update
    passports: float = 0.0  # part of ``max_epsilon`` that is kept for users' taste passports

    def delta(self, plan: Plan) -> float:
        """What ``max_epsilon`` is measured at."""
        return min(plan.privacy.delta, self.at_delta)


def told_at(plan: Plan) -> float:
    """The delta at which a home tells what was spent: a plan's that promises something, for that was checked."""
    return plan.privacy.delta if plan.private else min(plan.privacy.delta, Limits.at_delta)


def declared(users: int) -> int:
    """What a domain tells of its number of users: the nearest power of two."""
    return int(2 ** round(math.log2(max(users, 1))))


def sample_rate(plan: Plan, users: int) -> float:
    """Poisson probability that a user joins a step; of ``declared`` users in a domain.

    Whatever hangs on it (noise, what a step costs, when a limit is reached) then tells a server no more of the number.
    """
    return min(1.0, plan.privacy.lot_users / max(users, 1))


def planned_noise(plan: Plan, users: int) -> float:
    """Noise multiplier that makes all rounds of the plan together cost a domain of ``users`` ``privacy.epsilon``.

    Raises BudgetError.
    """
    check_delta(plan, users)
    steps, rate = plan.federation.rounds * plan.privacy.steps, sample_rate(plan, declared(users))
    return noise_for(plan.privacy.epsilon, plan.privacy.delta, rate, steps)


def planned_round(plan: Plan, users: int, run: str = "") -> GaussianSteps:
    """What a domain of so many ``users`` releases in one round of the plan. Raises BudgetError."""
    rate = sample_rate(plan, declared(users))
    return GaussianSteps(planned_noise(plan, users), rate, plan.privacy.steps, run=run)


def check_delta(plan: Plan, users: int) -> None:
    """Raises BudgetError when delta does not lie below one in ``users``; of them no more is used than is
    ``declared``, or refusals would tell a server who asks often the exact number."""
    if plan.privacy.delta * declared(users) * math.sqrt(2) >= 1:
        raise BudgetError(
            f"privacy.delta {plan.privacy.delta:g} allows a full leak of one user in {1 / plan.privacy.delta:.0f}; "
            f"choose it well below one in this domain's number of users, for instance 1e-5 or less"
        )


def check_protocol(plan: Plan, protocol: str) -> None:
    """Raises BudgetError where users cannot be learnt from apart, as the promise needs."""
    if plan.private and protocol == "time":
        raise BudgetError(
            "protocol time cuts everybody's events where a part of all of them lies, so each user moves what is learnt "
            "from others, and privacy.epsilon would promise too much; start with --protocol loo"
        )


def check_sharing(plan: Plan, limits: Limits) -> None:
    """Raises BudgetError, before anything is trained or spent, where plan and owner differ about what may leave."""
    if plan.model.shared_items and not limits.share_items:
        raise BudgetError(
            "the plan shares item tables among owners of one catalogue (model.shared_items), which tell what is met "
            "here, and met together, and how often; this domain allows it only when started with --share-items"
        )
    if limits.share_quality and plan.private:
        raise BudgetError(
            "this domain lets its quality travel (--share-quality), a release without noise, and the plan promises "
            "privacy.epsilon; start without it"
        )
    if limits.share_quality and plan.federation.secure:
        raise BudgetError(
            "this domain lets its quality travel (--share-quality), and a secure sum (federation.secure) tells of "
            "nobody alone; start without it"
        )


def spent_at(home: Home) -> list[Event]:
    """All that was released of a home's users, by their domain and by their devices. Raises DataError."""
    return [*read_events(home.ledger), *read_events(home.devices)]


def rounds_of(spent: Sequence[Event]) -> list[GaussianSteps]:
    """Those events that are rounds of noised updates."""
    return [event for event in spent if isinstance(event, GaussianSteps)]


def unreleased(event: GaussianSteps, spent: Sequence[Event], begun: tuple[str, int] | None) -> bool:
    """Whether the round that comes next is paid for already: its process was killed between ledger and release.

    So it is where the event is the last round in the ledger, and what is ``begun`` (task, number) is that very one.
    """
    rounds = rounds_of(spent)
    return bool(rounds) and rounds[-1] == event and begun == (event.task, len(rounds))


def check_run(plan: Plan, limits: Limits, spent: Sequence[Event], run: str) -> None:
    """Raises BudgetError where a run asks for more rounds than its plan promised; an owner's own limit may allow them.

    A round that is asked again with the same task costs nothing: its update is kept and sent again.
    """
    steps = sum(event.steps for event in rounds_of(spent) if event.run == run)
    if limits.max_epsilon is None and steps >= plan.federation.rounds * plan.privacy.steps:
        raise BudgetError(
            f"this run has had all {plan.federation.rounds} rounds that its privacy.epsilon {plan.privacy.epsilon:g} "
            "is for; begin a new run, or let the domain's owner allow more with --max-epsilon"
        )


def trainings_of(spent: Sequence[Event]) -> list[Event]:
    """What all users paid: all but the passports of single ones."""
    return [event for event in spent if not isinstance(event, TokenRelease)]


def check_passports(limits: Limits, spent: Sequence[Event]) -> None:
    """Raises BudgetError where passports given so far are above their part of the limit. A server hears no more of it
    than that it is refused."""
    given = epsilon([event for event in spent if isinstance(event, TokenRelease)], limits.at_delta)
    if limits.max_epsilon is not None and given > limits.passports + SLACK:
        raise BudgetError(
            f"some user's taste passports come to epsilon {given:g}, above the {limits.passports:g} of --max-epsilon "
            f"that is kept for them; start with --for-passports {given:g} or more",
            told="this domain's limit on epsilon lets no round pass as it is; ask its owner",
        )


def check_budget(plan: Plan, limits: Limits, spent: Sequence[Event], next_event: Event | None) -> float:
    """Epsilon of training after the next round of it, or of one user after the next passport: ``spent`` is theirs then.

    Raises BudgetError, saying by how much, when it would be too high. A round is refused for what training spent, and
    for the part that is kept for passports, however much of that was used: a server that asks, and is refused for
    nothing, would read off what single users were given.
    """
    if next_event is None:
        if limits.max_epsilon is not None:
            raise BudgetError(
                f"this domain releases with epsilon at most {limits.max_epsilon:g}, the plan adds no noise; "
                "set privacy.epsilon in the plan"
            )
        return 0.0
    delta, most = limits.delta(plan), limits.max_epsilon
    if not isinstance(next_event, TokenRelease):
        spent, most = trainings_of(spent), None if most is None else most - limits.passports
    after = epsilon([*spent, next_event], delta)
    if limits.max_epsilon is not None and math.isinf(after):
        raise BudgetError(
            "updates of this domain were released without a promise before, as its ledger has it: no epsilon bounds "
            "them, and --max-epsilon cannot be kept; start without it, or under another --home for other users' data",
            told="this domain cannot keep its limit on epsilon; ask its owner",
        )
    if most is not None and isinstance(next_event, TokenRelease):
        own = after - epsilon(trainings_of(spent), delta)
        if own > limits.passports + SLACK:
            raise BudgetError(
                f"this user's passports would come to epsilon {own:.3f}, {own - limits.passports:.3f} above the "
                f"{limits.passports:g} of --max-epsilon that is kept for them; raise --for-passports, here and where "
                "this domain trains, or give less"
            )
    if most is not None and after > most + (SLACK if isinstance(next_event, TokenRelease) else 0.0):
        limit = f"this domain's limit of {most:g} at delta {delta:g}"
        raise BudgetError(
            f"this release would bring epsilon to {after:.3f}, {after - most:.3f} above {limit}; "
            "raise the limit or release less",
            # By how much tells what was released before.
            told=f"this release would bring epsilon above {limit}; plan less of it, or ask the domain's owner",
        )
    return after


@dataclass(frozen=True)
class Forecast:
    """What a run under differential privacy would cost a domain, at the plan's delta."""

    users: int  # with something to learn from
    sample_rate: float  # Poisson probability that one of them joins a step
    noise_multiplier: float
    steps: int  # of a round
    rounds: int
    epsilon: float  # of this run alone
    after: float | None  # of all that was released before and this run; None: no bound
    rounds_allowed: int  # of them, how many the domain's limit lets pass


def forecast(plan: Plan, users: int, limits: Limits, spent: Sequence[Event]) -> Forecast:
    """Look ahead, spend nothing. Raises BudgetError where the plan's epsilon and delta cannot be had."""
    one_round = planned_round(plan, users)
    rounds, delta = plan.federation.rounds, plan.privacy.delta

    def after(count: int) -> float:
        return epsilon([*trainings_of(spent), *[one_round] * count], limits.delta(plan))

    most = None if limits.max_epsilon is None else limits.max_epsilon - limits.passports
    allowed = rounds if most is None else bisect_right(range(1, rounds + 1), most, key=after)
    alone, total = (epsilon([*before, *[one_round] * rounds], delta) for before in ((), spent))
    rate, noise = one_round.sample_rate, one_round.noise_multiplier
    return Forecast(users, rate, noise, one_round.steps, rounds, alone, finite(total), allowed)


def spending(home: Home) -> dict[str, Any]:
    """What a home's ledger comes to, at the delta its last finished run is ``told_at``, and what that promised.

    Raises DataError for a damaged ledger or a home without a finished run.
    """
    plan = plan_at(home)
    events = spent_at(home)
    trainings = [event for event in events if isinstance(event, GaussianSteps)]
    found = spent(events, told_at(plan))
    return {
        "words": found.pop("in words"),  # as the page has it
        **found,
        "trainings": len(trainings),
        "steps": sum(event.steps for event in trainings),
        "passports": sum(isinstance(event, TokenRelease) for event in events),
        "unpromised": sum(isinstance(event, PlainRelease) for event in events),
        "promised": plan.private,
        "shares_items": plan.model.shared_items,
    }
