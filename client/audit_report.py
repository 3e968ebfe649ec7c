"""An audit as a page that stands alone: no script, nothing fetched, light and dark, to be printed and signed."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.util import find_spec
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #b9c0c8; --soft: #f3f5f7;
  --hue-1: #2563a8; --hue-2: #c2571a; --hue-3: #4d7a2c; --bad: #a32020; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --paper: #14181d; --line: #58616b; --soft: #1f252c;
  --hue-1: #7fb2ea; --hue-2: #f09a62; --hue-3: #9ccb76; --bad: #ff8f8f; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 56rem;
  margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p { margin: .4rem 0; max-width: 46rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin: .6rem 0; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { background: var(--soft); } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
svg { max-width: 100%; height: auto; } svg text { font-family: system-ui, sans-serif; fill: var(--ink); }
code { font-size: .8rem; overflow-wrap: anywhere; } .bad { color: var(--bad); font-weight: 600; }
.sign { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: 2.4rem 1.5rem;
  margin-top: 2.4rem; }
.sign div { border-top: 1px solid var(--ink); padding-top: .2rem; font-size: .85rem; }
@media print { body { max-width: none; } h2 { break-after: avoid; } table, svg { break-inside: avoid; } }
"""
STEADY, MOVED = 0.1, 0.25

Chart = Callable[[], str]


