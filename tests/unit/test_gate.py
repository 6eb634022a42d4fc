"""A gate passes what is within its limits and known to be; everything else fails."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import coevo
from coevo import cli
from coevo.errors import CheckpointError
from coevo.export.gate import Check, Limits, gate, junit
from tests.unit.test_python import XS, Letters


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that loses under the user shift, and one that says what the references say."""
    folder = tmp_path_factory.mktemp("scores")
    wrong = {x.sample_id: x.reference if x.shift == "id" else "zzzz qqqq vvvv" for x in XS}
    rows = {
        name: [coevo.Response(x.sample_id, told[x.sample_id], name) for x in XS]
        for name, told in (("worse", wrong), ("right", {x.sample_id: x.reference for x in XS}))
    }
    found = coevo.diagnose(Letters(), XS, rows, divergences=False, k=2, resamples=50)
    digest = {"path": "x", "sha256": "0" * 64}
    evaluation = {"estimator": "club", "negatives": "pool", "k": 2, "resamples": 50}
    # what the command writes besides, of where its numbers are from
    asked = {"data": digest, "responses": [digest], "scorer": "s", "splits": [], "seed": 0, "evaluation": evaluation}
    beside = {"asked": asked, "scorer_phase": "s", "base": "b", "embedder": "e", "permutations": 1}
    (folder / "result.json").write_text(json.dumps(found.to_dict() | beside), encoding="utf-8")
    return folder


def test_a_loss_above_the_limit_fails(scores: Path) -> None:
    (worse,) = gate(scores, Limits(remid=1.0), "worse")
    assert not worse.passed and worse.value is not None and worse.value > 1 and "user shift" in worse.name
    (right,) = gate(scores, Limits(remid=1.0), "right")
    assert right.passed and right.value == pytest.approx(0.0)
    # exactly at the limit is within it
    assert gate(scores, Limits(remid=worse.value), "worse")[0].passed


def test_what_is_not_known_fails(scores: Path, tmp_path: Path) -> None:
    (risk,) = gate(scores, Limits(risk=1e9), "right")
    assert not risk.passed and "not measured" in str(risk)
    (drop,) = gate(scores, Limits(id_drop=1e9), "right")
    assert not drop.passed and "not measured" in str(drop)
    record = json.loads((scores / "result.json").read_text())
    few = record["models"]["right"]["shifts"]["user"]
    few["statuses"] = {"ok": 5, "empty": 5}
    (tmp_path / "result.json").write_text(json.dumps(record))
    (told,) = gate(tmp_path, Limits(remid=1e9), "right")
    assert not told.passed and "fewer than 6 scored responses" in str(told)
    few["statuses"] = {"ok": 10}
    few["mi_reference"] = {"value": 0.1, "low": -1.0, "high": 1.0}
    (tmp_path / "result.json").write_text(json.dumps(record))
    (deaf,) = gate(tmp_path, Limits(remid=1e9), "right")
    assert not deaf.passed and "tell this scorer nothing" in str(deaf)


def test_a_folder_that_is_none(scores: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a run nor a folder of coevo score"):
        gate(tmp_path, Limits(remid=1.0))
    with pytest.raises(CheckpointError, match=r"has 2 models \(worse, right\); name one with --model"):
        gate(scores, Limits(remid=1.0))
    with pytest.raises(CheckpointError, match="has no model 'x'"):
        gate(scores, Limits(remid=1.0), "x")


def test_junit_is_xml_and_text_stays_text() -> None:
    checks = [Check("R-EMID <b>", 1.0, 2.0, "2.00 & more\x1b"), Check("risk", 1.0, 0.5, "0.50")]
    suite = ET.fromstring(junit(checks, "runs/<x>"))
    assert suite.attrib == {"name": "runs/<x>", "tests": "2", "failures": "1", "errors": "0"}
    failed, passed = suite
    assert failed[0].attrib["message"] == r"R-EMID <b>: 2.00 & more\x1b, at most 1 allowed" and len(passed) == 0


def test_the_command(scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*words: Any) -> tuple[int, Any]:
        return cli.main(["gate", str(scores), *map(str, words)]), capsys.readouterr()

    code, shown = call("--max-remid", 1, "--model", "worse", "--junit", tmp_path / "gate.xml")
    assert code == 1 and shown.err.startswith("gate failed: R-EMID under the user shift: ") and shown.err.count("\n") == 1
    assert ET.parse(tmp_path / "gate.xml").getroot().attrib["failures"] == "1"
    code, shown = call("--max-remid", 1, "--model", "right")
    assert code == 0 and "gate passed: 1 of 1 within limits; closest R-EMID under the user shift: 0.00" in shown.out
    assert call()[0] == 2 and call("--max-remid", "nan")[0] == 2
