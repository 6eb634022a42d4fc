"""A gate passes what is within its limits and known to be; everything else fails."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import coevo
from coevo import cli
from coevo.config.load import load_recipe
from coevo.data import world
from coevo.errors import CheckpointError, ConfigError
from coevo.export.gate import Check, Limits, gate, junit, verdict
from coevo.runs.folder import RunFolder
from tests.unit.test_python import Letters
from tests.unit.test_report import rows, write_evaluation

SMOKE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"
# six of each subset: the fewest of which a number can be told
XS = [*world.generate("IDTest", 6, seed=0), *world.generate("OOD1Test", 30, seed=0)]


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
    assert not risk.passed and "not measured in german, spanish, chinese, japanese, korean" in str(risk)
    (drop,) = gate(scores, Limits(id_drop=1e9), "right")
    assert not drop.passed and "not measured" in str(drop)
    user, absent = gate(scores, Limits(remid={"user": 1e9, "dialogue": 1e9}), "right")
    assert user.passed and not absent.passed and str(absent).startswith("R-EMID under the dialogue shift: not measured")

    def told(**changes: Any) -> str:
        record = json.loads((scores / "result.json").read_text())
        entry = record["models"]["right"]
        for place, value in changes.items():
            level, name, key = place.split("__")
            entry[level][name][key] = value
        (tmp_path / "result.json").write_text(json.dumps(record))
        (check,) = gate(tmp_path, Limits(remid=1e9), "right")
        assert not check.passed and check.value is None
        return str(check)

    # five of one subset, and 29 of all: a mean over subsets is no surer than its least known one
    few = told(subsets__german__statuses={"ok": 5, "empty": 1}, shifts__user__statuses={"ok": 29, "empty": 1})
    assert "cannot be told of fewer than 6 scored responses: german (5)" in few
    # 14 of 30 answered is less than half, at home 6 of 6: whatever the 14 say
    assert "16 of 30 responses have no score" in told(shifts__user__statuses={"ok": 14, "empty": 16})
    nothing = {"value": 0.1, "low": -1.0, "high": 1.0}
    assert "the references tell this scorer nothing" in told(shifts__user__mi_reference=nothing)
    assert "the responses tell nothing of their scenes at home" in told(shifts__id__mi_response=nothing)


def _bound(value: float) -> dict[str, Any]:
    return {"value": value, "shares": {"u": 0.2, "c": 0.3, "d": 0.5}, "response": 0.1, "largest": "d"}


def _with(record: dict[str, Any], shift: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The record with another entry of a shift."""
    model = record["models"]["right"]
    return record | {"models": {"right": model | {"shifts": model["shifts"] | {shift: entry}}}}


