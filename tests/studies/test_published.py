"""Published numbers: tables, the runs that their rows belong to, and what is refused before training."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixlab.errors import UserError
from mixlab.studies.facts import FACTS, data_fact, facts_of, slug
from mixlab.studies.published import Published, load, prepare, read, store
from mixlab.studies.published_table import SCORES, same
from mixlab.studies.run_config import RunConfig

TABLES = Path(__file__).resolve().parents[2] / "studies" / "token_mixers_medical" / "published"

DATA = {
    "imagewoof": "ImageWoof",
    "pathmnist": "PathMNIST",
    "dermamnist": "DermaMNIST",
    "pneumoniamnist": "PneumoniaMNIST",
    "organsmnist": "OrganSMNIST",
}
MIXERS = {"local_attention": "locAttn", "attention": "fullAttn"}
NETWORKS = {**MIXERS, "resnet18": "ResNet18"}
MIXER_COLUMNS = {
    "token_mixer": "mixer",
    "kernel_size": "kernel_size",
    "dataset": "data",
    "warm_start": "warm",
    "stages": "stages",
    "pretrained": "pretrained",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "classification_tttt_scratch": {"columns": MIXER_COLUMNS, "names": {"mixer": NETWORKS, "data": DATA}},
    "classification_pptt_scratch": {"columns": MIXER_COLUMNS, "names": {"mixer": MIXERS, "data": DATA}},
    "classification_pptt_pretrained": {"columns": MIXER_COLUMNS, "names": {"mixer": NETWORKS, "data": DATA}},
    "patch_embedding": {"columns": {"patch_embedding": "embedding"}, "names": {"embedding": {"": "conv"}}},
    "extensions": {"columns": {"extension": "variant"}, "names": {"variant": {"": "baseline"}}},
    "resnet18_medmnist": {"columns": {"dataset": "data"}},
}


def settings(table: str, **changes: Any) -> dict[str, Any]:
    return {"table": f"{table}.csv", **SETTINGS[table], **changes}


def config_of(**model: Any) -> dict[str, Any]:
    """A run's configuration; ``data`` and ``variant`` beside fields of the model."""
    top: dict[str, Any] = {key: model.pop(key) for key in ("data", "variant", "recipes") if key in model}
    data = {"data": {"name": top.pop("data")}} if "data" in top else {}
    return {**RunConfig.of({"model": {"name": "metaformer_s12", **model}, **data}).to_plain("print"), **top}


def config_of_row(values: dict[str, str]) -> dict[str, Any]:
    """A run that a row of one of the tables was made of."""
    told: dict[str, Any] = {}
    ours = {theirs: own for own, theirs in {**NETWORKS, **DATA}.items()}
    if "dataset" in values:
        told["data"] = f"medmnist:{ours.get(values['dataset'], values['dataset'])}@224"
    if "extension" in values:
        told |= {"token_mixer": "local_attention", "kernel_size": 5}
        told |= {"variant": "" if values["extension"] == "baseline" else values["extension"]}
    if "patch_embedding" in values:
        embedding = values["patch_embedding"]
        told |= {"token_mixer": "local_attention", "embedding": None if embedding == "conv" else embedding}
    if "token_mixer" in values:
        mixer = ours.get(values["token_mixer"], values["token_mixer"])
        kernel = int(values["kernel_size"]) if values["kernel_size"] not in ("", "1") else None
        told |= {"name": mixer} if mixer == "resnet18" else {"token_mixer": mixer, "stages": values["stages"]}
        told |= {"init": "warm"} if values["warm_start"] == "True" else {}
        told |= {"pretrained": "weights.pth"} if values["pretrained"] == "True" else {}
        told |= {"kernel_size": kernel}
    # Not through RunConfig: its hash would read the weights, which are none.
    top: dict[str, Any] = {key: told.pop(key) for key in ("data", "variant") if key in told}
    return {"model": {"name": "metaformer_s12", **told}, "data": {"name": top.pop("data", "imagewoof")}, **top}


def test_every_table_is_here() -> None:
    assert {path.stem for path in TABLES.glob("*.csv")} == set(SETTINGS)


