"""The report from run folders: what is read, what is said, what is written; no browser needed."""

from __future__ import annotations

import csv
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from rich.console import Console

from mixlab.errors import UserError
from mixlab.studies.report import StudySummary, build_report, print_ranking, ranking, read_study
from mixlab.studies.report.class_figures import class_figures
from mixlab.studies.report.details import configurations, events, remarks, unfinished
from mixlab.studies.report.examples import collect_examples
from mixlab.studies.report.figures import score_figures
from mixlab.studies.report.style import label_styles, quantity

from .fake_study import FakeStudy, write_study

FEW = ("identity", "pooling-k3", "sep_conv-k3")
NINE = (*FEW, "pooling-k5", "sep_conv-k5", "conv-k3", "local_attention-k3", "local_attention-k5", "attention")


class Page(HTMLParser):
    """Links, ids, texts and the figures' JSON of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.figures: list[dict[str, Any]] = []
        self.loaded: list[str] = []
        self.text = ""
        self._json = False
        self._skip = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self._json = tag == "script" and values.get("type") == "application/json"
        self._skip = tag in ("script", "style")
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        elif "src" in values or "href" in values:
            self.loaded.append(values.get("src") or values["href"])

    def handle_endtag(self, tag: str) -> None:
        self._json = self._skip = False

    def handle_data(self, data: str) -> None:
        if self._json:
            self.figures.append(json.loads(data))
        elif not self._skip:
            self.text += data


def page_of(study: Path) -> Page:
    return Page(build_report(study).read_text(encoding="utf-8"))


def summary_of(study: Path) -> StudySummary:
    return StudySummary(read_study(study))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "three", FakeStudy(labels=FEW, cases=200))


@pytest.fixture(scope="module")
def page(study: Path) -> Page:
    return page_of(study)


def test_page_is_one_file(page: Page) -> None:
    assert page.loaded
    assert all(address.startswith("data:") for address in page.loaded)
    assert {f["id"] for f in page.figures} == {"ranking", "differences", "cost", "curves", "recall", "confusion"}


def test_links_lead_somewhere(study: Path, page: Page) -> None:
    for address in page.links:
        if address.startswith("#"):
            assert address[1:] in page.ids
        else:
            assert (study / unquote(address)).exists(), address
    for run in (study / "runs").iterdir():
        assert f"runs/{run.name}/" in page.links


def test_page_says_what_the_ranking_says(study: Path, page: Page) -> None:
    summary = summary_of(study)
    assert summary.headline() in page.text
    assert summary.selection is not None
    assert f"chooses {summary.selection.label}" in page.text
    assert "2 seeds, 200 test cases" in page.text
    for row in summary.ranking.rows:
        assert f"{row.mean:.3f}" in page.text
    assert ("not distinguishable" in page.text) == any(row.tied for row in summary.ranking.rows)


def test_report_needs_only_the_documented_files(study: Path, tmp_path: Path) -> None:
    first = summary_of(study)
    copy = shutil.copytree(study, tmp_path / "elsewhere" / "three")
    assert summary_of(copy).ranking == first.ranking
    assert ranking(copy) == first.ranking


@pytest.mark.parametrize(
    "spec",
    [
        FakeStudy(labels=NINE, seeds=(0, 1, 2), states={("conv-k3", 0): "diverged"}, cases=120),
        FakeStudy(labels=FEW, multilabel=True, classes=("a", "b", "c"), rgb=True, cases=120),
        FakeStudy(labels=FEW, seeds=(0,), folds=(0, 1, 2), cases=120),
        FakeStudy(labels=FEW, classes=tuple(f"species {i}" for i in range(100)), cases=300),
        FakeStudy(labels=("pooling-k3",), seeds=(0,), cases=120),
        FakeStudy(labels=FEW, states={(label, seed): "failed" for label in FEW for seed in (0, 1)}),
    ],
    ids=["nine labels", "multilabel", "folds", "100 classes", "one run", "only failed runs"],
)
def test_kinds_of_studies(spec: FakeStudy, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", spec)
    page = page_of(folder)
    assert summary_of(folder).headline() in page.text
    assert (folder / "report.html").stat().st_size < 8e6
    with open(folder / "results.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(spec.labels) * len(spec.seeds) * len(spec.folds)


@pytest.mark.parametrize("multilabel", [False, True])
def test_figures_are_valid_plotly(multilabel: bool, tmp_path: Path) -> None:
    import plotly.graph_objects as go

    spec = FakeStudy(labels=FEW, multilabel=multilabel, classes=("a", "b", "c"), cases=120)
    summary = summary_of(write_study(tmp_path / "study", spec))

    def coloured(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: coloured(v) for k, v in value.items() if k != "names"}
        if isinstance(value, list):
            return [coloured(v) for v in value]
        return "#123456" if isinstance(value, str) and value.startswith("var:--") else value

    figures = score_figures(summary) + class_figures(summary)
    assert len(figures) == 6
    for figure in figures:
        for view in figure["views"]:
            go.Figure(data=coloured(view["data"]), layout=coloured(view["layout"]))


def test_class_names_with_html_stay_text(tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", "a & b", "<b>bold</b>")
    folder = write_study(tmp_path / "<i>study", FakeStudy(labels=FEW, classes=names, cases=90))
    html = build_report(folder).read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "<i>study" not in html
    page = Page(html)
    assert "<script>alert(1)</script>" in page.text
    assert "&lt;b&gt;" in json.dumps(page.figures)


def test_unfinished_study_says_so(tmp_path: Path) -> None:
    spec = FakeStudy(labels=FEW, states={("identity", 1): "failed", ("pooling-k3", 0): "running"}, cases=120)
    folder = write_study(tmp_path / "study", spec)
    shutil.rmtree(next((folder / "runs").glob("sep_conv-k3-s1-*")))
    summary = summary_of(folder)
    # No process holds the run that says "running": it was killed.
    assert summary.state_counts() == {"finished": 3, "failed": 1, "interrupted": 1, "missing": 1}
    assert "3 of 6 runs are finished (1 failed, 1 interrupted, 1 missing)." in summary.basis()
    assert {run.state for run, _ in unfinished(summary.study)} == {"failed", "interrupted"}
    text = page_of(folder).text
    assert "missing" in text
    assert "<loss is not finite>" in text


def test_data_sets_are_ranked_apart(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    for data, suffix in (("digits", "digits"), ("medmnist:pathmnist", "pathmnist")):
        labels = tuple(f"{label}-{suffix}" for label in FEW)
        write_study(folder, FakeStudy(labels=labels, data=data, cases=90, classes=("a", "b", "c")))
    page = page_of(folder)
    assert "2 data sets, each ranked for itself." in page.text
    assert len(page.figures) == 12
    assert len({f["id"] for f in page.figures}) == 12
    assert {row.label for row in ranking(folder, data="digits").rows} == set(FEW)  # without the data set's name
    with pytest.raises(UserError, match="the study has several"):
        ranking(folder)
    with pytest.raises(UserError, match="unknown data set"):
        ranking(folder, data="digit")
    console = Console(file=io.StringIO(), width=80)
    print_ranking(folder, console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("Ranked by test macro F1") == 2
    with open(folder / "ranking.csv", encoding="utf-8") as file:
        assert [row["data"] for row in csv.DictReader(file)] == ["digits"] * 3 + ["medmnist:pathmnist"] * 3


def test_divergence_is_a_result(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", FakeStudy(labels=FEW, states={("identity", 0): "diverged"}, cases=90))
    ((run, reason),) = unfinished(read_study(folder))
    assert run.state == "diverged"
    assert "step 120" in reason
    assert "best 0.41" in reason


def test_broken_files_become_remarks(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", FakeStudy(labels=FEW, cases=90))
    first, second, third = (next((folder / "runs").glob(f"{label}-s0-*")) for label in FEW)
    (first / "summary.json").write_text('{"label": ')
    (second / "predictions_test.npz").write_bytes(b"PK\x03\x04 cut off")
    with open(third / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"epoch": 99, "val/')
    text = page_of(folder).text
    assert "summary.json cannot be read" in text
    assert "predictions_test.npz cannot be read" in text
    assert "metrics.jsonl: a line cannot be read" in text
    assert len(read_study(folder).finished) == 5


def test_score_that_its_predictions_do_not_give_is_remarked(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", FakeStudy(labels=FEW, cases=90))
    path = next((folder / "runs").glob("identity-s0-*")) / "summary.json"
    stored = json.loads(path.read_text())
    stored["test"]["macro_f1"] += 0.1
    path.write_text(json.dumps(stored))
    summary = summary_of(folder)
    (remark,) = remarks(summary.study, [summary])
    assert "its predictions give" in remark


def test_stale_and_repeated_runs_are_not_used(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", FakeStudy(labels=FEW, cases=90))
    old = next((folder / "runs").glob("identity-s0-*"))
    shutil.copytree(old, old.with_name("identity-s0-0123456789ab"))
    study = read_study(folder)
    assert len(study.runs) == 6
    assert [why for _, why in study.unused] == ["not part of the study as study.yaml has it now"]
    (folder / "study.yaml").unlink()
    study = read_study(folder)
    assert len(study.runs) == 6
    assert ["newer" in why for _, why in study.unused] == [True]
    assert "not used" in page_of(folder).text


def test_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a folder that holds runs/"):
        build_report(tmp_path)
    (tmp_path / "study.yaml").write_text("name: empty\nlabels: [identity]\nseeds: [0, 1]\n")
    assert "No run has test results yet." in page_of(tmp_path).text
    assert read_study(tmp_path).missing == ["identity, seed 0", "identity, seed 1"]


def test_csv_files(study: Path) -> None:
    build_report(study)
    with open(study / "results.csv", encoding="utf-8") as file:
        results = list(csv.DictReader(file))
    with open(study / "ranking.csv", encoding="utf-8") as file:
        ranked = list(csv.DictReader(file))
    summary = summary_of(study)
    assert [row["label"] for row in ranked] == [row.label for row in summary.ranking.rows]
    for row in ranked:
        own = [float(r["test_macro_f1"]) for r in results if r["label"] == row["label"]]
        assert float(row["mean"]) == pytest.approx(np.mean(own))
        assert float(row["sd_over_runs"]) == pytest.approx(np.std(own, ddof=1))
    assert sum(row["chosen_by_validation"] == "True" for row in ranked) == 1


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_table_fits(width: int, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", FakeStudy(labels=NINE, cases=120))
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_ranking(folder, console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= width
    assert all(label in printed for label in NINE)
    assert summary_of(folder).headline() in " ".join(printed.split())


def test_configuration_is_complete(study: Path) -> None:
    shared = configurations(read_study(study))
    assert ("recipe.epochs", "12") in shared.common
    assert set(shared.names) == {"model.token_mixer", "model.kernel_size", "seed"}
    assert len(shared.differing) == 6


def test_equal_events_are_told_once(study: Path) -> None:
    (event,) = events(read_study(study))
    assert event.kind == "attention"
    assert len(event.runs) == 6


def test_examples_show_mistakes_first(study: Path) -> None:
    examples = collect_examples(summary_of(study))
    assert len(examples) == 12
    counts = [example.mistakes for example in examples]
    assert counts == sorted(counts, reverse=True)
    for example in examples:
        assert example.image.startswith("data:image/png;base64,")
        assert len(example.answers) == 3
        for answer in example.answers:
            assert answer.right == (answer.said == example.truth)


def test_styles_tell_all_labels_apart() -> None:
    labels = [(f"m{i}-k{k}", f"m{i}") for i in range(10) for k in (3, 5, 7)]
    styles = label_styles(labels)
    assert len(set(styles.values())) == len(labels)
    assert len({styles[f"m0-k{k}"].colour for k in (3, 5, 7)}) == 1


@pytest.mark.parametrize(
    ("value", "text"), [(None, "\N{EN DASH}"), (11_915_176, "11.9 M"), (0.5, "0.5"), (2_000_000_000, "2 G")]
)
def test_quantities(value: float | None, text: str) -> None:
    assert quantity(value) == text
