"""Users whom several domains know by one id: only a simulation, which holds all of them, can tell."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from client.corpus import Corpus


def known_elsewhere(corpus: Corpus, others: Sequence[Corpus]) -> npt.NDArray[np.bool_]:
    """Which of a domain's users one of the others learns from, (users,)."""
    known = set[str]().union(*map(_learnt, others))
    return np.array([user in known for user in corpus.domain.interactions.user_ids], bool)


def _learnt(corpus: Corpus) -> set[str]:
    """Users with training events."""
    ids = corpus.domain.interactions.user_ids
    return {ids[user] for user in np.flatnonzero(corpus.split.train.lengths)}