@pytest.mark.parametrize("table", SETTINGS)
def test_every_row_is_found(table: str) -> None:
    published = read(settings(table), TABLES)
    lines = (TABLES / f"{table}.csv").read_text().splitlines()
    assert len(published.rows) == len(lines) - 1
    for row in published.rows:
        assert published.match(published.facts(config_of_row(row.values))) == row
        for column in SCORES:
            assert (row.score(column) is None) == (row.values[column] == "")


def test_facts_of_a_real_configuration() -> None:
    config = config_of(
        token_mixer={"name": "local_attention", "head_dim": 32}, kernel_size=5, data="medmnist:pathmnist@64"
    )
    assert facts_of(config) == {
        "mixer": "local_attention",
        "kernel_size": "5",
        "stages": "TTTT",
        "data": "pathmnist",
        "variant": "",
        "init": "random",
        "warm": "False",
        "pretrained": "False",
        "embedding": "",
        "recipes": "own",
    }
    assert tuple(facts_of(config)) == FACTS


@pytest.mark.parametrize(
    ("config", "fact", "value"),
    [
        (config_of(), "mixer", "metaformer_s12"),
        (config_of(), "stages", None),
        (config_of(token_mixer="attention", stages="PPTT"), "stages", "PPTT"),
        (config_of(token_mixer=["pooling", "attention"]), "mixer", "pooling+attention"),
        (config_of(token_mixer="pooling"), "kernel_size", "3"),
        (config_of(token_mixer="attention"), "kernel_size", None),
        (config_of(token_mixer={"name": "pooling", "kernel_size": [7, 7]}), "kernel_size", "7"),
        (config_of(token_mixer="conv", kernel_size=[3, 5]), "kernel_size", "3x5"),
        (config_of(name="resnet18"), "kernel_size", "3"),
        (config_of(name="resnet18", kernel_size=7), "kernel_size", "7"),
        (config_of(token_mixer={"name": "attention", "init": "warm"}), "warm", "True"),
        (config_of(token_mixer="attention", init="warm"), "warm", "True"),
        (config_of(token_mixer="attention", init="pooling"), "init", "pooling"),
        (config_of(token_mixer="attention", embedding={"name": "conv"}), "embedding", "conv"),
        (config_of(token_mixer="attention", embedding=["conv", "none", "none", "none"]), "embedding", "conv+none"),
        (config_of(token_mixer="attention", variant="slopes"), "variant", "slopes"),
        (config_of(token_mixer="attention", recipes="own"), "recipes", "own"),
    ],
)
def test_fact(config: dict[str, Any], fact: str, value: str | None) -> None:
    published = read(settings("extensions"), TABLES)
    assert published.facts(config)[fact] == value


@pytest.mark.parametrize(
    ("name", "label", "fact"),
    [
        ("digits", "digits", "digits"),
        ("medmnist:pathmnist@224", "pathmnist@224", "pathmnist"),
        ("folder:/my/images/", "images", "images"),
        ("npz:a/b.npz", "b", "b"),
        ("folder:C:\\x\\y", "y", "y"),
        ("imagewoof:full", "imagewoof-full", "imagewoof"),
        ("stand-in:medmnist:pathmnist@224", "pathmnist@224", "pathmnist"),
    ],
)
def test_data_sets_in_labels_and_facts(name: str, label: str, fact: str) -> None:
    assert (slug(name), data_fact(name)) == (label, fact)


def test_documented_example_is_accepted() -> None:
    page = (TABLES.parents[2] / "docs" / "studies.md").read_text()
    (block,) = (b for b in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if b.startswith("published:"))
    published = read(yaml.safe_load(block)["published"], TABLES.parent)
    facts = published.facts(config_of(token_mixer="attention", data="medmnist:pneumoniamnist@224"))
    row = published.match(facts)
    assert row is not None
    assert (row.values["token_mixer"], row.values["dataset"]) == ("fullAttn", "PneumoniaMNIST")


