"""Ledger -> epsilon at a delta, and one honest sentence about it."""

import warnings
from collections import defaultdict
from collections.abc import Sequence

from opacus.accountants import RDPAccountant
from opacus.accountants.utils import get_noise_multiplier

from shared.errors import BudgetError
from shared.ledger import Event, GaussianSteps, TokenRelease


def epsilon(events: Sequence[Event], delta: float) -> float:
    """Epsilon of all events together for the user who pays most.

    Training is paid by every user: Renyi accounting (Mironov 2017; Poisson sampling, Wang et al. 2019). A token is
    paid by the one user it was given for, with delta 0, and adds to training by basic composition. So the sum is
    training plus the largest total of any one user's tokens; a token of unknown user is charged to everyone.
    Raises BudgetError where an event counts another unit than users.
    """
    if any(event.unit != "user" for event in events):
        raise BudgetError("the ledger counts another unit than users; it cannot be added up")
    tokens: dict[str, float] = defaultdict(float)
    for event in events:
        if isinstance(event, TokenRelease):
            tokens[event.user] += event.epsilon
    anyone = tokens.pop("", 0.0)
    steps = [event for event in events if isinstance(event, GaussianSteps)]
    return _training(steps, delta) + anyone + max(tokens.values(), default=0.0)


def _training(steps: Sequence[GaussianSteps], delta: float) -> float:
    if not steps:
        return 0.0
    accountant = RDPAccountant()
    accountant.history = [(event.noise_multiplier, event.sample_rate, event.steps) for event in steps]
    with warnings.catch_warnings():
        # A tight order of the Renyi curve lies at the edge for tiny or huge epsilon: still an upper bound.
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta))


def noise_for(target_epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Noise multiplier that spends ``target_epsilon`` over ``steps``. Raises BudgetError where none can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: float = get_noise_multiplier(
                target_epsilon=target_epsilon,
                target_delta=delta,
                sample_rate=sample_rate,
                steps=steps,
                accountant="rdp",
            )
    except ValueError:
        raise BudgetError(
            f"no noise reaches epsilon {target_epsilon:g} over {steps} steps at sampling rate {sample_rate:.3f}; "
            "raise privacy.epsilon or lower privacy.steps or federation.rounds"
        ) from None
    return found


def sentence(spent: float, delta: float) -> str:
    """What the number promises, in words."""
    return (
        f"Whoever sees all released updates and tokens of this domain can tell whether any one of its users took part "
        f"with odds at most e^{spent:.2f} times those without, but for a chance of {delta:g}."
    )
