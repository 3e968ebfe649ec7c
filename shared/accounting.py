"""Ledger -> epsilon at a delta, and one honest sentence about it."""

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from shared.errors import BudgetError
from shared.ledger import Event, GaussianSteps, PlainRelease, TokenRelease

# Beyond it no promise is left that a tighter figure would save, and the tighter accountant takes minutes.
LOOSE = 50.0
MOST_NOISE = 1e4  # nothing is learnt long before that
TIGHT = 2e-4  # relative, of a noise multiplier
# Renyi orders whose bound is a finite sum. One between them takes a hundred times as long; it is tighter where the best
# order is small, and there the other accountant is tighter than both.
WHOLE_ORDERS = tuple(range(2, 64))


def epsilon(events: Sequence[Event], delta: float) -> float:
    """Epsilon of all events together for the user who pays most.

    Training is paid by every user: the lower of two upper bounds, by Renyi divergence (Mironov 2017; Poisson sampling,
    Wang et al. 2019) and by the privacy loss random variable itself (PRV, Gopi et al. 2021). A token is
    paid by the one user it was given for, with delta 0, and adds to training by basic composition. So the sum is
    training plus the largest total of any one user's tokens; a token of unknown user is charged to everyone.
    Infinite where something left without a promise. Raises BudgetError where an event counts another unit than users.
    """
    return epsilon_across([events], delta)


def epsilon_across(ledgers: Sequence[Sequence[Event]], delta: float) -> float:
    """Epsilon of one who is a user of all these domains, against somebody who sees what all of them released.

    Trainings compose as if they were one domain's; each domain's tokens are charged as in ``epsilon``.
    """
    if any(event.unit != "user" for events in ledgers for event in events):
        raise BudgetError("the ledger counts another unit than users; it cannot be added up")
    if any(isinstance(event, PlainRelease) for events in ledgers for event in events):
        return math.inf
    steps = [event for events in ledgers for event in events if isinstance(event, GaussianSteps)]
    return _training(steps, delta) + sum(_tokens(events) for events in ledgers)


def _tokens(events: Sequence[Event]) -> float:
    """Of the user who pays most; names of users mean something within one ledger only."""
    paid: dict[str, float] = defaultdict(float)
    for event in events:
        if isinstance(event, TokenRelease):
            paid[event.user] += event.epsilon
    anyone = paid.pop("", 0.0)
    return anyone + max(paid.values(), default=0.0)


def _training(steps: Sequence[GaussianSteps], delta: float) -> float:
    if not steps:
        return 0.0
    counts: Counter[tuple[float, float]] = Counter()
    for event in steps:
        counts[event.noise_multiplier, event.sample_rate] += event.steps
    return _bound(tuple(sorted(counts.items())), delta)


@lru_cache(maxsize=1024)  # the same ledger is asked about again and again
def _bound(counts: tuple[tuple[tuple[float, float], int], ...], delta: float) -> float:
    return max(0.0, _least(dict(counts), delta))  # at a large delta the conversion from orders may fall below


def _least(counts: Mapping[tuple[float, float], int], delta: float) -> float:
    quick = by_renyi(counts, delta, WHOLE_ORDERS)
    if quick <= LOOSE:
        try:
            return min(quick, by_loss(counts, delta))
        except (ValueError, RuntimeError):  # a delta below what its grid can tell apart: the other bound holds alone
            pass
    return by_renyi(counts, delta)


def by_renyi(counts: Mapping[tuple[float, float], int], delta: float, orders: Sequence[float] | None = None) -> float:
    """Upper bound on epsilon of so many steps at each (noise multiplier, sample rate): the least of some orders', by
    default of 151, most of them fractions."""
    from opacus.accountants import RDPAccountant  # a second to import: a server that shows a budget asks for it seldom

    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps) for (noise, rate), steps in counts.items()]
    with warnings.catch_warnings():
        # A tight order of the Renyi curve lies at the edge for tiny or huge epsilon: still an upper bound.
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta, alphas=None if orders is None else list(orders)))


