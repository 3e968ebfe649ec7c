"""What the commands print: a table for each kind of result."""

from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

NAMES = {  # method -> its column; broken so that five of them fit 80 characters
    "zero_shot": "zero-shot",
    "local": "local\nonly",
    "federated": "federated",
    "personal": "federated\n+ private",
    "adopted": "adopted,\ncounted",
    "pooled": "pooled",
    "devices": "devices",
    "together": "devices,\ntogether",
}
BASELINES = {
    "popularity": "popularity",
    "item_knn": "item-kNN",
    "bpr_mf": "BPR-MF",
    "sasrec": "SASRec",
    "unisrec": "UniSRec",
    "fedmf": "FedMF",
    "fedncf": "FedNCF",
    "pfedrec": "PFedRec",
}
METRICS = {"hr@10": "HR@10", "ndcg@10": "NDCG@10"}


def table_of(result: dict[str, Any]) -> Table:
    """Two rows a domain, one for each metric; a column for each way to recommend."""
    columns = {**NAMES, **BASELINES}
    methods = [method for method in columns if any(method in domain for domain in result["domains"].values())]
    title = f"{result['ranking'].capitalize()} ranking, protocol {result['protocol']}, seed {result['seed']}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("domain\nusers x items", overflow="fold")
    table.add_column("")
    for method in methods:
        table.add_column(columns[method], justify="right", no_wrap=True)
    rows = [(name, f"{cell['users']:,} x {cell['items']:,}", cell) for name, cell in result["domains"].items()]
    for name, sizes, cells in [*rows, ("mean of domains", "", result["macro"])]:
        for label, (metric, spelt) in zip((name, sizes), METRICS.items(), strict=True):
            values = (f"{cells[method][metric]:.3f}" if method in cells else "" for method in methods)
            table.add_row(Text(label), spelt, *values)
        table.add_section()
    return table


def figures_of(found: dict[str, Any]) -> Table:
    """A row for each domain and method: means with their intervals, and the paired difference."""
    what = f"{found['ranking']} ranking, protocol {found['protocol']}"
    seeds = ", ".join(map(str, found["seeds"]))
    table = Table(
        title=f"{what}, mean of seeds {seeds}, 95 % intervals over users",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    columns = {**NAMES, **BASELINES}
    worst = {method: figures["ndcg@10"]["worst"] for method, figures in found["figures"].items()}
    notes = [f"{name}, {note}" for name, told in found.get("notes", {}).items() for note in told]
    names = [name for name in next(iter(found["figures"].values()))["hr@10"] if name != "worst"]
    if len(names) == 2:  # one domain, and the mean over it alone
        names.remove("macro")
    else:
        each = (f"{columns[method]} {worst[method]}".replace("\n", " ") for method in columns if method in worst)
        notes.append(f"worst domain by NDCG@10: {', '.join(each)}")
    if found.get("incomplete"):
        gaps = "; ".join(f"{method} ({', '.join(runs)})" for method, runs in found["incomplete"].items())
        notes.append(f"left out, for some seed lacks it: {gaps}")
    table.caption, table.caption_justify = Text("\n".join(notes)) if notes else None, "left"
    reference, differences = found["paired"]["reference"], found["paired"]["differences"]
    heads = ["domain", "method", "HR@10", "NDCG@10", *([f"NDCG@10 less {reference}"] if differences else [])]
    for column in heads:
        table.add_column(column, overflow="fold")
    for name in names:
        for method in (method for method in columns if method in found["figures"]):
            cells = [found["figures"][method][metric][name] for metric in METRICS]
            less = differences.get(method, {}).get(name)
            row = [f"{cell['mean']:.4f} ({cell['low']:.4f} to {cell['high']:.4f})" for cell in cells]
            if differences:
                row.append("" if less is None else f"{less['mean']:+.4f} ({less['low']:+.4f} to {less['high']:+.4f})")
            table.add_row(Text(name), columns[method].replace("\n", " "), *row)
        table.add_section()
    return table


def passports_of(found: dict[str, Any]) -> Table:
    """A row for each way to start, and what it gains over popularity."""
    what = f"{found['codes']} of {found['book']} codes, {found['mechanism']}, {found['draws']} draws"
    title = f"{found['from']} to {found['to']}: {found['users']:,} newcomers, full ranking; {what}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("start", "HR@10", "NDCG@10", "NDCG@10 over popularity, 95 %"):
        table.add_column(column)
    for name, cell in found["figures"].items():
        gain = f"{cell['gain']:+.4f} ({cell['gain_low']:+.4f} to {cell['gain_high']:+.4f})"
        table.add_row(name, f"{cell['hr@10']:.4f}", f"{cell['ndcg@10']:.4f}", gain if name != "popularity" else "")
    return table


def audits_of(found: dict[str, Any]) -> Group:
    """A table for each domain: a row for each attack, with the promise and without."""
    return Group(*(_audit_of(domain, one) for domain, one in found.items()))


def _audit_of(domain: str, found: dict[str, Any]) -> Table:
    promised, plain = found["private"], found["plain"]
    title = (
        f"{domain}, {found['members']:,} users in: epsilon {promised['epsilon']:.2f} claimed, "
        f"at least {promised['epsilon_at_least']:.2f};\nwithout a promise at least {plain['epsilon_at_least']:.2f}"
    )
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("attack", no_wrap=True)
    for column in ("epsilon\nclaimed", "AUC\nwith", "AUC\nwithout", "items right:\nwith, without,\npopular ones"):
        table.add_column(column, no_wrap=True)
    for row in attack_rows(found):
        table.add_row(*row)
    return table


def attack_rows(found: dict[str, Any]) -> list[list[str]]:
    """Of each attack: its name, the epsilon claimed, AUC with and without, items right where it names any."""
    rows = []
    for way, cell in found["private"]["attacks"].items():
        other = found["plain"]["attacks"][way]
        covered = "none" if cell["epsilon"] is None else f"{cell['epsilon']:.2f}"
        hits = ""
        if "precision" in cell:
            each = (cell["precision"], other["precision"], other["by_popularity"]["precision"])
            hits = ", ".join(f"{value:.2f}" for value in each)
        rows.append([way, covered, f"{cell['auc']:.3f}", f"{other['auc']:.3f}", hits])
    return rows
