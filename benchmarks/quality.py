"""Quality of recommendations on real data: runs every question, keeps its figures, renders RESULTS.md.

    make bench-quality        or    python benchmarks/quality.py [--only shops-scientific] [--seeds 7]

Each question is one command of ``python -m simulations``; its cells lie under ``runs/quality`` and an interrupted one
goes on there. Figures go to ``benchmarks/quality/NAME.json``, under other seeds than the question's own to
``NAME-SEEDS.json``. What the same words have already answered is kept; --again takes that answer and its cells away and
begins anew.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

HERE = Path(__file__).parent
OURS = "zero_shot,local"
BASELINES = "popularity,item_knn,bpr_mf,sasrec,unisrec"
# HR@10, NDCG@10 on the question's data and protocol, as papers report them; of SASRec on MovieLens with a softmax over
# all items, as here (Klenitskiy & Vasilev 2023; sampled losses: .181, .095 and more). In shops both learn here, as ours
# does, that people do not buy twice, which lifts NDCG and which papers leave out. A baseline is no straw man where it
# reaches as much here, less TOLERANCE of it.
PUBLISHED = {
    "federated-papers": {"fedmf": (0.675, 0.381), "fedncf": (0.658, 0.387), "pfedrec": (0.736, 0.444)},
    "media-video-loo": {"sasrec": (0.315, 0.182)},
    "shops-instruments": {"sasrec": (0.1233, 0.0746)},
    "shops-scientific": {"sasrec": (0.1080, 0.0553), "unisrec": (0.1235, 0.0634)},
    "shops-games": {"sasrec": (0.0940, 0.0481)},
}
TOLERANCE = 0.1
SHOPS = ("instruments", "scientific", "arts", "office", "games")
NAMES = {
    "zero_shot": "zero-shot",
    "local": "ours, one domain alone",
    "federated": "ours, global model",
    "personal": "ours, federated + private",
    "adopted": "ours, not trained: global model, counts at home",
    "devices": "ours, one user = one client",
    "together": "ours, devices that read all domains",
}


def questions(root: Path) -> dict[str, tuple[str, list[str]]]:
    """Name -> (seeds, words after ``python -m simulations``); most telling first.

    Sized so that all of it takes a night on two cores: three seeds where a run takes minutes, one where it takes an
    hour; three or four kinds of shops federate, two where each has four owners (larger scenarios: the same words, more
    ``--shops``, more ``--seeds``).
    """
    shops, media = str(root / "shop"), str(root / "media")
    methods = f"{OURS},{BASELINES}"
    asked: dict[str, tuple[str, list[str]]] = {}
    for shop in SHOPS:
        seeds = "7,8,9" if shop in ("instruments", "scientific") else "7"
        asked[f"shops-{shop}"] = (seeds, ["evaluate", "--data", f"{shops}/{shop}", "--methods", methods])
    # Six epochs of ours take an hour and a half of a core there; as its sixth is its best it would begin anew.
    asked["shops-games"][1].extend(["--set", "train.most_epochs=6"])
    # Same-kind's owners are all in small-shop, beside two small ones.
    asked["small-shop"] = ("7", ["scenario", "small-shop", "--root", shops, "--shops", "instruments,scientific"])
    # All kinds at once, with owners small enough for it, and what each kind's four could reach together.
    asked["twenty-owners"] = ("7", ["scenario", "same-kind", "--root", shops, "--users", "1000"])
    asked["twenty-owners-pooled"] = ("7", ["scenario", "pooled-kind", "--root", shops, "--users", "4000"])
    four = ["--shops", "instruments,scientific,arts,office"]
    three = ["--shops", "instruments,scientific,office"]
    asked["different-shops"] = ("7", ["scenario", "different-shops", "--root", shops, *three, "--rounds", "6"])
    asked["new-kind"] = ("7", ["scenario", "new-kind", "--root", shops, *four, "--rounds", "2"])
    for name in ("new-kind", "twenty-owners"):  # the uniform rule stands beside affinity in different-shops
        asked[name][1].extend(["--families", "affinity"])
    two = ["--root", shops, "--shops", "instruments,scientific", "--families", "affinity"]
    asked["private-kinds"] = ("7,8,9", ["scenario", "private-kinds", *two])
    asked["devices"] = ("7", ["scenario", "devices", "--root", media])
    asked["private-devices"] = ("7,8,9", ["scenario", "devices", "--root", media, "--set", "privacy.epsilon=8"])
    shares = [*asked["private-devices"][1], "--set", "privacy.transitions=1", "--set", "privacy.noise_by=devices"]
    asked["private-devices-shares"] = ("7,8,9", shares)
    for name in ("news", "music", "social"):
        asked[f"media-{name}"] = ("7", ["evaluate", "--data", f"{media}/{name}", "--methods", methods])
    # 51,282 headlines take ten minutes through the adapted layers, after each epoch: towers alone are trained there; at
    # once for as long as trainings begun anew would come to.
    asked["media-news"][1].extend(["--set", "train.lora_lr=0", "--set", "train.epochs=16"])
    time = ["evaluate", "--data", f"{media}/video", "--protocol", "time", "--methods", methods]
    asked["media-video-time"] = ("7", time)
    centralised = ["evaluate", "--data", f"{media}/video", "--methods", "popularity,item_knn,bpr_mf,sasrec"]
    asked["media-video-loo"] = ("7", centralised)
    federated = "fedmf,fedncf,pfedrec"
    papers = ["evaluate", "--data", f"{media}/video", "--protocol", "loo-99", "--methods", federated]
    asked["federated-papers"] = ("7", papers)
    return asked


def main(
    root: Annotated[Path, typer.Option(help="The folder with shop/ and media/.")] = Path("../shared/data"),
    only: Annotated[list[str] | None, typer.Option(help="Some of the questions.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, with commas, instead of each question's own.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also those that have an answer.")] = False,
) -> None:
    """Answer the questions one after the other, then render benchmarks/RESULTS.md."""
    (HERE / "quality").mkdir(exist_ok=True)
    asked = questions(root)
    if unknown := sorted(set(only or ()) - set(asked)):
        raise SystemExit(f"--only: expected some of {', '.join(asked)}; found {', '.join(unknown)}")
    for name, (own_seeds, words) in asked.items():
        wanted = seeds or own_seeds
        place = HERE / "quality" / (f"{name}.json" if wanted == own_seeds else f"{name}-{wanted}.json")
        question = ["python", "-m", "simulations", *words, "--seeds", wanted]
        if (only and name not in only) or (answered(place, question) and not again):
            continue
        run = Path("runs/quality") / name
        if again:
            for part in _parts(run, wanted):
                shutil.rmtree(part)
            place.unlink(missing_ok=True)  # so that an interrupted one goes on without --again
        command = [*question, "--out", str(run), "--json"]
        print(" ".join(command), file=sys.stderr)
        done = subprocess.run([sys.executable, *command[1:]], stdout=subprocess.PIPE, check=False)
        if done.returncode:
            raise SystemExit(f"{name} ended with status {done.returncode}; run again to go on")
        answer = {
            "command": " ".join(command),
            **_made(_parts(run, wanted)),
            "found": json.loads(done.stdout),
        }
        place.write_text(json.dumps(answer, indent=1) + "\n")
    (HERE / "RESULTS.md").write_text(render())


def render() -> str:
    """All answers as tables."""
    how = "Rendered by `make bench-quality`; means over seeds, 95 % bootstrap intervals over users."
    seeds = (
        "They tell how far other users would have come under the same training. Another seed's comes a hundredth "
        "higher or lower, so of one seed a difference of so little is none."
    )
    code = "Several commits: an interrupted run went on under later code; `+`: with changes that were not committed."
    lines = ["# Quality, measured", "", f"{how} {seeds} {code}", ""]
    for path in sorted((HERE / "quality").glob("*.json")):
        answer = json.loads(path.read_text())
        made = f"commit {answer['commit']}, {answer['seconds']:,} s"
        lines += [f"## {path.stem}", "", f"`{answer['command']}`  ", made, ""]
        found = answer["found"]
        for label, part in ({"": found} if "figures" in found else found).items():
            lines += [f"### {label}", ""] if label else []
            lines += table(part)
        lines += against_papers(found, PUBLISHED.get(path.stem, {}))
    return "\n".join(lines) + "\n"


def table(found: dict) -> list[str]:
    """One summary: a row for each domain and method."""
    reference, differences = found["paired"]["reference"], found["paired"]["differences"]
    head = ["domain", "method", "HR@10", "NDCG@10"]
    if differences:  # else the reference was not asked
        head.append(f"NDCG@10 less {NAMES.get(reference, reference)}")
    lines = [
        f"{found['ranking']} ranking, protocol {found['protocol']}, seeds {', '.join(map(str, found['seeds']))}",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    first = next(iter(found["figures"].values()))["hr@10"]
    alone = len(first) <= 3  # one domain, and what it comes to with nobody beside it
    for domain in (name for name in first if name != "worst" and not (alone and name == "macro")):
        for method, figures in found["figures"].items():
            if domain not in figures["hr@10"]:
                continue
            cells = [figures[metric][domain] for metric in ("hr@10", "ndcg@10")]
            less = differences.get(method, {}).get(domain)
            spelt = [f"{c['mean']:.4f} ({c['low']:.4f} to {c['high']:.4f})" for c in cells]
            if differences:
                spelt.append("" if less is None else f"{less['mean']:+.4f} ({less['low']:+.4f} to {less['high']:+.4f})")
            lines.append(f"| {domain} | {NAMES.get(method, method)} | {' | '.join(spelt)} |")
    lines += [f"\n{name}, {note}" for name, notes in found.get("notes", {}).items() for note in notes]
    if found.get("incomplete"):
        lines += ["", f"Left out, for some seed lacks them: {', '.join(found['incomplete'])}"]
    lines += ["", *strata_table(found["strata"])]
    if kinds := found.get("kinds"):
        within, across = (", ".join(f"{one:.2f}" for one in kinds[part]) for part in ("within", "across"))
        cosines = f"within kinds {within}, across {across} (least, median, most)"
        told = f"; pairs told rightly {kinds['rand']:.1%}" if "rand" in kinds else ""
        lines += ["", f"Affinities {cosines}; AUC {kinds['auc']:.3f}{told}"]
    return [*lines, ""]


def against_papers(found: dict, published: dict[str, tuple[float, float]]) -> list[str]:
    """What papers say of a baseline beside what ours reaches; nothing where none does."""
    lines = []
    for method, told in published.items():
        if method in found["figures"]:
            ours = [found["figures"][method][metric]["macro"]["mean"] for metric in ("hr@10", "ndcg@10")]
            enough = all(one >= (1 - TOLERANCE) * other for one, other in zip(ours, told, strict=True))
            spelt = [" / ".join(f"{value:.3f}" for value in pair) for pair in (told, ours)]
            lines.append(f"| {method} | {' | '.join(spelt)} | {'yes' if enough else 'no'} |")
    head = f"| HR@10 / NDCG@10 | published | here | no more than {TOLERANCE:.0%} below |"
    return [head, "|---|---|---|---|", *lines, ""] if lines else []


def strata_table(strata: dict) -> list[str]:
    """NDCG@10 of each stratum, over the cases of all domains together; a row for each method."""
    names = list(next(iter(strata.values()))["all"])
    lines = [f"| NDCG@10 of | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for method, domains in strata.items():
        cells = [stratum_cell(one) if one["cases"] else "" for one in domains["all"].values()]
        lines.append(f"| {NAMES.get(method, method)} | {' | '.join(cells)} |")
    return lines


def stratum_cell(found: dict) -> str:
    """A mean, its interval and what it is less the reference, as far as the run kept its cases by stratum."""
    around = f"{found['low']:.4f} to {found['high']:.4f}; " if "low" in found else ""
    less = found.get("less")
    lead = f"; {less['mean']:+.4f}, {less['low']:+.4f} to {less['high']:+.4f}" if less else ""
    return f"{found['ndcg@10']:.4f} ({around}{found['cases']:,} cases{lead})"


def _parts(run: Path, seeds: str) -> list[Path]:
    """Where a run keeps these seeds, one folder for each of its families."""
    return sorted(part for seed in seeds.split(",") for part in run.glob(f"**/seed-{seed}"))


def _made(parts: list[Path]) -> dict[str, str | int]:
    """The commits whose code made the cells (more than one where an interrupted run went on under other code), and the
    seconds that it took, interruptions left out."""
    results = [json.loads(path.read_text()) for part in parts if (path := part / "result.json").exists()]
    commits = sorted({name for result in results for name in result.get("commits", {})})
    return {"commit": ", ".join(commits) or "unknown", "seconds": round(sum(one["seconds"] for one in results))}


def answered(place: Path, question: list[str]) -> bool:
    """Whether the file holds an answer to this command, wherever its cells lay."""
    if not place.exists():
        return False
    words = json.loads(place.read_text())["command"].split()
    return words[: words.index("--out")] == question


if __name__ == "__main__":
    typer.run(main)