def render(found: Mapping[str, Any]) -> str:
    """The page of an audit's figures (``client.audit.audit``)."""
    digest = hashlib.sha256(to_json(found).encode()).hexdigest()
    drawn = find_spec("matplotlib") is not None
    parts = [
        _head(found),
        _exposure(found),
        _groups(found, drawn),
        _providers(found, drawn),
        _calibration(found, drawn),
        _quality(found),
        _scores(found, drawn),
        _drift(found),
        _rules(found),
        _complaints(found),
        _log_and_privacy(found),
        ""
        if drawn
        else "<p>Tables only: matplotlib is not installed here (<code>pip install -e '.[plots]'</code>).</p>",
        _sign(digest),
    ]
    title = f"Audit of {found['domain']}, {found['made'][:10]}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def to_json(found: Mapping[str, Any]) -> str:
    """What is kept beside the page, and what the page's digest is of."""
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _head(found: Mapping[str, Any]) -> str:
    made = found["made"].replace("T", " ").replace("+00:00", " UTC")
    rows = [
        ("Made", made),
        ("Model, rules", f"{found['model']}, {found['rules']}"),
        ("Catalogue, users", f"{found['items']:,} items, {found['users']:,} users"),
        ("What was looked at", f"{found['log']['answers']:,} answers in the log of what was shown; and the "
         f"{found['sample']['k']} items that {found['sample']['users']:,} users, drawn once, would be shown now"),
    ]  # fmt: skip
    cells = "".join(f"<tr><th scope='row'>{name}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<h1>Audit: {escape(found['domain'])}</h1>\n<table>{cells}</table>\n"


def _exposure(found: Mapping[str, Any]) -> str:
    views = [("would be shown now", found["exposure"]["sample"]), ("was shown, by the log", found["exposure"]["log"])]
    rows = [
        (name, _percent(one["coverage"]), f"{one['gini']:.3f}", f"{one['popularity']:.1f}")
        for name, one in views
        if one
    ]
    return (
        _section("Exposure", "How much of the catalogue is shown at all (coverage), how unequally (Gini: 0 all items "
                 "equally often, near 1 few items take all places), and how often what is shown was met before.")
        + _table(["", "coverage", "Gini", "mean popularity"], rows)
    )  # fmt: skip


def _groups(found: Mapping[str, Any], drawn: bool) -> str:
    return _section(
        "Exposure by popularity", "Head, middle and tail have a third of all interactions each, the most popular first."
    ) + _shares("group", found["popularity_groups"], drawn, "Exposure of popularity groups")


def _providers(found: Mapping[str, Any], drawn: bool) -> str:
    column = found["columns"]["provider"]
    if not column:
        return _section("Exposure by provider", "No column tells who provides an item; --provider COLUMN names one.")
    return _section(
        f"Exposure by {column}",
        "Beside their shares of the catalogue and of all interactions: who is shown more than both?",
    ) + _shares("value", found["providers"], drawn, f"Exposure by {column}")


def _shares(key: str, rows: Sequence[Mapping[str, Any]], drawn: bool, alt: str) -> str:
    table = [
        (
            row[key],
            f"{row['items']:,}",
            *(_percent(row[part]) for part in ("catalogue", "interactions", "sample", "log")),
        )
        for row in rows
    ]
    words = _table(["", "items", "of the catalogue", "of interactions", "would be shown", "was shown"], table)
    if not drawn:
        return words
    from client.charts import shares

    names = (("interactions", "interactions"), ("would be shown", "sample"))
    series = [(name, [row[part] or 0.0 for row in rows]) for name, part in names]
    return shares([str(row[key]) for row in rows], series, alt) + words


def _calibration(found: Mapping[str, Any], drawn: bool) -> str:
    column, about = found["columns"]["category"], found["calibration"]
    if not column or about["kl"] is None:
        return _section("Calibration", "No column tells kinds of items; --category COLUMN names one.")
    words = (
        f"How far the mix of {column} in each list is from that of its user's history (KL divergence, Steck 2018): "
        f"{about['kl']:.2f} on average over {about['users']:,} users; the same {found['sample']['k']} popular items "
        f"for everybody would have {about['kl_of_popular']:.2f}. 0 is the same mix."
    )
    rows = [(one["value"], _percent(one["history"]), _percent(one["shown"])) for one in about["mix"]]
    table = _table([column, "in histories", "in lists"], rows)
    if drawn:
        from client.charts import shares

        series = [
            (name, [one[part] for one in about["mix"]])
            for name, part in (("in histories", "history"), ("in lists", "shown"))
        ]
        table = shares([one["value"] for one in about["mix"]], series, f"Mix of {column}") + table
    return _section("Calibration", words) + table


def _quality(found: Mapping[str, Any]) -> str:
    rows = [
        (
            one["by"] if one["by"] != "all" else "",
            one["group"],
            f"{one['cases']:,}",
            f"{one['ndcg@10']:.4f}",
            f"{one['hr@10']:.4f}",
        )
        for one in found["quality"]
    ]
    return _section(
        "Quality by group of users",
        f"On the domain's own test cases, protocol {found['protocol']}. Small groups vary by chance: see their cases.",
    ) + _table(["by", "group", "cases", "NDCG@10", "HR@10"], rows, texts=2)


def _scores(found: Mapping[str, Any], drawn: bool) -> str:
    about = found["scores"]
    words = (
        "Scores turned into chances (softmax): how sure the model is of its first item, and how often that was right. "
        f"Expected calibration error {about['error']:.3f}."
    )
    rows = [(f"{one['said']:.3f}", f"{one['was']:.3f}", f"{one['cases']:,}") for one in about["bins"]]
    table = _table(["chance given", "was right", "cases"], rows, texts=0)
    if drawn and rows:
        from client.charts import reliability

        table = reliability(about["bins"], "Chance given against how often it was right") + table
    return _section("Do scores mean what they say?", words) + table


def _drift(found: Mapping[str, Any]) -> str:
    about = found["drift"]
    if about is None:
        return _section("Drift", "The first audit of this home: the next one is compared with it.")
    rows = [(name, f"{value:.3f}", _verdict(value)) for name, value in about["psi"].items()]
    return _section(
        "Drift",
        f"Since the audit of {about['since'][:16].replace('T', ' ')} UTC (model {about['model']}): population "
        "stability index of what the sample is shown.",
    ) + _table(["of", "PSI", ""], rows)


def _verdict(value: float) -> str:
    return "steady" if value < STEADY else "moved" if value < MOVED else "moved much"


def _rules(found: Mapping[str, Any]) -> str:
    rows = [
        (
            one["rule"],
            "nobody" if one["least_age"] is None else f"from {one['least_age']}",
            f"{one['items']:,}",
            f"{one['struck']:,}",
        )
        for one in found["filtered"]
    ]
    if not rows:
        return _section("Filtered items", "No rules are in force.")
    return _section(
        "Filtered items", "What each rule keeps back, and how often it struck an item that would have been shown."
    ) + _table(["rule", "who sees it", "items", "struck, by the log"], rows, texts=2)


def _complaints(found: Mapping[str, Any]) -> str:
    about = found["complaints"]
    words = (
        f"{about['harmful']:,} times harmful, {about['hide']:,} times hidden, {about['why']:,} times asked why; "
        f"{about['waiting']:,} items wait for a decision."
    )
    rows = [(one["item"], one["title"], f"{one['harmful']:,}", f"{one['hide']:,}") for one in about["top"]]
    return _section("Top complaints", words) + (
        _table(["item", "title", "harmful", "hidden"], rows, texts=2) if rows else ""
    )


def _log_and_privacy(found: Mapping[str, Any]) -> str:
    log, spent = found["log"], found["privacy"]
    state = f'<span class="bad">Changed: {escape(log["broken"])}.</span>' if log["broken"] else "The chain is whole."
    privacy = "Nothing was released under a promise of privacy."
    if spent:
        bound = "" if spent["epsilon"] is None else f", epsilon {spent['epsilon']:.3f} at delta {spent['delta']:g}"
        privacy = f"{escape(spent['in words'])} ({spent['releases']:,} releases{bound})"
    return (
        "<h2>Log of what was shown</h2>\n"
        f"<p>{state} {log['records']:,} records, number {log['first']:,} to {log['last']:,}; {log['emptied']:,} of "
        f"users who were forgotten, {log['lost']:,} lost. Head: <code>{escape(log['head'])}</code></p>\n"
        f"<h2>Privacy spent</h2>\n<p>{privacy}</p>\n"
    )


def _sign(digest: str) -> str:
    lines = "".join(f"<div>{name}</div>" for name in ("Reviewed by", "Date", "Signature"))
    return (
        "<h2>Sign-off</h2>\n<p>These figures are in the JSON file of the same name; its SHA-256 is "
        f"<code>{digest}</code>. Findings, and what is to be done:</p>\n<div class='sign'>"
        "<div style='grid-column: 1/-1; "
        f"margin-top: 5rem'>Findings</div>{lines}</div>\n"
    )


def _section(title: str, words: str) -> str:
    return f"<h2>{escape(title)}</h2>\n<p>{escape(words)}</p>\n"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """The first ``texts`` columns are words, the others numbers."""
    kind = ["" if place < texts else " class='n'" for place in range(len(names))]
    head = "".join(f"<th scope='col'{k}>{escape(name)}</th>" for name, k in zip(names, kind, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{escape(str(cell))}</td>" for cell, k in zip(row, kind, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n"
