"""The report beside published numbers, and what it says of stand-ins."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from mixlab.studies.published import FILE, load, prepare
from mixlab.studies.report import StudySummary, build_report, print_ranking, read_study
from mixlab.studies.report.collect import by_data
from mixlab.studies.report.published import Beside, beside

from .fake_study import FakeStudy, write_study
from .test_report import Page

LABELS = ("identity", "pooling-k3", "local_attention-k3", "local_attention-k5", "random_mixing")
TABLE = """\
mixer,kernel,data,acc,auc,f1,note,diverged
identity,1,Digits,0.5,0.75,0.625,,False
pooling,3,Digits,0.6,0.8,0.7,,False
locAttn,3,Digits,0.4,,,"unstable, <even> at a lower rate",True
locAttn,7,Digits,0.4,0.5,0.6,,False
"""
PLAIN: dict[str, Any] = {
    "table": "t.csv",
    "source": "a report, table 3",
    "columns": {"mixer": "mixer", "kernel": "kernel_size", "data": "data"},
    "names": {"mixer": {"local_attention": "locAttn"}, "data": {"digits": "Digits"}},
    "protocol": {"model.name": "metaformer_s12", "recipe.epochs": 12.0, "recipe.lr": 0.01, "recipe.sam": True},
    "notes": ["Two seeds here."],
}


def prepared(folder: Path, **changes: Any) -> Path:
    """A study folder that has published numbers."""
    (folder / "t.csv").write_text(TABLE)
    prepare(PLAIN | changes, folder, folder)
    (folder / "t.csv").unlink()  # the report has the study's folder and nothing else
    return folder


def beside_of(folder: Path) -> Beside:
    published = load(folder)
    assert published is not None
    (part,) = by_data(read_study(folder))
    return beside(StudySummary(part), published)


def results_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def section_of(folder: Path) -> str:
    """Text of the section, words apart by one space."""
    html = build_report(folder).read_text(encoding="utf-8")
    start = html.index('<section id="published">')
    return " ".join(Page(html[start : html.index("</section>", start)]).text.split())


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    states = {("identity", 0): "diverged", ("local_attention-k3", 0): "diverged", ("local_attention-k3", 1): "diverged"}
    folder = tmp_path_factory.mktemp("beside") / "study"
    return prepared(write_study(folder, FakeStudy(labels=LABELS, cases=100, states=states)))


def test_scores_beside_published_ones(study: Path) -> None:
    found = beside_of(study)
    rows = {row.label.label: row for row in found.rows}
    assert found.heads == ["Balanced accuracy", "AUROC", "Macro F1"]
    assert set(rows) == {"identity", "pooling-k3", "local_attention-k3"}
    assert set(found.without) == {"local_attention-k5", "random_mixing"}
    label = next(label for label in StudySummary(read_study(study)).labels if label.label == "pooling-k3")
    own = label.test("macro_f1")
    assert own is not None
    triple = rows["pooling-k3"].scores[2]
    assert triple.ours.sort == pytest.approx(own.mean)
    assert triple.ours.spread == f"± {own.sd:.3f}"
    assert triple.published.text == "0.700"
    assert triple.difference.sort == pytest.approx(own.mean - 0.7)
    assert triple.difference.text == f"{own.mean - 0.7:+.3f}"
    text = section_of(study)
    assert triple.difference.text in text
    assert "Source: a report, table 3 (t.csv)." in text
    assert "Without a published row: " in text


def test_only_finished_runs_count(study: Path) -> None:
    rows = {row.label.label: row for row in beside_of(study).rows}
    one, none = rows["identity"], rows["local_attention-k3"]
    assert [run.seed for run in one.runs] == [1]
    assert one.states == "1 of 2 runs diverged"
    assert one.scores[0].ours.sort == one.runs[0].score("test", "balanced_accuracy")
    assert one.scores[0].ours.spread == ""
    assert none.states == "2 of 2 runs diverged"
    assert [triple.ours.sort for triple in none.scores] == [None] * 3
    assert [triple.published.sort for triple in none.scores] == [0.4, None, None]
    assert [triple.difference.sort for triple in none.scores] == [None] * 3
    assert none.remarks == ["unstable, <even> at a lower rate", "diverged"]
    assert "Published run: unstable, <even> at a lower rate; diverged" in section_of(study)


def test_deviations_are_told(study: Path) -> None:
    found = {deviation.field: deviation for deviation in beside_of(study).deviations}
    assert set(found) == {"model.name", "recipe.lr", "recipe.sam"}  # 12.0 epochs are 12
    assert (found["model.name"].ours, found["model.name"].published) == ([("metaformer_nano", [])], "metaformer_s12")
    assert found["recipe.sam"].ours == [("not recorded", [])]
    text = section_of(study)
    assert "metaformer_nano metaformer_s12" in text
    assert "Two seeds here." in text


def test_deviations_of_some_labels_name_them(tmp_path: Path) -> None:
    folder = prepared(write_study(tmp_path / "study", FakeStudy(labels=LABELS[:3], seeds=(0,), cases=60)))
    for path in folder.glob("runs/pooling-*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        config["recipe"]["lr"] = 0.01
        path.write_text(yaml.safe_dump(config))
    (rate,) = (deviation for deviation in beside_of(folder).deviations if deviation.field == "recipe.lr")
    assert {value: sorted(labels) for value, labels in rate.ours} == {
        "0.01": ["pooling-k3"],
        "0.001": ["identity", "local_attention-k3"],
    }


def test_results_have_published_columns(study: Path) -> None:
    build_report(study)
    rows = results_of(study)
    for row in rows:
        finished = row["state"] == "finished"
        expected = {"pooling-k3": "0.7", "identity": "0.625"}.get(row["label"], "") if finished else ""
        assert row["published_macro_f1"] == expected
    assert {"published_balanced_accuracy", "published_auroc"} <= set(rows[0])
    assert not {"published_data", "stand_ins"} & set(rows[0])


def test_other_data_is_always_a_deviation(tmp_path: Path) -> None:
    names = {"mixer": {"local_attention": "locAttn"}}
    folder = write_study(tmp_path / "study", FakeStudy(labels=LABELS[:2], cases=60, data="medmnist:bloodmnist@28"))
    prepared(folder, names=names, instead={"bloodmnist": "Digits"}, protocol={}, notes=[])
    assert beside_of(folder).other_data == ["Digits"]
    text = section_of(folder)
    assert "Other data. The published numbers are of Digits, ours of medmnist:bloodmnist@28" in text
    assert "Data: medmnist:bloodmnist@28 in the place of Digits." in text
    assert {row["published_data"] for row in results_of(folder)} == {"Digits"}


def test_study_without_published_numbers_has_no_section(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", FakeStudy(labels=LABELS[:2], cases=60))
    page = Page(build_report(folder).read_text(encoding="utf-8"))
    assert "published" not in page.ids
    assert "#published" not in page.links
    assert "Beside the published numbers" not in page.text
    assert "Stand-ins" not in page.text
    assert not any(column.startswith("published") or column == "stand_ins" for column in results_of(folder)[0])


def test_study_with_published_numbers_links_to_them(study: Path) -> None:
    page = Page(build_report(study).read_text(encoding="utf-8"))
    assert "published" in page.ids
    assert "#published" in page.links


def test_unreadable_table_is_a_remark(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", FakeStudy(labels=LABELS[:2], cases=60))
    (folder / FILE).write_text("{")
    text = Page(build_report(folder).read_text(encoding="utf-8")).text
    assert "published.json: expected what `mixlab study run` wrote" in text


def test_rows_that_nothing_tells_apart_are_named(tmp_path: Path) -> None:
    """Such a table is refused before training; that of a folder made otherwise does not cost the report."""
    folder = prepared(write_study(tmp_path / "study", FakeStudy(labels=LABELS[:2], cases=60)))
    stored = json.loads((folder / FILE).read_text())
    stored["rows"].append({**stored["rows"][1], "line": 9})
    (folder / FILE).write_text(json.dumps(stored))
    text = section_of(folder)
    assert "pooling-k3 cannot be placed: " in text
    assert "line 9" in text
    assert [row.label.label for row in beside_of(folder).rows] == ["identity"]


@pytest.mark.parametrize("every", [True, False])
def test_stand_ins_are_never_beside_published_numbers(every: bool, tmp_path: Path) -> None:
    labels = LABELS[:2] if every else LABELS[1:2]
    what = ["data: <digits> for imagewoof"]
    spec = FakeStudy(labels=LABELS[:2], cases=60, stand_ins=dict.fromkeys(labels, what))
    folder = prepared(write_study(tmp_path / "study", spec))
    found = beside_of(folder)
    assert [row.label.label for row in found.rows] == ([] if every else ["identity"])
    assert sorted(found.stand_ins) == sorted(labels)
    page = Page(build_report(folder).read_text(encoding="utf-8"))
    header = page.text[: page.text.index("mixlab study")]
    assert f"Stand-ins: {'the' if every else 'some'} scores of this report mean nothing." in header
    assert "data: <digits> for imagewoof" in header
    assert "because their data or weights are stand-ins" in page.text
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert html.count('class="tag bad"') == len(labels)
    for row in results_of(folder):
        stood_in = row["label"] in labels
        assert row["stand_ins"] == (what[0] if stood_in else "")
        assert row.get("published_macro_f1", "") == ("" if stood_in else "0.625")
    with open(folder / "ranking.csv", encoding="utf-8") as file:
        assert {row["label"] for row in csv.DictReader(file) if row["stand_ins"] == "True"} == set(labels)
    console = Console(file=io.StringIO(), width=200)
    print_ranking(folder, console)
    assert isinstance(console.file, io.StringIO)
    assert "mean nothing" in console.file.getvalue()
    named = f"Labels with stand-ins: {', '.join(sorted(labels))}." in console.file.getvalue()
    assert named != every  # where all are, a list of them says nothing more


def test_one_run_with_stand_ins_is_left_out_of_its_label(tmp_path: Path) -> None:
    folder = prepared(write_study(tmp_path / "study", FakeStudy(labels=LABELS[:2], cases=60)))
    (path,) = folder.glob("runs/pooling-k3-s1-*/config.yaml")
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "stand_ins": ["weights"]}))
    (row,) = (row for row in beside_of(folder).rows if row.label.label == "pooling-k3")
    assert [run.seed for run in row.runs] == [0]
    assert row.states == "1 of 2 runs with stand-ins"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("data", "name", "stand-in:digits"), ("model", "pretrained", "/somewhere/stand-in-metaformer_s12.pth")],
)
def test_stand_ins_asked_for_by_name_are_known(section: str, key: str, value: str, tmp_path: Path) -> None:
    folder = prepared(write_study(tmp_path / "study", FakeStudy(labels=LABELS[:1], seeds=(0,), cases=60)))
    (path,) = folder.glob("runs/*/config.yaml")
    config = yaml.safe_load(path.read_text())
    config[section][key] = value
    path.write_text(yaml.safe_dump(config))
    assert beside_of(folder).stand_ins == ["identity"]
    assert "mean nothing" in Page(build_report(folder).read_text(encoding="utf-8")).text


def test_reports_with_published_numbers_need_no_torch(study: Path) -> None:
    code = (
        "import sys; from mixlab.studies.report import build_report; build_report(sys.argv[1]); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(study)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
