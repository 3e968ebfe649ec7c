"""Our figures against an accountant of other people, and the noise that they ask for."""

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import PRVAccountant

from shared.accounting import LOOSE, WHOLE_ORDERS, by_loss, by_renyi, epsilon, epsilon_across, noise_for
from shared.errors import BudgetError
from shared.ledger import GaussianSteps, TokenRelease

DELTA = 1e-5
RUNS = [
    {(1.0, 0.05): 300},
    {(0.8, 0.03): 20},
    {(5.0, 0.1): 1000},
    {(0.9, 1.0): 3},
    {(1.0, 0.05): 10, (2.0, 0.02): 100, (0.7, 0.01): 30},
]


def theirs(counts, accountant):
    for (noise, rate), steps in counts.items():
        event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
        accountant.compose(dp_accounting.SelfComposedDpEvent(event, steps))
    return accountant.get_epsilon(DELTA)


@pytest.mark.parametrize("counts", RUNS, ids=str)
def test_both_bounds_agree_with_another_library_within_a_hundredth(counts):
    assert by_loss(counts, DELTA) == pytest.approx(theirs(counts, PLDAccountant()), rel=0.01)
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
    assert by_renyi(counts, DELTA) == pytest.approx(theirs(counts, RdpAccountant(orders)), rel=0.01)


@pytest.mark.parametrize("counts", RUNS, ids=str)
def test_the_lower_of_the_two_is_told(counts):
    events = [GaussianSteps(noise, rate, steps) for (noise, rate), steps in counts.items()]
    told = epsilon(events, DELTA)
    assert told == by_loss(dict(sorted(counts.items())), DELTA) < by_renyi(counts, DELTA)
    assert epsilon(events[::-1], DELTA) == told


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:Optimal order")
@pytest.mark.parametrize("counts", RUNS, ids=str)
def test_a_grid_that_reaches_further_tells_the_same(counts):
    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps) for (noise, rate), steps in counts.items()]
    assert by_loss(counts, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-8)


@pytest.mark.parametrize("counts", RUNS, ids=str)
def test_fewer_orders_bound_no_less(counts):
    assert by_renyi(counts, DELTA, WHOLE_ORDERS) >= by_renyi(counts, DELTA) - 1e-12


def test_rounds_cost_the_same_as_one_long_training():
    whole = epsilon([GaussianSteps(1.0, 0.05, 300)], DELTA)
    assert epsilon([GaussianSteps(1.0, 0.05, 100)] * 3, DELTA) == whole


def test_a_user_of_several_domains_pays_for_all_of_them():
    one, two = [GaussianSteps(1.0, 0.05, 100)], [GaussianSteps(1.0, 0.05, 200)]
    assert epsilon_across([one, two], DELTA) == epsilon([*one, *two], DELTA) < epsilon(one, DELTA) + epsilon(two, DELTA)
    # The same pseudonym in two ledgers is two users' or one's: nobody can tell, so both are charged.
    token = TokenRelease(2.0, "exponential", user="a")
    assert epsilon_across([[token, token], [token, TokenRelease(3.0, "exponential", user="b")]], DELTA) == 4.0 + 3.0


def test_one_release_without_sampling_is_the_analytic_gaussian():
    # Balle & Wang 2018: delta = Phi(1/2s - es) - e^e Phi(-1/2s - es) at epsilon e and noise s.
    from scipy.stats import norm

    told, noise = epsilon([GaussianSteps(2.0, 1.0, 1)], DELTA), 2.0
    delta = norm.cdf(0.5 / noise - told * noise) - np.exp(told) * norm.cdf(-0.5 / noise - told * noise)
    assert delta <= DELTA
    less = told * 0.99
    assert norm.cdf(0.5 / noise - less * noise) - np.exp(less) * norm.cdf(-0.5 / noise - less * noise) > DELTA


@pytest.mark.parametrize(("target", "rate", "steps"), [(8.0, 0.06, 80), (1.0, 0.01, 30), (0.1, 0.2, 10), (8.0, 1.0, 1)])
def test_noise_is_the_least_that_keeps_the_promise(target, rate, steps):
    noise = noise_for(target, DELTA, rate, steps)
    assert epsilon([GaussianSteps(noise, rate, steps)], DELTA) <= target
    assert epsilon([GaussianSteps(noise * 0.999, rate, steps)], DELTA) > target


def test_a_promise_that_no_noise_can_keep_is_refused():
    with pytest.raises(BudgetError, match="no noise reaches epsilon 1e-09"):
        noise_for(1e-9, DELTA, 1.0, 100_000)


def test_where_no_promise_is_left_the_quick_bound_will_do(monkeypatch):
    monkeypatch.setattr("shared.accounting.by_loss", lambda *_: 1 / 0)
    assert epsilon([GaussianSteps(0.1, 0.5, 100)], DELTA) > LOOSE


def test_a_delta_too_small_for_one_accountant_is_bounded_by_the_other():
    steps = GaussianSteps(2.0, 0.1, 20)
    assert epsilon([steps], DELTA) < epsilon([steps], 1e-15) < LOOSE


def test_nothing_that_was_released_is_less_than_nothing():
    assert by_renyi({(300.0, 1.0): 1}, 0.02, WHOLE_ORDERS) < 0  # a bound is one, though
    assert epsilon([GaussianSteps(300.0, 1.0, 1)], 0.02) == 0
    assert epsilon([GaussianSteps(300.0, 1.0, 1), TokenRelease(1.0, "near-set", user="x")], 0.02) == 1


def test_a_promise_of_nothing_takes_hardly_any_noise():
    assert noise_for(1e12, DELTA, 1.0, 10) < 1e-3
