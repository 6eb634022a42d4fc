"""Files that were damaged after coevo wrote them: one message with file, line, field and value, or a right report."""

import copy
import json

import pytest

from coevo import cli
from coevo.diagnosis import report as score
from coevo.diagnosis import tables as score_tables
from coevo.errors import CoevoError, DataError
from coevo.experiment import read as experiment_read
from coevo.judge import report as judge
from coevo.report import html, shapes, tables
from coevo.report.ablation import pooled
from coevo.report.read import read_run
from coevo.scoring.ablation import CORL, WITHOUT, Reading
from coevo.types import Score
from tests.unit.test_diagnosis import diagnosed
from tests.unit.test_diagnosis import rows as diagnosed_rows
from tests.unit.test_report import audited, metrics, rows, turns, write_audit, write_evaluation, write_lines, write_second

LEVEL = {"n": 2, "judged": 2, "statuses": {"ok": 2}, "means": {"fit": {"value": 3.0, "low": 2.0, "high": 4.0}}}
SUMMARY = {
    "asked": {"judge": {"model": "m"}, "rubric": {"hash": "0" * 32}, "pairwise": False, "resamples": 100, "seed": 0},
    "rubric": {"name": "r", "scale": {"least": 1, "most": 5}, "headings": {"fit": "Fit"}},
    "n": 2,
    "answers": {"n": 2, "unreadable": 0, "prompt_tokens": 9, "completion_tokens": None, "cost": None},
    "unjudged": {"a": {"missing": {"n": 1, "sample_ids": ["x"], "reasons": {}}}},
    "notes": [],
    "models": {"a": {"shifts": {"id": LEVEL}, "subsets": {"IDTest": LEVEL}}},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run, a diagnosis and a judgement, as small as they can be."""
    root = tmp_path_factory.mktemp("whole")
    run = root / "run"
    run.mkdir()
    (run / "resolved.yaml").write_text("name: small\n", encoding="utf-8")
    (run / "environment.json").write_text('{"torch": "2"}', encoding="utf-8")
    for name, gain in (("sft", 0), ("final", 4)):
        write_evaluation(run, name, rows(gain, n=3))
        write_second(run, name, rows(gain, n=3))
    write_audit(run, audited(1.0))
    write_lines(run / "metrics.jsonl", metrics()[::20])
    write_lines(run / "rollouts.jsonl", turns(1, n=3))
    readings = [Reading(f"IDTest-{i}", "IDTest", variant, Score(-2.0, 4)) for variant in (CORL, WITHOUT) for i in range(3)]
    write_lines(run / "evaluation" / "ablation.jsonl", [one.to_dict() for one in readings])
    scores = root / "scores"
    scores.mkdir()
    about = {"asked": {"seed": 1, "scorer": "runs/q"}, "scorer_phase": "sft-scorer", "base": "b" * 32, "embedder": "e"}
    result = about | {"permutations": 200} | diagnosed(a=diagnosed_rows({"german": 5}, n=8))
    (scores / "result.json").write_text(json.dumps(result), encoding="utf-8")
    judged = root / "judged"
    judged.mkdir()
    (judged / "summary.json").write_text(json.dumps(SUMMARY), encoding="utf-8")
    return root


def report_run(root):
    run = read_run(root / "run")
    assert tables.markdown(run) and tables.results(run) and tables.console_table(root / "run") and html.render(run, {})


def report_score(root):
    result = score.read_result(root / "scores")
    assert score_tables.markdown(result) and score_tables.csv_text(result) and score.sentences(root / "scores")


def report_judge(root):
    assert judge.console(root / "judged") and judge.build(root / "judged")


READERS = {
    "run/resolved.yaml": report_run,
    "run/environment.json": report_run,
    "run/metrics.jsonl": report_run,
    "run/rollouts.jsonl": report_run,
    "run/evaluation/sft.json": report_run,
    "run/evaluation/final.jsonl": report_run,
    "run/evaluation/final-second.jsonl": report_run,
    "run/evaluation/audit.json": report_run,
    "run/evaluation/ablation.jsonl": lambda root: pooled([root / "run"], 50),
    "scores/result.json": report_score,
    "judged/summary.json": report_judge,
}


@pytest.fixture
def damage(whole):
    """Writes something into a file; what was there is there again at the end."""
    kept = {name: (whole / name).read_bytes() for name in READERS}

    def write(name, content):
        (whole / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    yield write
    for name, content in kept.items():
        (whole / name).write_bytes(content)


def refused(name, whole):
    """The complaint about a file; there must be one, and it must name the file."""
    with pytest.raises(CoevoError) as caught:
        READERS[name](whole)
    assert name.rpartition("/")[2] in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_what_is_whole_is_reported_and_what_cannot_be_read_is_named(name, whole, damage):
    READERS[name](whole)
    text = (whole / name).read_bytes()
    for content in (b"[1, 2]\n", b"oops\n" + text, b"\xff\xfe" + text, b'{"n": ' + b"[" * 2000 + b"\n" + text, b"3\n"):
        damage(name, content)
        refused(name, whole)
    if not name.endswith(".jsonl"):
        for content in (b"", text[: len(text) // 2], b"{}"):
            if name != "run/environment.json" or content != b"{}":
                damage(name, content)
                refused(name, whole)
    elif "evaluation" in name:
        lines = text.splitlines(keepends=True)
        for content in (b"".join(lines[1:]), text + lines[0], text[:-20]):
            damage(name, content)
            refused(name, whole)


@pytest.mark.parametrize(
    ("name", "place", "value", "complaint"),
    [
        (
            "run/evaluation/sft.json",
            "shifts.user.remid.low",
            "x",
            "shifts.user.remid.low is 'x'; expected a valid number",
        ),
        ("run/evaluation/sft.json", "subsets.german.n", None, "field subsets.german.n is None; expected a valid integer"),
        ("run/evaluation/sft.json", "subsets.german.remi", [1], "field subsets.german.remi is [1]"),
        ("run/evaluation/sft.json", "k", "4", "field k is '4'"),
        ("run/evaluation/sft.json", "estimator", "x", "field estimator is 'x'"),
        ("run/evaluation/sft.json", "second_scorer.scorer", 3, "field second_scorer.scorer is 3"),
        ("run/evaluation/sft.json", "subsets.korean.statuses.ok", 2, "expected statuses that add up to n, 3"),
        ("run/evaluation/audit.json", "members.loop.above.reward", {}, "field members.loop.above.reward.value is missing"),
        ("run/evaluation/audit.json", "weights.extra", 1.0, "expected known parts of a reward"),
        ("run/evaluation/audit.json", "members.loop.extra", 1.0, "field members.loop.extra is 1.0"),
        (
            "scores/result.json",
            "models.a.subsets.german.remid.value",
            "x",
            "a.subsets.german.remid.value is 'x'",
        ),
        ("scores/result.json", "models.a.verdict", "text", "field models.a.verdict is 'text'; expected a valid list"),
        ("scores/result.json", "models.a.costliest", [{}], "field models.a.costliest.0.sample_id is missing"),
        ("judged/summary.json", "models.a.shifts.id.means.fit.value", "3", "means.fit.value is '3'"),
        ("judged/summary.json", "asked.judge", {}, "field asked.judge is {}; expected model or local"),
        ("judged/summary.json", "answers.cost", "free", "field answers.cost is 'free'"),
    ],
)
def test_a_field_is_named_with_its_value(name, place, value, complaint, whole, damage):
    record = json.loads((whole / name).read_bytes())
    *above, last = place.split(".")
    inner = record
    for key in above:
        inner = inner[key]
    inner[last] = value
    damage(name, json.dumps(record))
    text = refused(name, whole)
    assert complaint in text and ("estore" in text or "again" in text)


@pytest.mark.parametrize(
    ("name", "field", "value", "complaint"),
    [
        ("run/metrics.jsonl", "loss", "high", "expected a number in loss, found 'high'"),
        ("run/metrics.jsonl", "step", "2", "field step is '2'"),
        ("run/metrics.jsonl", "phase", None, "field phase is None"),
        ("run/rollouts.jsonl", "parts", [1], "field parts is [1]"),
        ("run/rollouts.jsonl", "reward", "x", "field reward is 'x'"),
        ("run/evaluation/final.jsonl", "remi", "x", "field remi is 'x'"),
        ("run/evaluation/final.jsonl", "remi", float("nan"), "NaN is no number of JSON"),
        ("run/evaluation/final.jsonl", "sample_id", 3, "field sample_id is 3"),
        ("run/evaluation/ablation.jsonl", "n_tokens", None, "field n_tokens is None"),
        ("run/evaluation/ablation.jsonl", "logprob_nats", None, "expected logprob_nats and n_tokens where the status is ok"),
    ],
)
def test_a_line_is_named_with_its_field(name, field, value, complaint, whole, damage):
    lines = (whole / name).read_text(encoding="utf-8").splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {field: value})
    damage(name, "\n".join(lines) + "\n")
    text = refused(name, whole)
    assert f"{name.rpartition('/')[2]}, line 2: " in text and complaint in text
    lines[1] = "{}"
    damage(name, "\n".join(lines) + "\n")
    assert "line 2: field" in refused(name, whole) and "is missing" in refused(name, whole)


def test_what_training_met_and_what_is_being_written_is_no_damage(whole, damage):
    lines = (whole / "run/metrics.jsonl").read_text(encoding="utf-8")
    row = json.loads(lines.splitlines()[0]) | {"kl": float("inf"), "loss": float("nan"), "new": [1]}
    damage("run/metrics.jsonl", lines + json.dumps(row) + '\n{"phase": "08-r')
    report_run(whole)


def test_the_command_says_it_in_one_message(whole, damage, capsys):
    damage("run/evaluation/sft.json", '{"model": 3}')
    assert cli.main(["report", str(whole / "run")]) == 2
    error = capsys.readouterr().err
    assert "sft.json: field" in error and "Traceback" not in error and error.count("\n") == 1


def test_rows_without_their_evaluation_and_changed_ones_are_said(whole, damage):
    path = whole / "run" / "evaluation" / "final.json"
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(DataError, match=r"final\.json: missing"):
        read_run(whole / "run")
    path.write_bytes(kept)
    done = whole / "run" / "phases" / "14-evaluate-final" / "done.json"
    done.parent.mkdir(parents=True)
    done.write_text(json.dumps({"facts": {}, "manifest": {"evaluation/final.json": "0" * 64, "evaluation/x.json": "0"}}))
    notes = read_run(whole / "run").missing
    assert "evaluation/final.json has changed since the phase 14-evaluate-final made it" in notes[0]
    assert "evaluation/x.json is missing" in notes[1]
    done.write_text("{}")
    with pytest.raises(DataError, match=r"done\.json: field manifest is missing"):
        read_run(whole / "run")
    done.unlink()


def test_an_experiment_names_its_broken_files(whole, tmp_path):
    asked = dict.fromkeys(("name", "file", "baseline"), "a") | {"bases": ["b"], "methods": ["a"], "seeds": [0]}
    asked |= {"estimators": ["e"], "judge": False, "commands": {}}
    (tmp_path / "experiment.json").write_text(json.dumps(asked))
    folder = tmp_path / "scores" / "b" / "e" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "result.json").write_bytes((whole / "scores" / "result.json").read_bytes())
    lines = [{"model": "a", **row.to_dict()} for row in diagnosed_rows({"german": 5}, n=8)]
    write_lines(folder / "rows.jsonl", lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment_read, "RESAMPLES", 20)
        assert experiment_read.result(tmp_path)["results"]["b"]["missing"] == []
        # the cell that was measured, and then one of another seed in its place
        cell = tmp_path / "cells" / "b" / "a" / "seed-0" / "evaluation"
        cell.mkdir(parents=True)
        write_lines(cell / "final.jsonl", lines)
        assert experiment_read.result(tmp_path)["results"]["b"]["missing"] == []
        write_lines(cell / "final.jsonl", [*lines[:-1], lines[-1] | {"response": "Another."}])
        with pytest.raises(DataError, match=r"final\.jsonl: answers .* otherwise than what was measured in .*seed-0: "):
            experiment_read.result(tmp_path)
        (cell / "final.jsonl").unlink()
    for broken, complaint in (
        (lines[:-1], "expected those that result.json counts"),
        ([{**lines[0], "remi": "x"}, *lines[1:]], "rows.jsonl, line 1: field remi is 'x'"),
        ([{}, *lines[1:]], "rows.jsonl, line 1: field sample_id is missing"),
    ):
        write_lines(folder / "rows.jsonl", broken)
        with pytest.raises(DataError, match=complaint):
            experiment_read.result(tmp_path)
    (tmp_path / "experiment.json").write_text(json.dumps(copy.deepcopy(asked) | {"seeds": "0"}))
    with pytest.raises(DataError, match="field seeds is '0'"):
        experiment_read.result(tmp_path)


def test_shapes_hold_what_is_written(whole):
    # every field of a row is known, so that a renamed one cannot pass unseen
    assert set(shapes.Row.model_fields) == set(rows(0, n=1)[0].to_dict())
