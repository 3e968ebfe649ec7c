"""Refuses a task that would overspend: the data owner decides, whatever the server asks."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.accounting import epsilon, noise_for
from shared.errors import BudgetError
from shared.ledger import Event
from shared.plan import Plan


@dataclass(frozen=True)
class Limits:
    """What a data owner allows; ``None`` leaves the choice to the federation's plan."""

    max_epsilon: float | None = None
    share_items: bool = False  # whether item residuals and biases may go to owners of the same catalogue


def planned_noise(plan: Plan, users: int, rate: float) -> float:
    """Noise multiplier that makes all rounds of the plan together cost ``privacy.epsilon``.

    Raises BudgetError when delta does not lie below one in ``users``.
    """
    if plan.privacy.delta * users >= 1:
        raise BudgetError(
            f"privacy.delta {plan.privacy.delta:g} allows a full leak of one user in {1 / plan.privacy.delta:.0f}; "
            f"choose it well below one in this domain's number of users, for instance 1e-5 or less"
        )
    steps = plan.federation.rounds * plan.privacy.steps
    return noise_for(plan.privacy.epsilon, plan.privacy.delta, rate, steps)


def check_budget(plan: Plan, limits: Limits, spent: Sequence[Event], next_event: Event | None) -> float:
    """Epsilon after the next release; raises BudgetError, saying by how much, when it would be too high.

    Also when the plan would release what the data owner did not allow.
    """
    if plan.model.shared_items and not limits.share_items:
        raise BudgetError(
            "the plan shares item tables among owners of one catalogue (model.shared_items), which tell what is met "
            "here, and met together, and how often; this domain allows it only when started with --share-items"
        )
    if next_event is None:
        if limits.max_epsilon is not None:
            raise BudgetError(
                f"this domain releases with epsilon at most {limits.max_epsilon:g}, the plan adds no noise; "
                "set privacy.epsilon in the plan"
            )
        return 0.0
    after = epsilon([*spent, next_event], plan.privacy.delta)
    if limits.max_epsilon is not None and after > limits.max_epsilon:
        raise BudgetError(
            f"this release would bring epsilon to {after:.3f}, {after - limits.max_epsilon:.3f} above this domain's "
            f"limit of {limits.max_epsilon:g} at delta {plan.privacy.delta:g}; raise the limit or release less"
        )
    return after