def test_the_worst_subset_is_held_against_the_risk(scores: Path, tmp_path: Path) -> None:
    record = json.loads((scores / "result.json").read_text())
    subsets = record["models"]["right"]["subsets"]
    for place, tag in enumerate(("german", "spanish", "chinese", "japanese", "korean")):
        subsets[tag] |= {"bound": _bound(1.0 + place), "bound_raw": _bound(9.0)}
    record["models"]["right"]["worst_case"] = {"subset": "korean", "bound": 5.0}
    (tmp_path / "result.json").write_text(json.dumps(record))
    # bounds are 1 to 5, korean's the largest
    (fails,) = gate(tmp_path, Limits(risk=4.99), "right")
    assert not fails.passed and str(fails) == "risk index B2 under the user shift: 5.00, in korean, at most 4.99 allowed"
    assert gate(tmp_path, Limits(risk={"user": 5.0}), "right")[0].passed
    # of a scorer that reads nothing no index is known, whichever level it does not read
    for shift in ("user", "id"):
        entry = record["models"]["right"]["shifts"][shift]
        blind = {"value": 0.1, "low": -1.0, "high": 1.0}
        (tmp_path / "result.json").write_text(json.dumps(_with(record, shift, entry | {"mi_reference": blind})))
        (unread,) = gate(tmp_path, Limits(risk=1e9), "right")
        assert unread.value is None and "the references tell this scorer nothing" in str(unread)
    subsets["german"]["bound"] = None
    (tmp_path / "result.json").write_text(json.dumps(record))
    # the four that are known do not vouch for the fifth
    (unknown,) = gate(tmp_path, Limits(risk=1e9), "right")
    assert not unknown.passed and "not measured in german" in str(unknown)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose R-EMI on ID fell by 1 nat everywhere, and whose shifts lose nothing beside it."""
    folder = RunFolder.create(tmp_path / "run", load_recipe(SMOKE))
    before = [row for row in rows(0.0) if row.status == "ok"]
    after = [
        replace(row, remi=row.remi - 1.0 if row.subset_tag == "IDTest" else row.remi, mi_response=row.mi_response - 1.0)
        for row in before
    ]
    for name, evaluated in (("sft", before), ("final", after)):
        write_evaluation(folder.root, name, evaluated)
        written = [folder.root / "evaluation" / f"{name}.{end}" for end in ("json", "jsonl")]
        folder.phase(f"05-evaluate-{name}").mkdir(parents=True)
        folder.finish(f"05-evaluate-{name}", {}, written)
    return folder.root


def test_a_run_is_held_against_its_own_beginning(run: Path) -> None:
    (drop,) = gate(run, Limits(id_drop=0.9))
    # every scenario fell by 1, so that its interval has no width
    assert drop.value == pytest.approx(1.0) and not drop.passed
    assert str(drop) == "drop of R-EMI at home: 1.00 [1.00, 1.00], at most 0.9 allowed"
    assert gate(run, Limits(id_drop=1.1))[0].passed
    after = json.loads((run / "evaluation" / "final.json").read_text())
    user, character, dialogue = gate(run, Limits(remid=1e9))
    assert [check.value for check in (user, character, dialogue)] == [
        after["shifts"][shift]["remid"]["value"] for shift in ("user", "character", "dialogue")
    ]
    with pytest.raises(ConfigError, match="is a run, which has one final model"):
        gate(run, Limits(id_drop=1.0), "mine")


def test_what_was_edited_since_was_not_measured(run: Path) -> None:
    path = run / "evaluation" / "final.json"
    record = json.loads(path.read_text())
    record["shifts"]["user"]["remid"] = {"value": 0.0, "low": 0.0, "high": 0.0}
    path.write_text(json.dumps(record))
    for check in gate(run, Limits(remid=1e9, id_drop=1e9)):
        assert not check.passed and "final.json has changed since the phase" in str(check)


def test_without_an_evaluation_there_is_nothing_to_pass(run: Path) -> None:
    (run / "evaluation" / "sft.json").unlink()
    (run / "evaluation" / "sft.jsonl").unlink()
    (drop,) = gate(run, Limits(id_drop=1e9))
    assert not drop.passed
    (run / "evaluation" / "final.json").unlink()
    (run / "evaluation" / "final.jsonl").unlink()
    with pytest.raises(CheckpointError, match="no evaluation after training; go on with: coevo train --resume"):
        gate(run, Limits(id_drop=1e9))


def test_the_worst_number_is_named_first() -> None:
    checks = [Check("a", 1.0, None, "not measured"), Check("b", 1.0, 2.0, "2.00"), Check("c", 1.0, 4.0, "4.00")]
    # c is 3 above its limit and b 1; a has no number, and fails all the same
    assert verdict(checks) == (
        "gate failed: c: 4.00, at most 1 allowed; b: 2.00, at most 1 allowed; a: not measured, at most 1 allowed"
    )
    assert verdict([Check("b", 2.0, 1.9, "1.90"), Check("c", 9.0, 2.0, "2.00")]).endswith(
        "closest b: 1.90, at most 2 allowed"
    )
    assert not Check("a", 1.0, math.nan, "nan").passed


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
    # half a surrogate pair, of a name that is not UTF-8, and what no XML may hold
    assert ET.fromstring(junit(checks, "a\udc80b\uffff")).attrib["name"] == r"a\udc80b\uffff"
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
    code, shown = call("--max-remid", "user=1e9,dialogue=1", "--model", "right")
    assert code == 1 and "R-EMID under the dialogue shift: not measured" in shown.err
    for wrong in ("users=1", "user=1,user=2", "user=", "user=1,", "inf", ""):
        code, shown = call("--max-remid", wrong, "--model", "right")
        assert code == 2 and "expected" in shown.err, wrong
