"""``mixlab train``, ``mixlab evaluate`` and ``mixlab predict``."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from mixlab.cli.arguments import add_fields, make_parser, parse
from mixlab.errors import expected

SHOWN = ("loss", "accuracy", "balanced_accuracy", "auroc", "macro_f1")
SHOWN_OF_MASKS = ("loss", "dice", "dice_unmasked", "hd95")


def train(words: list[str]) -> int:
    """Train one model and print its metrics."""
    from mixlab.studies.configuration import load_yaml, merge
    from mixlab.studies.run_config import OF_STUDIES, RunConfig
    from mixlab.studies.study import Resources, run_single

    parser = make_parser("train", "Train one model. Options win over the file.", "[FILE]")
    parser.add_argument("file", nargs="?", type=str, help="YAML file with the fields below")
    parser.add_argument("--out", type=str, default="mixlab-runs", metavar="DIR", help="the run is a folder in DIR/runs")
    add_fields(parser, Resources, title="this machine")
    add_fields(parser, RunConfig, title="run", without=OF_STUDIES)
    given = parse(parser, words)
    machine = Resources(**{k: given.pop(k) for k in ("device", "jobs", "threads", "workers") if k in given})
    file, out = given.pop("file", None), Path(given.pop("out", "mixlab-runs"))
    config = RunConfig.of(merge(load_yaml(Path(file)) if file else {}, given), f"file {file}" if file else "train")
    console = Console(stderr=True)
    result, run = run_single(config, out, machine, console)
    summary = run.folder.summary()
    if summary:
        show_metrics({split: summary[split] for split in ("val", "test") if summary[split]})
    console.print(f"run:     {run.folder.path}", highlight=False, soft_wrap=True)
    return 1 if result.failed else 0


def evaluate(words: list[str]) -> int:
    """Metrics of a run's best weights on a split."""
    from mixlab.data import DataConfig
    from mixlab.studies.evaluation import evaluate_run

    parser = make_parser(
        "evaluate", "Metrics of a run's best weights on a split; the run's folder stays as it is.", "RUN"
    )
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument("--split", type=str, default="test", help="test, val or train")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", type=bool, default=False, help="print JSON")
    add_fields(parser, DataConfig, "data")
    given = parse(parser, words)
    found = evaluate_run(Path(given["run"]), given.get("split", "test"), given.get("data"), given.get("device", "auto"))
    for message in dict.fromkeys(event["message"] for event in found["events"]):
        tell(message)
    if given.get("json"):
        print(json.dumps(found, indent=2))
    else:
        show_metrics({f"{found['data']}, {found['split']} ({found['cases']} cases)": found})
    return 0


def predict(words: list[str]) -> int:
    """Probabilities for image files as CSV, or masks of them in a folder."""
    from mixlab.studies.evaluation import open_trained, read_card

    about = "Class probabilities of a run's best weights for image files, or their masks from a segmentation run."
    parser = make_parser("predict", about, "RUN IMAGES...")
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument("images", nargs="+", type=str, help="image files")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    where = "CSV file to write, by default standard output; of a segmentation run the folder for the masks, required"
    parser.add_argument("--output", type=str, metavar="PATH", help=where)
    parser.add_argument("--overwrite", type=bool, default=False, help="replace masks that exist")
    given = parse(parser, words)
    run, files, output = Path(given["run"]), [Path(file) for file in given["images"]], given.get("output")
    card = read_card(open_trained(run))
    if card.task == "segmentation":
        return _predict_masks(run, files, output, card, given)
    check_output(output)
    from mixlab.studies.evaluation import predict_files

    classes, probabilities = predict_files(run, files, given.get("device", "auto"), tell)
    rows = [
        [str(file), classes[int(p.argmax())], *(f"{value:.6f}" for value in p)]
        for file, p in zip(files, probabilities, strict=True)
    ]
    write_csv([["path", "predicted", *classes], *rows], output)
    return 0


def _predict_masks(run: Path, files: list[Path], output: str | None, card: Any, given: dict[str, Any]) -> int:
    """Write masks, and on standard output where each is and how large its structures are."""
    from mixlab.data.card import structures
    from mixlab.studies.prediction import predict_masks

    if output is None:
        raise expected("--output", "a folder for the masks of a segmentation run", None, "--output DIR")
    overwrite = given.get("overwrite", False)
    masks = predict_masks(run, files, Path(output), given.get("device", "auto"), tell, overwrite=overwrite)
    console = Console(stderr=True)
    shown = track(
        masks, "segmenting", total=len(files), console=console, transient=True, disable=not console.is_terminal
    )
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["path", "mask", *(card.classes[number] for number in structures(card))])
    for mask in shown:  # row by row: what was written stays told if a later image fails
        table.writerow([mask.image, mask.place, *mask.pixels])
        sys.stdout.flush()
    console.print(f"masks:   {output}", highlight=False, soft_wrap=True)
    return 0


def tell(message: str) -> None:
    """A line of note on standard error."""
    Console(stderr=True).print(Text(f"note: {message}", style="dim"), soft_wrap=True)


def check_output(output: str | None) -> None:
    """Refuse a file that could not be written, before anything is computed for it."""
    if output is None:
        return
    folder = Path(output).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise expected("--output", "a file in a folder that can be written", output, "a folder that exists")
    if Path(output).is_dir():
        raise expected("--output", "a file", output, f"{Path(output) / 'predictions.csv'}")


def write_csv(rows: list[list[str]], output: str | None) -> None:
    """Write rows to a file, or to standard output."""
    if output is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return
    from mixlab.training.files import write_atomically

    with_lines = "".join(_line(row) for row in rows)
    write_atomically(Path(output), lambda file: file.write(with_lines.encode()))


def show_metrics(columns: dict[str, dict[str, Any]]) -> None:
    """A table of metrics, one column a split."""
    table = Table("", *columns, box=None, header_style="bold")
    of_masks = any("dice" in column for column in columns.values())
    known = {name for column in columns.values() for name in column}
    for name in filter(known.__contains__, SHOWN_OF_MASKS) if of_masks else SHOWN:
        values = [column.get(name) for column in columns.values()]
        table.add_row(_title(name, columns), *("" if v is None else f"{v:.4f}" for v in values))
    Console().print(table)


def _title(name: str, columns: dict[str, dict[str, Any]]) -> str:
    """A metric's name with its unit, where it has one."""
    units = dict.fromkeys(column[f"{name}_unit"] for column in columns.values() if column.get(f"{name}_unit"))
    return name.replace("_", " ") + (f" ({' or '.join(units)})" if units else "")


def _line(row: list[str]) -> str:
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()