def test_no_row_for_what_was_not_published() -> None:
    published = read(settings("classification_tttt_scratch"), TABLES)

    def row(**model: Any) -> Any:
        return published.match(published.facts(config_of(**model)))

    assert row(token_mixer="pooling", data="medmnist:pathmnist@224") is not None
    assert row(token_mixer="pooling", data="medmnist:bloodmnist") is None
    assert row(token_mixer="pooling", kernel_size=9, data="imagewoof") is None
    assert row(token_mixer="pooling", stages="PPTT", data="imagewoof") is None
    assert row(token_mixer="pooling", init="warm", data="imagewoof") is None


def test_other_data_is_set_beside_and_said() -> None:
    published = read(settings("classification_tttt_scratch", instead={"caltech101_animals10": "ImageWoof"}), TABLES)
    facts = published.facts(config_of(token_mixer="identity", data="folder:x/caltech101_animals10"))
    row = published.match(facts)
    assert row is not None
    assert row.values["dataset"] == "ImageWoof"
    assert published.instead_of(facts) == "ImageWoof"
    assert published.instead_of({**facts, "data": "imagewoof"}) is None


def test_conditions_choose_rows() -> None:
    columns = {"token_mixer": "mixer", "kernel_size": "kernel_size", "dataset": "data"}
    chosen = settings("classification_pptt_pretrained", columns=columns, where={"warm_start": True})
    published = read(chosen, TABLES)  # YAML reads True as a truth value
    assert {row.values["warm_start"] for row in published.rows} == {"True"}
    assert {row.values["token_mixer"] for row in published.rows} == {"locAttn", "fullAttn"}


def test_remarks_of_a_row() -> None:
    published = read(settings("patch_embedding"), TABLES)
    told = {row.values["patch_embedding"]: published.remarks(row) for row in published.rows}
    assert told == {"conv": [], "none": ["diverged"], "coord_mlp": ["diverged"], "coord_mlp+conv": []}
    medmnist = read(settings("resnet18_medmnist"), TABLES)
    assert medmnist.remarks(medmnist.rows[0]) == ["training: good", "CT multi-organ, rotation-variant"]


GOOD: dict[str, Any] = {"table": "t.csv", "columns": {"mixer": "mixer", "data": "data"}}
TABLE = "mixer,data,kernel,acc,auc,f1\npooling,A,3,0.5,0.6,0.7\nconv,A,3,0.5,,0.7\n"


