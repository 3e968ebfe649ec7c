"""Of how many kinds are the domains, and which is of which? One kind for all where nothing speaks for several."""

import numpy as np
import numpy.typing as npt

from shared.metrics import Floats, Ints

Bools = npt.NDArray[np.bool_]

MANY = 8  # domains; of fewer what two have beyond what all have in common is told by too little
MOST = 50  # kinds that are tried at once
# The silhouette that a cut must have. Of likeness itself, measured: owners of one shop, cut in two, .05 to .26; of two
# and of five shops, cut by shop, .42 to 1.
STRUCTURE = 0.3
# Of what is beyond the common, the own kind counting FLOOR at least: by shop .8 to 1 from the first round on, under a
# promise of epsilon 2 as well; of likenesses that differ by chance alone, .15 apart, one table in ten or fewer has it.
BEYOND_STRUCTURE, FLOOR = 0.6, 0.3
# How many times the median noise of a direction a domain may have and still be asked. Likeness is freed of noise, so
# among small owners it strays far above all others': of ten owners those of 100 and 500 users had three to ten times
# the median, and one kind was cut in two around them.
NOISY = 2.0
# Of what domains have beyond the common with their kind, the median of all: owners had .4 to 1.9 of it in each round of
# four runs, a domain of no kind that was put with four others or more hardly any (generated, four tables: .05 at most).
BELONGS = 1 / 3


def kinds(alike: Floats, first: bool = False) -> Ints:
    """A number for each domain, the same for those of one kind: (domains,), from likeness (domains, domains).

    Average linkage (Sokal & Michener 1958), cut into as many kinds as have the best silhouette (Rousseeuw 1987). A
    fixed bound on likeness cannot tell kinds apart in each federation: young towers of all kinds move alike at first.
    Of ``MANY`` domains that is taken out (``beyond``), and a kind of as many is cut once more; of fewer the ``first``
    round tells nothing. On the diagonal stands by how much noise a domain's likenesses were raised: who has much more
    of it than others is not asked how many kinds there are, but placed in the nearest.
    """
    clear = np.flatnonzero(_clear(alike))
    if len(clear) < MANY:
        return np.ones(len(alike), np.int64) if first else _cut(alike, STRUCTURE, 0.0)
    found = np.zeros(len(alike), np.int64)
    parts = [clear]
    while parts:
        rows = parts.pop()
        cut = np.ones(len(rows), np.int64)
        if len(rows) >= MANY:
            cut = _cut(beyond(alike[np.ix_(rows, rows)]), BEYOND_STRUCTURE, FLOOR)
        if (cut == cut[0]).all():
            found[rows] = found.max() + 1
        else:
            parts.extend(rows[cut == one] for one in np.unique(cut))
    for row in np.setdiff1d(np.arange(len(alike)), clear):
        found[row] = _nearest(alike[row, clear], alike[np.ix_(clear, clear)], found[clear])
    return found


def told(alike: Floats, labels: Ints) -> Bools:
    """Which pairs are of one kind beyond doubt, (domains, domains): where many domains were cut into several kinds,
    those of one kind that were asked, three of them at least, and have a good part (``BELONGS``) of what domains have
    beyond the common with their own kind. A domain that has no kin is put with somebody too, and has none of that.

    However far the domains of a kind have settled on ways of their own, the cut is made against all others.
    """
    found = np.zeros(alike.shape, np.bool_)
    rows = np.flatnonzero(_clear(alike))
    if len(rows) < MANY or (labels[rows] == labels[rows][0]).all():
        return found
    same = labels[rows][:, None] == labels[rows]
    np.fill_diagonal(same, False)
    own = (beyond(alike[np.ix_(rows, rows)]) * same).sum(axis=1) / np.maximum(same.sum(axis=1), 1)
    sure = own >= BELONGS * np.median(own)
    sure &= (same & sure).sum(axis=1) >= 2
    found[np.ix_(rows, rows)] = same & sure[:, None] & sure
    return found


def _clear(alike: Floats) -> Bools:
    """Whose likenesses are not raised by much more noise than the others', (domains,); of whom nothing is known yet,
    who is like nobody, not even itself, is none of them unless all are so."""
    noise = np.diag(alike)
    known = noise > 0
    found: Bools = known & (noise <= NOISY * np.median(noise[known])) if known.any() else ~known
    return found


def _nearest(one: Floats, alike: Floats, labels: Ints) -> int:
    """The kind that a domain is most like, with ``one`` (domains,), beyond what those domains are like each other."""
    usual = (alike.sum(axis=1) - np.diag(alike)) / (len(alike) - 1)
    return int(max(np.unique(labels), key=lambda label: (one - usual)[labels == label].mean()))


def _cut(alike: Floats, least: float, floor: float) -> Ints:
    """The cut of these domains with the best silhouette, (domains,); all ones where that is less than ``least``."""
    from scipy.cluster.hierarchy import fcluster, linkage  # slow to import, and few servers aggregate by affinity
    from scipy.spatial.distance import squareform

    count = len(alike)
    one = np.ones(count, np.int64)
    if count < 3:
        return one
    alike = (alike + alike.T) / 2
    apart = alike[~np.eye(count, dtype=np.bool_)].max() - alike
    np.fill_diagonal(apart, 0)
    tree = linkage(squareform(apart, checks=False), "average")
    cuts = [fcluster(tree, number, "maxclust").astype(np.int64) for number in range(2, min(count, MOST + 1))]
    best = max(cuts, key=lambda cut: silhouette(alike, cut, floor))
    return best if silhouette(alike, best, floor) >= least else one


def beyond(alike: Floats) -> Floats:
    """How much liker two domains are than each is to the others, and the others to one another: (domains, domains).

    alike_ij - mean_k alike_ik - mean_k alike_jk + mean_kl alike_kl, where k and l are neither i nor j: what is left of
    a table beside the effects of its rows and columns (Tukey 1949), unbiased because i and j are left out of them. Zero
    on average where all have one thing in common and nothing else.
    """
    count = len(alike)
    others = np.where(np.eye(count, dtype=np.bool_), 0.0, alike)
    sums, total = others.sum(axis=1), others.sum()
    row = (sums[:, None] - others) / (count - 2)
    rest = (total - 2 * (sums[:, None] + sums[None, :] - others)) / ((count - 2) * (count - 3))
    table: Floats = others - row - row.T + rest
    np.fill_diagonal(table, 0.0)
    return table


def silhouette(alike: Floats, labels: Ints, floor: float = 0.0) -> float:
    """Mean over domains of (own - next) / own, or / next where that is larger, or / ``floor`` where that is.

    ``own`` is the mean likeness to the others of the domain's kind, ``next`` that to the kind it is most like among the
    others, 0 at least. A domain that is alone of its kind counts 0; so does a single kind.
    """
    found, place = np.unique(labels, return_inverse=True)
    if len(found) < 2:
        return 0.0
    member = place[:, None] == np.arange(len(found))  # (domains, kinds)
    sizes, rows = member.sum(axis=0), np.arange(len(labels))
    sums = (alike * ~np.eye(len(alike), dtype=np.bool_)) @ member
    own = sums[rows, place] / np.maximum(sizes[place] - 1, 1)
    following = np.where(member, 0.0, sums / sizes).max(axis=1)
    larger = np.maximum(np.maximum(own, following), floor)
    values = np.where((sizes[place] > 1) & (larger > 0), (own - following) / np.where(larger > 0, larger, 1), 0.0)
    return float(values.mean())
