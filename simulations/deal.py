"""Deals the users of one domain to several owners, who then may not pool them."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from client.dataset import Domain, Interactions
from shared.errors import ConfigError
from shared.seeding import stream


def subset(domain: Domain, users: npt.NDArray[np.int64], name: str) -> Domain:
    """The same catalogue, and of the interactions those of some users (positions in ``user_ids``)."""
    users = np.sort(users)
    data = domain.interactions
    place = np.full(len(data.user_ids), -1, np.int32)
    place[users] = np.arange(len(users), dtype=np.int32)
    keep = place[data.users] >= 0
    part = Interactions(
        tuple(data.user_ids[user] for user in users),
        place[data.users[keep]],
        data.items[keep],
        data.behaviours[keep],
        data.times[keep],
        data.weights[keep],
    )
    return replace(domain, name=name, interactions=part, reports=())


def deal(domain: Domain, owners: int, small: tuple[int, ...], seed: int, most: int = 0) -> list[Domain]:
    """``owners`` parts of like size, ``shop-1`` ..., and one part of each ``small`` number of users, ``shop-small100``.

    Nobody is in two parts, and no part has more than ``most`` users where that is given; those of few large owners are
    those of many smaller ones. Raises ConfigError when there are too few users.
    """
    order = stream(seed, "deal", domain.name).permutation(len(domain.interactions.user_ids))
    if sum(small) + 3 * owners > len(order):
        raise ConfigError(f"{domain.name} has {len(order):,} users, too few for {owners} owners and {small}")
    parts = []
    for size in small:
        parts.append(subset(domain, order[:size], f"{domain.name}-small{size}"))
        order = order[size:]
    if most:
        order = order[: owners * most]
    if owners == 1 and not small:
        return [domain if len(order) == len(domain.interactions.user_ids) else subset(domain, order, domain.name)]
    return [
        *(
            subset(domain, part, f"{domain.name}-{number}")
            for number, part in enumerate(np.array_split(order, owners), 1)
        ),
        *parts,
    ]


def kind_of(name: str, shops: tuple[str, ...]) -> str:
    """The shop that an owner's users came from."""
    return next(shop for shop in shops if name == shop or name.startswith(f"{shop}-"))