def by_loss(counts: Mapping[tuple[float, float], int], delta: float) -> float:
    """The same from the distribution of the privacy loss, its numerical error of .01 on the safe side."""
    from opacus.accountants import PRVAccountant
    from opacus.accountants.analysis.prv import Domain

    class Accountant(PRVAccountant):  # type: ignore[misc]
        """Its grid reaches as far as whole orders say it must (Gopi et al. 2021, remark 5.6): a little further than by
        all of them, which takes nine tenths of the time."""

        def _get_domain(
            self, prvs: object, num_self_compositions: Sequence[int], eps_error: float, delta_error: float
        ) -> Domain:
            steps = sum(num_self_compositions)
            single = [by_renyi({step: 1}, delta_error / (8 * steps), WHOLE_ORDERS) for step in counts]
            reach = 3 + max(eps_error, by_renyi(counts, delta_error / 4, WHOLE_ORDERS), *single)
            return Domain.create_aligned(-reach, reach, eps_error / math.sqrt(steps * math.log(12 / delta_error) / 2))

    accountant = Accountant()
    accountant.history = [(noise, rate, steps) for (noise, rate), steps in counts.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a logarithm of 0, where the sample rate is 1
        return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=256)
def noise_for(
    target_epsilon: float, delta: float, sample_rate: float, steps: int, beside: tuple[Event, ...] = ()
) -> float:
    """Least noise multiplier, within a thousandth, under which ``steps`` cost at most ``target_epsilon``.

    ``beside`` is released to the same users out of the same budget. Raises BudgetError where no noise is enough.
    """

    def cost(noise: float) -> float:
        return epsilon([*beside, GaussianSteps(noise, sample_rate, steps)], delta)

    # Asked of everybody in each step: a refusal may not tell a domain's rate, which is how many users it has.
    if epsilon([*beside, GaussianSteps(MOST_NOISE, 1.0, steps)], delta) > target_epsilon:
        raise BudgetError(
            f"no noise reaches epsilon {target_epsilon:g} over {steps} steps; "
            "raise privacy.epsilon or lower privacy.steps or federation.rounds"
        )
    least, most = 1.0, 1.0
    while cost(most) > target_epsilon:
        least, most = most, 2 * most
    while cost(least) <= target_epsilon:
        least, most = least / 2, least
        if most < 1 / MOST_NOISE:
            return most
    from scipy.optimize import brentq  # slow to import, and only who plans a run needs it

    # Epsilon falls about as a power of the noise: between logarithms few steps are needed, each takes a second.
    found = brentq(
        lambda x: math.log(max(cost(math.exp(x)), 1e-12) / target_epsilon), math.log(least), math.log(most), xtol=TIGHT
    )
    noise = math.exp(found)
    while cost(noise) > target_epsilon:
        noise *= 1 + TIGHT
    return noise


def finite(spent: float) -> float | None:
    """Epsilon as JSON has it: None where there is no bound."""
    return spent if math.isfinite(spent) else None


def spell(spent: float | None) -> str:
    """The same for people to read."""
    return "without bound" if spent is None else f"{spent:.3f}"


def spent(events: Sequence[Event], delta: float) -> dict[str, Any]:
    """What a ledger comes to: epsilon (None: no bound), delta, releases, and the promise in words."""
    value = epsilon(events, delta)
    words = sentence(value, delta)
    return {"epsilon": finite(value), "delta": delta, "releases": len(events), "in words": words}


def sentence(spent: float, delta: float) -> str:
    """What the number promises, in words."""
    if math.isinf(spent):
        return (
            "Updates of this domain were released without a promise of privacy: no epsilon bounds what all its "
            "releases together tell of a user."
        )
    return (
        f"Whoever sees all released updates and tokens of this domain can tell whether any one of its users took part "
        f"with odds at most e^{spent:.2f} times those without, but for a chance of {delta:g}."
    )
