"""The command line, in this process; training itself is tested elsewhere."""

from __future__ import annotations

import csv
import errno
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from mixlab.cli import main
from mixlab.cli.study import data_name
from mixlab.errors import UserError
from mixlab.studies.configuration import merge
from mixlab.studies.evaluation import evaluate_run
from mixlab.studies.grid import StudyConfig
from tests.studies.small import make_images

TINY = ["--epochs", "1", "--recipe.batch_size", "6", "--jobs", "1", "--threads", "1", "--device", "cpu"]


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    try:
        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder made by ``mixlab train``."""
    out = tmp_path_factory.mktemp("trained")
    words = [
        "train",
        "--data",
        f"folder:{images}",
        "--mixer",
        "pooling",
        "--kernel-size",
        "3",
        "--out",
        str(out),
        *TINY,
    ]
    assert main(words) == 0
    (run,) = (out / "runs").iterdir()
    return run


def test_help_needs_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys)
    assert code == 0
    assert "study run" in out
    assert "predict" in out
    assert call(capsys, "study", "--help")[0] == 0


def test_help_of_a_command_has_a_line_for_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "study", "run", "--help")
    assert code == 0
    for text in ("--recipe.learning_rate", "Peak learning rate", "--data.root", "--model.drop_path_rate", "quickstart"):
        assert text in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["studdy"], "unknown command: expected one of 8 known names, got 'studdy'"),
        (["study", "rum"], "unknown command: expected one of 8 known names, got 'study rum', try 'study run'"),
        (["study", "run", "quickstrat"], "unknown study: expected one of 2 known names, got 'quickstrat', try"),
        (["study", "run", "none.yaml"], "study file: expected a YAML file that exists, got 'none.yaml'"),
        (["study", "run"], "study mixers: expected at least one mixer"),
        (["study", "run", "--mixer-s", "pooling"], "unknown option of mixlab study run"),
        (["study", "run", "--mixers", "pooling", "--recipe.epoch", "3"], "try --recipe.epochs"),
        (["study", "run", "--mixers", "pooling", "--epochs", "many"], "recipe.epochs: expected int, got many"),
        (["study", "run", "--mixers", "pooling", "--epochs", "0"], "recipe.epochs: expected at least 1, got 0"),
        (["study", "run", "--mixers", "poling"], "unknown token mixer: expected one of"),
        (["study", "run", "--mixers", "pooling", "--model", "metaformer_nan"], "metaformer_nano"),
        (["study", "run", "--mixers", "pooling", "--data", "digit"], "digits"),
        (["study", "run", "--mixers", "pooling", "--data", "folder:/none/such"], "/none/such"),
        (["study", "run", "--mixers", "pooling", "--kernel-sizes", "4"], "odd"),
        (["study", "run", "--mixers", "pooling", "--kernel-sizes", "-3"], "pooling"),
        (["study", "run", "--mixers", "pooling", "--device", "tpu"], "unknown device"),
        (["study", "run", "--mixers", "pooling", "--jobs", "0"], "jobs: expected at least 1, got 0"),
        (["study", "run", "--mixers", "pooling", "--recipe", "shrt"], "unknown recipe preset"),
        (["study", "run", "--mixers", "pooling", "--precision", "8bit"], "unknown precision"),
        (["study", "status", "/none/such"], "study folder: expected a folder with a study.yaml"),
        (["report", "/none/such"], "study folder"),
        (["evaluate", "/none/such"], "run folder: expected a folder with a config.yaml"),
        (["predict", "/none/such", "/none.png"], "run folder: expected a folder with a config.yaml"),
        (["list", "mixer"], "unknown list: expected one of 3 known names, got 'mixer', try 'mixers'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("**/runs"))


def test_unknown_keys_in_a_study_file_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mixers: [pooling]\nrecipe: {learning_rates: 1e-3}\n")
    code, _, err = call(capsys, "study", "run", str(file))
    assert code == 2
    assert f"unknown key in study file {file}, recipe" in err
    assert "'learning_rate'" in err
    file.write_text("mixers: [pooling\n")
    assert "expected YAML" in call(capsys, "study", "run", str(file))[2]


def test_lists_are_complete_and_json_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, name in (("models", "metaformer_nano"), ("mixers", "local_attention"), ("datasets", "digits")):
        code, out, _ = call(capsys, "list", kind)
        assert code == 0
        assert name in out
        rows = json.loads(call(capsys, "list", kind, "--json")[1])
        assert any(row["name"] == name for row in rows)


def test_options_win_over_files_at_any_depth() -> None:
    base = {"recipe": "short", "data": [{"name": "a", "fold": 1}, "b"], "name": "x"}
    more = {"recipe": {"epochs": 3}, "data": {"root": "/r"}}
    assert merge(base, more) == {
        "name": "x",
        "recipe": {"preset": "short", "epochs": 3},
        "data": [{"name": "a", "fold": 1, "root": "/r"}, {"name": "b", "root": "/r"}],
    }


def test_a_study_from_options_alone(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study"
    words = ["study", "run", "--data", f"folder:{images}", "--mixers", "identity,pooling", "--kernel-sizes", "3,5"]
    words += ["--seeds", "1", "--name", "mine", "--out", str(out), *TINY]
    code, text, err = call(capsys, *words)
    assert code == 0, err
    assert "pooling-k5" in text
    assert (out / "report.html").exists()
    assert str(out / "report.html") in err
    assert sorted(p.name.partition("-s0")[0] for p in (out / "runs").iterdir()) == [
        "identity",
        "pooling-k3",
        "pooling-k5",
    ]
    code, text, _ = call(capsys, "study", "status", str(out))
    assert (code, text.splitlines()[-1]) == (0, "3 finished")
    assert len(json.loads(call(capsys, "study", "status", str(out), "--json")[1])) == 3
    assert "3 runs are finished already" in call(capsys, *words)[2]
    assert call(capsys, "report", str(out))[0] == 0


def test_evaluate_repeats_the_test_of_the_run(trained: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    code, out, err = call(capsys, "evaluate", str(trained), "--json", "--device", "cpu")
    assert code == 0, err
    found = json.loads(out)
    assert {k: found[k] for k in summary["test"]} == summary["test"]
    assert (found["split"], found["cases"]) == ("test", 10)
    assert "macro f1" in call(capsys, "evaluate", str(trained), "--split", "val", "--data", f"folder:{images}")[1]
    code, _, err = call(capsys, "evaluate", str(trained), "--data", "digits")
    assert code == 2
    assert call(capsys, "evaluate", str(trained), "--split", "exam")[0] == 2


def test_evaluate_refuses_data_that_changed_since(images: Path, tmp_path: Path, trained: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    card = json.loads((run / "data_card.json").read_text())
    (run / "data_card.json").write_text(json.dumps({**card, "fingerprint": "another"}))
    with pytest.raises(UserError, match="images of the training could be in the test split"):
        evaluate_run(run, device="cpu")
    others = make_images(tmp_path / "several-sizes", seed=1)
    for file in others.glob("test/**/*.png"):
        Image.open(file).resize((15, 15)).save(file)
    found = evaluate_run(run, data={"name": f"folder:{others}"}, device="cpu")
    assert (found["cases"], found["data"] != card["name"]) == (10, True)


def test_evaluate_tells_of_data_and_device(
    images: Path, tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "precision": "16-mixed"}))
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "device": "cuda"}))
    words = "note: computed in 32-true on cpu; the run was trained in 16-mixed on cuda"
    assert words in call(capsys, "evaluate", str(run), "--device", "cpu")[2]
    assert words in call(capsys, "predict", str(run), str(images / "test" / "dark" / "0.png"), "--device", "cpu")[2]
    (noted := make_images(tmp_path / "noted")).joinpath("test", "dark", "notes.txt").write_text("none")
    code, out, err = call(capsys, "evaluate", str(run), "--data", f"folder:{noted}", "--device", "cpu", "--json")
    assert code == 0
    assert "note: not read as images" in err
    assert any("not read as images" in event["message"] for event in json.loads(out)["events"])


def test_predict_writes_csv(trained: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(images / "test" / "dark" / "0.png"), str(images / "test" / "light" / "1.png")]
    code, out, err = call(capsys, "predict", str(trained), *files)
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["path"] for row in rows] == files
    for row in rows:
        values = {name: float(row[name]) for name in ("dark", "light")}
        assert sum(values.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(values, key=lambda name: values[name])
    assert call(capsys, "predict", str(trained), *files, "--output", str(tmp_path / "p.csv"))[0] == 0
    assert (tmp_path / "p.csv").read_text() == out
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    code, _, err = call(capsys, "predict", str(trained), str(broken))
    assert code == 2
    assert "broken.png" in err


def test_an_output_that_cannot_be_written_is_refused_before_predicting(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixlab.studies.evaluation.predict_files", None)
    code, _, err = call(capsys, "predict", str(trained), "a.png", "--output", str(tmp_path / "none" / "p.csv"))
    assert (code, "--output: expected a file in a folder that can be written" in err) == (2, True)
    assert call(capsys, "predict", str(trained), "a.png", "--output", str(tmp_path))[0] == 2


def test_a_fault_of_the_file_system_is_one_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(words: list[str]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "/out/p.csv")

    monkeypatch.setattr("mixlab.cli._dispatch", full)
    code, _, err = call(capsys, "list", "models")
    assert (code, err) == (2, "/out/p.csv: No space left on device\n")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("digits", "digits"),
        ("folder:/my/images/", "images"),
        ("folder:.", "study"),
        ("medmnist:bloodmnist@28", "bloodmnist@28"),
        (["digits", "medmnist:bloodmnist"], "digits+bloodmnist"),
    ],
)
def test_a_study_without_a_name_is_called_after_its_data(data: Any, name: str) -> None:
    assert data_name(StudyConfig.of({"mixers": ["identity"], "data": data})) == name


def test_a_study_without_a_name_lies_in_a_folder_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Path] = []

    def note(config: StudyConfig, folder: Path, *rest: object) -> None:
        found.append(folder)
        raise UserError("enough")

    monkeypatch.setattr("mixlab.studies.study.run_study", note)
    words = ["study", "run", "--mixers", "identity", "--data"]
    call(capsys, *words, "digits")
    call(capsys, *words, "folder:/my/images")
    call(capsys, *words, "digits", "--name", "mine")
    assert [str(folder) for folder in found] == [f"mixlab-studies/{name}" for name in ("digits", "images", "mine")]
