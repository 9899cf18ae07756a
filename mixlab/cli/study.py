"""``mixlab study run``, ``mixlab study status`` and ``mixlab report``."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from mixlab.errors import expected, unknown


def run(words: list[str]) -> int:
    """Train what is missing of a study, print the ranking and write the report."""
    from mixlab.cli.arguments import add_fields, make_parser, parse
    from mixlab.studies.configuration import merge
    from mixlab.studies.grid import StudyConfig
    from mixlab.studies.profiles import with_profile
    from mixlab.studies.study import Resources, default_folder, run_study

    parser = make_parser(
        "study run",
        "Train the token mixers of a study and compare them. The study is a YAML file, the name of a packaged study "
        f"({', '.join(packaged())}), or made of options alone; options win over the file.",
        "[FILE|NAME]",
    )
    parser.add_argument("study", nargs="?", type=str, help="YAML file or packaged study")
    parser.add_argument("--out", type=str, metavar="DIR", help="folder of the study; by default mixlab-studies/NAME")
    add_fields(parser, Resources, title="this machine")
    add_fields(parser, StudyConfig, title="study", without=("published",))
    given = parse(parser, words)
    machine = Resources(**{k: given.pop(k) for k in ("device", "jobs", "threads", "workers") if k in given})
    source, out = given.pop("study", None), given.pop("out", None)
    where = f"study file {source}" if source else "study"
    plain = merge(with_profile(read_source(source), given.pop("profile", None), where), given)
    config = StudyConfig.of(plain, where)
    if "name" not in plain:
        config = dataclasses.replace(config, name=data_name(config))
    folder = Path(out) if out else default_folder(config.name)
    console = Console(stderr=True)
    result = run_study(config, folder, machine, console)
    show_results(folder, console)
    return 1 if result.failed else 0


def data_name(config: Any) -> str:
    """A name for a study that was given none, from its data, so that studies of other data get other folders."""
    from mixlab.studies.facts import slug
    from mixlab.studies.plan import folder_name

    slugs = dict.fromkeys(slug(data.name) for data in config.data)
    return folder_name("+".join(slugs)).lstrip(".") or "study"


def packaged() -> dict[str, Any]:
    """Studies that come with the package, by name."""
    files = resources.files("mixlab.studies").joinpath("recipes").iterdir()
    return {f.name.removesuffix(".yaml"): f for f in sorted(files, key=lambda f: f.name) if f.name.endswith(".yaml")}


def read_source(source: str | None) -> dict[str, Any]:
    """The values of a study file, or of a packaged study by its name."""
    from mixlab.studies.configuration import load_yaml

    if source is None:
        return {}
    path = Path(source)
    if path.is_file():
        values = {"name": path.stem, **load_yaml(path)}
        return _beside(values, path.parent)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise expected("study file", "a YAML file that exists", source)
    known = packaged()
    if source not in known:
        raise unknown("study", source, known)
    with resources.as_file(known[source]) as file:
        return {"name": source, **load_yaml(file)}


def _beside(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths that a study file gives from where it lies itself: the table of published numbers."""
    published = values.get("published")
    if isinstance(published, dict) and isinstance(published.get("table"), str):
        values["published"] = {**published, "table": str(folder / published["table"])}
    return values


def show_results(folder: Path, console: Console) -> None:
    """Print the ranking, write the report, say where things are."""
    from mixlab.studies.report import build_report, print_ranking

    print_ranking(folder, Console())
    page = build_report(folder)
    console.print(f"report:  {page}", highlight=False, soft_wrap=True)
    console.print(f"runs:    {folder / 'runs'}", highlight=False, soft_wrap=True)


def report(words: list[str]) -> int:
    """Write a study's report from its run folders."""
    from mixlab.cli.arguments import make_parser, parse
    from mixlab.studies.run_folder import run_folders

    parser = make_parser("report", "Rank the finished runs of a study and write report.html; reads run folders only.")
    parser.add_argument("study", type=str, help="folder of the study")
    folder = Path(parse(parser, words)["study"])
    run_folders(folder)
    show_results(folder, Console(stderr=True))
    return 0


def status(words: list[str]) -> int:
    """Print how far the runs of a study are."""
    from rich.table import Table

    from mixlab.cli.arguments import make_parser, parse
    from mixlab.studies.status import study_status
    from mixlab.training.selection import told

    parser = make_parser("study status", "How far the runs of a study are.")
    parser.add_argument("study", type=str, help="folder of the study")
    parser.add_argument("--json", type=bool, default=False, help="print JSON")
    given = parse(parser, words)
    rows = study_status(Path(given["study"]))
    if given.get("json"):
        print(json.dumps([vars(row) for row in rows], indent=2))
        return 0
    table = Table("run", "state", "epoch", "best on validation", "message", box=None, header_style="bold")
    for row in rows:
        best = "" if row.best is None else f"{told(row.best)} (epoch {row.best['epoch']})"
        epoch = f"{row.epoch}/{row.epochs}" if row.epochs else ""
        table.add_row(row.name, row.state, epoch, best, row.message.split("\n")[0])
    Console().print(table)
    counts = {state: sum(row.state == state for row in rows) for state in dict.fromkeys(row.state for row in rows)}
    print(", ".join(f"{n} {state}" for state, n in counts.items()))
    return 0
