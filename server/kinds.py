"""Of how many kinds are the domains, and which is of which? One kind for all where nothing speaks for several."""

import numpy as np

from shared.metrics import Floats, Ints

# Below it one kind may as well be cut at random. Measured: owners of one shop, cut in two, .05 to .26; of two and of
# five shops, cut by shop, .42 to 1.
STRUCTURE = 0.3
MOST = 50  # kinds that are tried


def kinds(alike: Floats) -> Ints:
    """A number for each domain, the same for those of one kind: (domains,), from likeness (domains, domains).

    Average linkage (Sokal & Michener 1958), cut into as many kinds as have the best silhouette (Rousseeuw 1987), taken
    on likeness itself: how much liker a domain is to its own kind than to the next, as a part of the former. A fixed
    bound on likeness cannot tell kinds apart in each federation: young towers of all kinds move alike at first.
    """
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
    best = max(cuts, key=lambda cut: silhouette(alike, cut))
    return best if silhouette(alike, best) >= STRUCTURE else one


def silhouette(alike: Floats, labels: Ints) -> float:
    """Mean over domains of (own - next) / own, or / next where that is larger.

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
    larger = np.maximum(own, following)
    values = np.where((sizes[place] > 1) & (larger > 0), (own - following) / np.where(larger > 0, larger, 1), 0.0)
    return float(values.mean())