@pytest.mark.parametrize(
    ("changes", "table", "message"),
    [
        ({"colums": {}}, TABLE, "unknown key in study published: .* 'colums', try 'columns'"),
        ({"table": None}, TABLE, "published, table: expected the path of a CSV file, got None"),
        ({"table": "u.csv"}, TABLE, "table u.csv: expected a readable CSV file, got No such file"),
        ({"columns": {}}, TABLE, "published, columns: expected a table column to a fact"),
        ({"columns": ["mixer"]}, TABLE, "published, columns: expected a mapping"),
        ({"columns": {"mixr": "mixer"}}, TABLE, "unknown column of t.csv in study published, columns: .*try 'mixer'"),
        ({"where": {"stage": "TTTT"}}, TABLE, "unknown column of t.csv in study published, where"),
        ({"scores": {"acc": "balanced_accuracy", "dice": "auroc"}}, TABLE, "column of t.csv in .*scores.*'dice'"),
        ({"scores": {"acc": "macro_f2"}}, TABLE, "unknown metric in study published, scores.*try 'macro_f1'"),
        ({"columns": {"mixer": "mixers"}}, TABLE, "unknown fact of a run in study published.*try 'mixer'"),
        ({"names": {"mixers": {}}}, TABLE, "unknown fact of a run"),
        ({"names": {"stages": {"TTTT": "A"}}}, TABLE, "published, columns: expected a column for stages"),
        ({"names": {"mixer": {"pooling": "Pool"}}}, TABLE, "unknown value in .*mixer.*'Pool'"),
        ({"names": {"mixer": {"pooling": ["conv"]}}}, TABLE, "names, mixer, pooling: expected a word or a number"),
        ({"instead": {"mine": "B"}}, TABLE, "unknown value in .*data.*'B'"),
        ({"instead": {"mine": "A"}, "names": {"data": {"mine": "A"}}}, TABLE, "published, instead: expected data that"),
        ({"instead": {"mine": "A"}, "columns": {"mixer": "mixer"}}, TABLE, "columns: expected a column for data"),
        ({"where": {"kernel": 7}}, TABLE, "unknown value in study published, where, kernel"),
        ({"protocol": {"recipe": {"epochs": 3}}}, TABLE, "protocol, recipe: expected a word.*recipe.FIELD"),
        ({"notes": "one"}, TABLE, "published, notes: expected a list"),
        ({}, "", "table t.csv: expected a first line"),
        ({}, "mixer,mixer\n", "table t.csv: expected a first line of different column names"),
        ({}, "mixer,data,acc,auc,f1\n", "where: expected rows, got none with an empty table"),
        ({}, TABLE + "identity,A,3\n", "line 4: expected 6 cells, got 3"),
        ({}, TABLE.replace("0.6", "high"), "line 2, auc: expected a number or nothing, got 'high'"),
        ({}, TABLE.replace("0.6", "nan"), "line 2, auc: expected a number or nothing, got 'nan'"),
        ({}, TABLE + "pooling,A,5,1,1,1\n", r"one row .* line 2 \(.*kernel 3\) and line 4 \(.*kernel 5\), try more"),
    ],
)
def test_refused_before_training(changes: dict[str, Any], table: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        prepare(GOOD | changes, tmp_path, tmp_path)
    assert not (tmp_path / "published.json").exists()


def test_two_rows_of_a_run_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE + "pooling,A,5,1,1,1\n")
    published = read({**GOOD, "columns": {"mixer": "mixer", "kernel": "kernel_size"}}, tmp_path)
    facts = dict.fromkeys(FACTS, "") | {"mixer": "pooling", "kernel_size": None}
    with pytest.raises(UserError, match=r"mixer pooling: expected one row .* line 2 .* and line 4"):
        published.match(facts)
    assert published.match({**facts, "kernel_size": "5"}) == published.rows[2]


def test_study_folder_keeps_all_that_reports_need(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    plain = GOOD | {"protocol": {"recipe.epochs": 5}, "notes": ["one seed"], "source": "a report"}
    out = tmp_path / "study"
    out.mkdir()
    published = prepare(plain, tmp_path, out)
    (tmp_path / "t.csv").unlink()
    assert isinstance(published, Published)
    assert load(out) == published
    assert json.loads((out / "published.json").read_text())["rows"][1]["values"]["mixer"] == "conv"
    store(published, out)
    assert load(out) == published
    prepare(None, tmp_path, out)  # the study file has none any more
    assert load(out) is None


def test_runs_are_checked_against_the_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE + "pooling,A,5,1,1,1\n")
    plain = {"table": "t.csv", "columns": {"mixer": "mixer", "kernel": "kernel_size"}}
    run = config_of(token_mixer="pooling")
    prepare(plain, tmp_path, tmp_path, [run])
    with pytest.raises(UserError, match="expected one row of the table"):
        prepare(
            {**plain, "names": {"mixer": {"identity": "pooling"}}},
            tmp_path,
            tmp_path,
            [config_of(token_mixer="identity")],
        )
    with pytest.raises(UserError, match=r"protocol: expected a field .* got 'recipe.epoch'"):
        prepare({**plain, "protocol": {"recipe.epoch": 3}}, tmp_path, tmp_path, [run])


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": [1]}', '{"rows": []}'])
def test_stored_file_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "published.json").write_text(text)
    with pytest.raises(UserError, match=r"published.json: expected what `mixlab study run` wrote"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("ours", "theirs", "equal"),
    [
        (224, 224, True),
        ([224, 224], 224, True),
        ([224, 112], 224, False),
        (1e-4, "1.0e-4", True),
        (0, 0.0, True),
        (None, None, True),
        (None, 0, False),
        ("cosine", "constant", False),
        (True, "True", True),
    ],
)
def test_values_that_say_the_same(ours: Any, theirs: Any, equal: bool) -> None:
    assert same(ours, theirs) is equal
