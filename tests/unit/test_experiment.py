"""The experiment file, what cells share, the pool of processes, and the statistics of the table."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import shutil
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coevo import cli
from coevo.config.load import load_recipe
from coevo.errors import CheckpointError, ConfigError, DataError
from coevo.experiment import report
from coevo.experiment.adopt import adopt, digests
from coevo.experiment.matrix import read_experiment
from coevo.experiment.pool import Pool, Task, failures
from coevo.experiment.run import _tasks, check_folder, plans, to_run
from coevo.experiment.table import SHIFTED, Measured, correlations, p_value, tabulate
from coevo.maths.stats import holm
from coevo.plan.plan import plan
from coevo.runs.folder import RunFolder
from coevo.scoring.summary import Row
from tests.helpers.hostile import assert_harmless, planted

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "recipes" / "smoke.yaml"


BOMB: Any = functools.reduce(lambda inner, _: [inner] * 10, range(9), "x")
"""A thousand million characters, once its aliases are written out."""
LOOP: dict[str, Any] = {}
LOOP["again"] = LOOP


def write(tmp_path: Path, **keys: Any) -> Path:
    tree = {"name": "t", "recipe": str(SMOKE), "methods": {"sft": {"method": "sft"}, "loop": {}}, "seeds": [0, 1]}
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in (tree | keys).items() if v is not None}, sort_keys=False))
    return path


# --- the file -------------------------------------------------------------------------------------------------------


def test_cells_are_methods_bases_and_seeds_with_the_baseline_first(tmp_path: Path) -> None:
    methods = {"loop": {"loop.iterations": 1}, "sft": {"method": "sft"}}
    bases = {"small": {}, "narrow": {"lora.r": 4}}
    experiment = read_experiment(write(tmp_path, methods=methods, bases=bases, shared={"evaluation.k": 3}))
    names = [cell.name for cell in experiment.cells]
    assert names[:4] == [f"cells/small/{m}/seed-{s}" for m in ("sft", "loop") for s in (0, 1)]
    assert len(names) == 8
    last = experiment.cells[-1].recipe
    assert (last.seed, last.lora.r if last.lora else None, last.loop.iterations, last.evaluation.k) == (1, 4, 1, 3)
    assert [cell.until for cell in experiment.estimators] == ["sft-scorer", "sft-scorer"]
    # what a cell's command says is its recipe
    assert load_recipe(SMOKE, experiment.cells[-1].overrides) == last


def test_quick_is_a_part_of_the_cells(tmp_path: Path) -> None:
    path = write(tmp_path, quick={"methods": ["loop", "sft"], "seeds": [1]}, estimators={"a": {}, "b": {"lora.r": 4}})
    quick, whole = read_experiment(path, quick=True), read_experiment(path)
    assert [cell.name for cell in quick.cells] == ["cells/base/sft/seed-1", "cells/base/loop/seed-1"]
    assert [cell.method for cell in quick.estimators] == quick.to_dict()["estimators"] == ["a"]
    assert {cell.name for cell in quick.cells} < {cell.name for cell in whole.cells}
    with pytest.raises(ConfigError, match="no block `quick`"):
        read_experiment(write(tmp_path), quick=True)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"methods": {"sft": {"evaluation.k": 9}}}, r"methods\.sft sets 'evaluation\.k'.*under `shared`"),
        ({"bases": {"b": {"data.train": 9}}}, r"bases\.b sets 'data\.train'"),
        ({"estimators": {"e": {"base.path": "x"}}}, r"estimators\.e sets 'base\.path'"),
        ({"baseline": "dpo"}, r"baseline: 'dpo' is no method of this file; expected one of sft, loop"),
        ({"quick": {"methods": ["loop"]}}, "quick.methods lacks the baseline 'sft'"),
        ({"seeds": [0, 0]}, "has one twice"),
        ({"seeds": [1000]}, "estimator_seed=1000 is also a cell's seed"),
        ({"seedz": [0]}, "seedz: unknown key; known keys: name, recipe"),
        ({"methods": {"../x": {}, "sft": {}}}, "it names the run folder"),
        ({"methods": {"sft": {"method": "dpoo"}}}, "method 'sft' of base 'base'"),
        ({"recipe": "nowhere.yaml"}, "no such recipe"),
        ({"name": None}, "name: Field required"),
        ({"name": 5}, r"name: Input should be a valid string \(got 5\)"),
        ({"seeds": [-1]}, r"1 problem\(s\) in the experiment:\n  seeds\.0: .*\(got -1\)"),
        ({"methods": {"sft": None}}, r"methods\.sft: expected a mapping of keys to values \(got None\)"),
        ({"methods": {"sft": {}, "a\nb": {}}}, r"methods\.'a\\nb': it names the run folder"),
        ({"methods": {"sft": {}, "SFT": {}}}, "methods: two names differ in case alone"),
        ({"bases": {"\U0001f600" * 60: {}}}, "at most 200 bytes"),
        ({"quick": {"methods": ["sft", "loop", "loop"]}}, r"quick\.methods: .* has one twice"),
        ({"quick": {"methods": ["sft"], "seeds": [7]}}, r"quick\.seeds: \[7\] are not all among seeds, \[0, 1\]"),
        ({"shared": {"seed": 5}}, "shared sets 'seed': every cell has its own"),
        ({"shared": {"lora.r": math.nan}}, r"experiment\.yaml: method 'sft' .*lora\.r: nan cannot be an override"),
        ({"shared": {"data.train": date(2020, 1, 1)}}, r"data\.train: datetime\.date.* cannot be an override"),
        ({"shared": {"lora": BOMB}}, r"not valid YAML: it has more than 5,000 keys and values, aliases expanded"),
        ({"shared": {"lora": LOOP}}, r"not valid YAML: the alias \*id001 stands within"),
        # overrides are applied in turn: what a whole block would undo is not lost in silence
        ({"methods": {"sft": {"method.beta": 0.1, "method": "dpo"}}}, "'method' is set as a whole after 'method.beta'"),
        (
            {"shared": {"loop.harvest": 16}, "methods": {"sft": {"loop": {}}}},
            "'loop' is set as a whole after 'loop.harvest'",
        ),
        (
            {"estimators": {"e": {"scorer": "zero_shot"}}},
            r"estimator 'e' of base 'base': scorer\.kind is zero_shot, and an estimator of an experiment",
        ),
        ({"judge": "--rubric 'coser"}, "judge: No closing quotation; expected words as in a shell"),
    ],
)
def test_a_bad_file_is_refused_with_the_place(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_experiment(write(tmp_path, **keys))


def test_numbers_that_python_does_not_write_are_refused(tmp_path: Path) -> None:
    path, huge = write(tmp_path), "0x" + "f" * 6000
    good = path.read_text()
    for key in ("shared: {lora.r: ", "estimator_seed: {x: "):
        path.write_text(good + f"{key}{huge}}}\n")
        with pytest.raises(ConfigError, match=r"line \d+, column \d+: .*a value of 6,002 characters that is no text"):
            read_experiment(path)


def test_a_recipe_in_the_place_of_an_experiment_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is a recipe, not an experiment"):
        read_experiment(SMOKE)
    with pytest.raises(ConfigError, match="no such experiment file"):
        read_experiment(tmp_path / "no.yaml")


def test_what_a_method_cannot_do_is_said_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, methods={"sft": {"method": "sft"}, "big": {"method": "dpo", "method.tune.batch_size": 4096}})
    assert cli.main(["experiment", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "cells/base/big/seed-0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("", "--rubric"),
        ("--rubric coser --model m", "--local is required"),
        ("--rubric nothing --local m", "nothing"),
        ("--rubric coser --endpoint http://h/v1 --no-key", "needs --model"),
        ("--rubric coser --local m --pairwise --out=x", "--out, --pairwise cannot be given here"),
        ("--rubric coser --local m --key SECRET", "unknown option --key;"),
        ("--rubric coser --endpoint http://me:SECRET@h/v1 --model m --no-key", "name or password in it"),
        ("--rubric coser --endpoint http://h/v1 --model m --extra api_key=SECRET", "--extra api_key=.* seems to hold a key"),
        ("--rubric coser --endpoint http://h/v1 --model m --key-env NOT_SET", "NOT_SET is not set"),
    ],
)
def test_a_judge_that_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], judge: str, message: str
) -> None:
    assert cli.main(["experiment", str(write(tmp_path, judge=judge)), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert re.search(r"experiment\.yaml: judge: .*" + message.replace("=.*", ""), said), said
    assert "SECRET" not in said and not (tmp_path / "out").exists()


def test_the_record_holds_no_options_of_the_judge(tmp_path: Path) -> None:
    experiment = read_experiment(write(tmp_path, judge="--rubric coser --endpoint http://h/v1 --model m --key-env SECRET"))
    assert experiment.judge is not None and "SECRET" not in json.dumps(experiment.to_dict())


def test_dry_run_counts_shared_phases_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["experiment", str(write(tmp_path)), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "cells/base/sft/seed-0" in said and "5 of 5" in said and "11 of 14" in said


# --- what cells share -----------------------------------------------------------------------------------------------


def shared(*overrides: str) -> set[str]:
    """Phases that the smoke recipe's loop has in common with a variant of it, without their numbers."""
    first, second = load_recipe(SMOKE), load_recipe(SMOKE, overrides)
    known = digests(first, plan(first))
    other = digests(second, plan(second))
    return {name.partition("-")[2] for name in known if other.get(name) == known[name]}


BEFORE = {"sft-rpm", "sft-scorer", "audit", "sft-simulator", "evaluate-sft"}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name=other", None),
        ("tracking.project=other", None),
        ("loop.rpm.id_share=0", BEFORE | {"simulator-1", "harvest-1"}),
        ("loop.rpm.algorithm=ppo", BEFORE | {"simulator-1", "harvest-1"}),
        ("loop.past_share=0", BEFORE | {"simulator-1"}),
        ("loop.harvest=16", BEFORE | {"simulator-1"}),
        ("loop.tolerance_nats=9", BEFORE | {"simulator-1", "harvest-1"}),
        ("loop.simulator.gates=[]", BEFORE),
        ("loop.shifts=[german]", BEFORE),
        # the audit and the simulator's regret weigh as the RPM's reward does
        ("loop.rpm.weights.information=0", BEFORE - {"audit"}),
        ("method=dpo", {"sft-rpm", "sft-scorer", "audit"}),
        # which the scorer does not read: where in doubt, a phase is run again
        ("simulator_sft.learning_rate=1e-4", set()),
        ("seed=1", set()),
        ("evaluation.k=3", set()),
        ("limits.response=60", set()),
    ],
)
def test_a_phase_is_shared_where_nothing_that_it_reads_differs(override: str, expected: set[str] | None) -> None:
    every = shared()
    assert shared(override) == (every if expected is None else expected)


def test_corls_rounds_are_common_and_those_within_the_game_are_not() -> None:
    keys = ["corl.refresh_every=1", "loop.iterations=2"]
    first, second = (
        load_recipe(SMOKE.parent / "corl" / "smoke.yaml", [*keys, more]) for more in ("seed=0", "loop.rpm.id_share=0")
    )
    known, other = digests(first, plan(first)), digests(second, plan(second))
    common = {name.partition("-")[2] for name in known if other.get(name) == known[name]}
    assert {"reasoner-1", "tune-scorer-1", "scorer-1", "harvest-1"} < common
    assert not {"reasoner-2", "tune-scorer-2", "audit-2", "rpm-1"} & common


def finished(root: Path, recipe: Any, phases: dict[str, str]) -> RunFolder:
    """A run folder in which these phases are done, each with a policy of this text."""
    folder = RunFolder.create(root, recipe)
    for name, text in phases.items():
        folder.policy(name).mkdir(parents=True)
        (folder.policy(name) / "weights").write_text(text)
        folder.append("metrics.jsonl", [{"phase": name, "step": 1}])
        folder.finish(name, {"rows": 1})
        folder.clock(name, 1.0)
    return folder


def test_adopted_phases_are_whole_and_later_ones_stay_to_be_done(tmp_path: Path) -> None:
    recipe = load_recipe(SMOKE)
    donor = finished(tmp_path / "donor", recipe, {"01-sft-rpm": "a", "02-sft-scorer": "b", "03-audit": "c"})
    folder = RunFolder.create(tmp_path / "cell", recipe)
    folder.append("metrics.jsonl", [{"phase": "01-sft-rpm", "step": 0, "half": True}])
    (folder.phase("02-sft-scorer") / "checkpoints").mkdir(parents=True)
    wanted = {"01-sft-rpm": "x", "02-sft-scorer": "y", "03-audit": "z", "04-sft-simulator": "w"}
    others = [(tmp_path / "none", {"01-sft-rpm": "x"}), (donor.root, wanted | {"03-audit": "another"})]
    assert adopt(folder, wanted, others) == ["01-sft-rpm"], "the second is under way here, the third is another's"
    assert folder.facts("01-sft-rpm") == {"rows": 1} and folder.facts("02-sft-scorer") is None
    rows = [json.loads(line) for line in (folder.root / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"phase": "01-sft-rpm", "step": 1}], (
        "rows of a phase that was begun are not kept beside the adopted ones"
    )
    assert adopt(folder, wanted, others) == []
    # what was taken over in the proper way is the cell's own, and what was copied by hand is not
    shutil.copytree(donor.phase("03-audit"), folder.phase("03-audit"))
    assert folder.facts("03-audit") == {"rows": 1}, "the same recipe"
    other = RunFolder.create(tmp_path / "seed", load_recipe(SMOKE, ["seed=1"]))
    shutil.copytree(donor.phase("03-audit"), other.phase("03-audit"))
    with pytest.raises(CheckpointError, match="03-audit: is another phase's folder, or was run by another recipe"):
        other.facts("03-audit")
    assert adopt(other, wanted, others[1:]) == ["01-sft-rpm", "02-sft-scorer"]
    assert other.facts("01-sft-rpm") == {"rows": 1}
    shutil.copytree(donor.phase("01-sft-rpm"), donor.phase("04-sft-simulator"))
    with pytest.raises(CheckpointError, match="04-sft-simulator: is another phase's folder"):
        donor.facts("04-sft-simulator")
    # a run that was begun before hashes were recorded
    (donor.root / "environment.json").unlink()
    for phase in ("01-sft-rpm", "04-sft-simulator"):
        mark = donor.phase(phase) / "done.json"
        mark.write_text(json.dumps(json.loads(mark.read_text()) | {"run": None}))
    assert donor.facts("01-sft-rpm") == {"rows": 1}
    with pytest.raises(CheckpointError, match="policy/weights: not written by phase 04-sft-simulator"):
        donor.facts("04-sft-simulator")


def test_a_damaged_donor_is_named_and_not_taken_over(tmp_path: Path) -> None:
    recipe = load_recipe(SMOKE)
    donor = finished(tmp_path / "donor", recipe, {"01-sft-rpm": "a"})
    folder = RunFolder.create(tmp_path / "cell", recipe)
    known = {"01-sft-rpm": "x"}
    (donor.policy("01-sft-rpm") / "weights").write_text("changed")
    with pytest.raises(CheckpointError, match=r"donor.*weights: changed since phase 01-sft-rpm finished"):
        adopt(folder, known, [(donor.root, known)])
    (donor.phase("01-sft-rpm") / "done.json").write_text('{"facts"')
    with pytest.raises(CheckpointError, match=r"donor.*done\.json: damaged"):
        adopt(folder, known, [(donor.root, known)])
    assert not folder.phase("01-sft-rpm").exists()


def test_a_copy_that_a_kill_cut_short_is_made_again(tmp_path: Path) -> None:
    recipe, known = load_recipe(SMOKE), {"05-evaluate-sft": "x"}
    donor, folder = RunFolder.create(tmp_path / "donor", recipe), RunFolder.create(tmp_path / "cell", recipe)
    for root, text in ((donor.root, "whole"), (folder.root, "wh")):
        (root / "evaluation").mkdir()
        (root / "evaluation" / "sft.jsonl").write_text(text)
    donor.phase("05-evaluate-sft").mkdir(parents=True)
    donor.finish("05-evaluate-sft", {}, [donor.root / "evaluation" / "sft.jsonl"])
    assert adopt(folder, known, [(donor.root, known)]) == ["05-evaluate-sft"]
    assert folder.facts("05-evaluate-sft") == {}, "its manifest fits"


def test_a_phase_of_other_data_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("one")
    recipe = load_recipe(SMOKE, [f"data={{kind: file, path: {tmp_path}/data.json, reference: carry}}", "loop.shifts=[user]"])
    known = {"01-sft-rpm": "x"}
    donor = finished(tmp_path / "donor", recipe, {"01-sft-rpm": "a"})
    same = RunFolder.create(tmp_path / "same", recipe)
    (tmp_path / "data.json").write_text("another")
    other = RunFolder.create(tmp_path / "other", recipe)
    assert adopt(same, known, [(donor.root, known)]) == ["01-sft-rpm"]
    assert adopt(other, known, [(donor.root, known)]) == []


def test_a_folder_that_a_kill_left_without_a_recipe_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text("{}")
    (tmp_path / ".resolved.yaml.tmp").write_text("name: h")
    RunFolder.create(tmp_path, load_recipe(SMOKE))
    with pytest.raises(ConfigError, match="not empty"):
        RunFolder.create(tmp_path, load_recipe(SMOKE))


def test_a_measurement_is_done_until_a_run_it_rests_on_is_made_anew(tmp_path: Path) -> None:
    experiment = read_experiment(write(tmp_path, seeds=[0]))
    every = plans(experiment)
    [measuring] = [task for task in _tasks(experiment, tmp_path, every) if task.name.startswith("scores")]
    record = tmp_path / measuring.name / "result.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"models": {"sft": {}, "loop": {}}}))
    assert not measuring.is_done(), "the runs are not there"
    for name, phases in every.items():
        finished(tmp_path / name, experiment.cells[0].recipe, {phases[-1].name: "w"})
    assert not measuring.is_done(), "the runs are newer"
    os.utime(record)
    assert measuring.is_done()
    record.write_text('{"models": {"sft"')
    assert not measuring.is_done(), "it is damaged"


def test_a_folder_keeps_its_recipes(tmp_path: Path) -> None:
    experiment = read_experiment(write(tmp_path))
    finished(tmp_path / "out" / experiment.cells[0].name, experiment.cells[0].recipe, {})
    (tmp_path / "out" / "experiment.json").write_text("{}")
    check_folder(experiment, tmp_path / "out")
    with pytest.raises(ConfigError, match="is of another recipe"):
        check_folder(read_experiment(write(tmp_path, shared={"evaluation.k": 3})), tmp_path / "out")
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / ".lock").touch()
    check_folder(experiment, tmp_path / "locked")  # killed at its very beginning
    (tmp_path / "out" / experiment.cells[0].name / "resolved.yaml").write_text("name: [")
    with pytest.raises(CheckpointError, match=r"resolved\.yaml: changed since the run was begun"):
        check_folder(experiment, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds no experiment"):
        check_folder(experiment, tmp_path / "full")


def test_to_run_leaves_each_phase_to_the_first_that_has_it(tmp_path: Path) -> None:
    experiment = read_experiment(write(tmp_path, seeds=[0]))
    own = {name: [phase.name for phase in phases] for name, phases in to_run(experiment, plans(experiment)).items()}
    assert own["cells/base/sft/seed-0"][0] == "01-sft-rpm" and own["cells/base/loop/seed-0"][0] == "04-sft-simulator"


# --- processes ------------------------------------------------------------------------------------------------------


def pool(tmp_path: Path, jobs: int, said: list[str]) -> Pool:
    program = "import pathlib, sys; assert sys.argv[2] != 'bad', 'this one breaks'; pathlib.Path(sys.argv[3]).touch()"
    return Pool(tmp_path, jobs, [sys.executable, "-c", program], (tmp_path / "lock").open("ab"), said.append)


def task(tmp_path: Path, name: str, *needs: str, kind: str = "good") -> Task:
    mark = tmp_path / f"{name}.done"
    return Task(name, ["train", kind, str(mark)], mark.is_file, needs=frozenset(needs))


def test_a_task_that_fails_stops_only_what_needs_it(tmp_path: Path) -> None:
    said: list[str] = []
    tasks = [task(tmp_path, "a", "b"), task(tmp_path, "b"), task(tmp_path, "c", kind="bad"), task(tmp_path, "d", "c")]
    tasks.append(task(tmp_path, "e", "d"))
    outcome = pool(tmp_path, 2, said).run(tasks)
    assert outcome.done == ["b", "a"] or set(outcome.done) == {"a", "b"}
    assert list(outcome.failed) == ["c"] and sorted(outcome.left) == ["d", "e"]
    assert any("this one breaks" in line for line in said), "the end of its log is shown"
    with pytest.raises(CheckpointError, match=r"1 of the experiment's processes failed:\n  c: exit 1.*\nNot run.*d, e"):
        failures(outcome)
    again = pool(tmp_path, 1, said).run([task(tmp_path, "a", "b"), task(tmp_path, "b")])
    assert again.done == ["a", "b"] and not again.failed


def test_a_task_waits_for_what_it_takes_over_and_runs_also_where_that_failed(tmp_path: Path) -> None:
    said: list[str] = []
    tasks = [task(tmp_path, "a", kind="bad"), replace(task(tmp_path, "b"), after=lambda: {"a"}), task(tmp_path, "c")]
    outcome = pool(tmp_path, 3, said).run(tasks)
    assert list(outcome.failed) == ["a"] and set(outcome.done) == {"b", "c"} and not outcome.left
    begun = [re.sub(r"\[.*?\] ", "", line).partition(":")[0] for line in said]
    assert begun.index("c") < begun.index("a", 1) < begun.index("b"), "c beside a, b after it"


def test_a_task_waits_no_longer_than_for_what_it_takes_over(tmp_path: Path) -> None:
    # `a` ends only once `b` has, and has made what `b` takes over before
    made, end = tmp_path / "made", tmp_path / "b.done"
    program = f"""import pathlib, sys, time
mark = pathlib.Path(sys.argv[3])
if mark.name == "a.done":
    pathlib.Path({str(made)!r}).touch()
    for _ in range(600):
        time.sleep(0.0 if pathlib.Path({str(end)!r}).exists() else 0.05)
    assert pathlib.Path({str(end)!r}).exists()
mark.touch()"""
    tasks = [task(tmp_path, "a"), replace(task(tmp_path, "b"), after=lambda: () if made.exists() else ("a",))]
    found = Pool(tmp_path, 2, [sys.executable, "-c", program], (tmp_path / "lock").open("ab"), lambda _: None).run(tasks)
    assert set(found.done) == {"a", "b"} and not found.failed


def test_the_last_task_has_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    program = "import os, pathlib, sys; pathlib.Path(sys.argv[3]).write_text(os.environ['OMP_NUM_THREADS'])"
    tasks = [task(tmp_path, "a"), task(tmp_path, "b"), task(tmp_path, "c", "a", "b")]
    Pool(tmp_path, 4, [sys.executable, "-c", program], (tmp_path / "lock").open("ab"), lambda _: None).run(tasks)
    assert [(tmp_path / f"{name}.done").read_text() for name in "abc"] == ["2", "2", "8"]


def test_a_process_that_ends_well_without_its_result_has_failed(tmp_path: Path) -> None:
    program = [sys.executable, "-c", ""]
    found = Pool(tmp_path, 1, program, (tmp_path / "lock").open("ab"), lambda _: None).run([task(tmp_path, "a")])
    assert list(found.failed) == ["a"] and "exit 0 without a result" in found.failed["a"]


def test_a_task_that_cannot_be_prepared_stops_only_what_needs_it(tmp_path: Path) -> None:
    def prepare() -> str:
        raise CheckpointError("the donor is damaged")

    said: list[str] = []
    tasks = [replace(task(tmp_path, "a"), prepare=prepare), task(tmp_path, "b", "a"), task(tmp_path, "c")]
    outcome = pool(tmp_path, 1, said).run(tasks)
    assert outcome.failed == {"a": "the donor is damaged"} and outcome.left == ["b"] and outcome.done == ["c"]


@pytest.mark.parametrize(
    ("launch", "message"),
    [("nothing-of-the-kind x", "nothing-of-the-kind x: cannot be started"), ("'", "No closing"), ("", "no command given")],
)
def test_a_launcher_that_cannot_be_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], launch: str, message: str
) -> None:
    path = write(tmp_path)
    assert cli.main(["experiment", str(path), "--out", str(tmp_path / "out"), "--jobs", "1", "--launch", launch]) == 2
    assert message in capsys.readouterr().err


def test_an_interrupt_ends_what_a_launcher_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a launcher that tells its child nothing, as some do
    inner = f"import time, pathlib, os; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(60)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"

    pressed: list[bool] = []

    def interrupted(seconds: float) -> None:
        if not pressed and (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
            pressed.append(True)
            raise KeyboardInterrupt
        time.sleep(0.05)

    monkeypatch.setattr("coevo.experiment.pool.time", SimpleNamespace(sleep=interrupted, monotonic=time.monotonic))
    made = Pool(tmp_path, 1, [sys.executable, "-c", outer], (tmp_path / "lock").open("ab"), lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        made.run([task(tmp_path, "a")])
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


# --- the table ------------------------------------------------------------------------------------------------------

TAGS = {"IDTest": 30, "german": 20, "korean": 20, "Gaming": 20, "WordLevelComposition": 20}


def row(sample_id: str, tag: str, remi: float) -> Row:
    return Row(sample_id, tag, "", "", "", "", "ok", remi=remi, share_right=0.5)


def measured(level: dict[str, dict[str, float]], seeds: int = 3, spread: float = 1.0, drift: float = 0.0) -> Measured:
    """Rows whose R-EMI is a method's level of a subset, plus a scenario's own part, plus a seed's, plus noise."""
    rows = {}
    own = np.random.default_rng(7)
    part = {tag: own.normal(0, spread, n) for tag, n in TAGS.items()}
    for method, levels in level.items():
        for seed in range(seeds):
            rng = np.random.default_rng([seed, len(method)])
            of_seed = rng.normal(0, drift)
            rows[method, seed] = [
                Row(
                    f"{tag}-{i}",
                    tag,
                    "",
                    "",
                    "",
                    "",
                    "ok",
                    remi=levels.get(tag, 0.0) + of_seed + part[tag][i],
                    share_right=0.5,
                )
                for tag, n in TAGS.items()
                for i in range(n)
            ]
    bounds = {key: {tag: 1.0 + place for place, tag in enumerate(TAGS) if tag != "IDTest"} for key in rows}
    return Measured(tuple(level), tuple(range(seeds)), rows, bounds)


def test_levels_are_means_over_subsets_and_remid_is_against_id() -> None:
    data = measured({"sft": {"german": -4.0, "korean": -2.0}, "dpo": {}}, spread=0.0)
    table = tabulate(data, "sft", 200, seed=0)
    levels = table["methods"]["sft"]["levels"]
    assert levels["user"]["remi"]["value"] == pytest.approx(-3.0) and levels["user"]["remid"]["value"] == pytest.approx(3.0)
    # by hand: the mean over the four shifted subsets, (-4 - 2 + 0 + 0) / 4
    assert levels[SHIFTED]["remid"]["value"] == pytest.approx(1.5)
    assert "remid" not in levels["id"] and table["n"][SHIFTED] == 80
    assert table["methods"]["dpo"]["worst_case"] == {
        "value": 5.0, "low": 5.0, "high": 5.0, "by_seed": [5.0] * 3, "subset": "WordLevelComposition",
    }  # fmt: skip


def test_a_subset_without_a_bound_leaves_no_worst_case() -> None:
    data = measured({"sft": {}, "dpo": {}}, spread=0.0)
    bounds = {key: dict(value) for key, value in data.bounds.items()}
    bounds["dpo", 1]["WordLevelComposition"] = None
    table = tabulate(Measured(data.methods, data.seeds, data.rows, bounds), "sft", 50, seed=0)
    # the largest of sft, 5, is there; what dpo has left would be 4, and look better
    assert table["methods"]["sft"]["worst_case"]["value"] == 5.0
    assert "value" not in table["methods"]["dpo"]["worst_case"]
    # a subset of which nobody has a bound is nobody's
    nobody = {key: value | {"WordLevelComposition": None} for key, value in bounds.items()}
    table = tabulate(Measured(data.methods, data.seeds, data.rows, nobody), "sft", 50, seed=0)
    assert {m["worst_case"]["value"] for m in table["methods"].values()} == {4.0}


def test_differences_are_paired_by_scenario() -> None:
    # scenarios differ by tens of nats, methods by one: only the pairs can tell
    data = measured({"sft": {}, "dpo": dict.fromkeys(TAGS, 1.0)}, spread=30.0)
    test = tabulate(data, "sft", 2000, seed=0)["tests"]["remi"]["dpo"]["user"]
    assert test["value"] == pytest.approx(1.0) and test["low"] == pytest.approx(1.0) and test["p_holm"] < 0.05


def test_what_is_equal_is_no_difference() -> None:
    table = tabulate(measured({"sft": {}, "dpo": {}}, spread=5.0), "sft", 500, seed=0)
    assert {cell["p"] for cell in table["tests"]["remi"]["dpo"].values()} == {1.0}


def test_a_level_has_the_interval_of_the_t_test() -> None:
    # Only the seed varies: the mean of S = 3 is within t s / sqrt(3), with t = 4.303, the 97.5 % point of two degrees
    data = measured({"sft": {}, "dpo": {}}, spread=0.0, drift=3.0)
    found = tabulate(data, "sft", 20_000, seed=0)["methods"]["dpo"]["levels"]["id"]["remi"]
    by_seed = [data.rows["dpo", seed][0].remi for seed in range(3)]
    reach = 4.3027 * np.std(by_seed, ddof=1) / math.sqrt(3)
    assert found["high"] - found["value"] == pytest.approx(reach, rel=0.1)
    assert found["value"] - found["low"] == pytest.approx(reach, rel=0.1)


def seeded(offsets: dict[str, list[float]]) -> Measured:
    """Methods whose seeds alone vary: two equal scenarios a subset."""
    n_seeds = len(next(iter(offsets.values())))
    rows = {
        (method, seed): [row(f"{tag}-{i}", tag, of_seed) for tag in TAGS for i in range(2)]
        for method, by_seed in offsets.items()
        for seed, of_seed in enumerate(by_seed)
    }
    return Measured(tuple(offsets), tuple(range(n_seeds)), rows, {key: {} for key in rows})


def test_a_difference_has_the_variance_pooled_over_methods_or_its_own_if_larger() -> None:
    offsets = {"sft": [0.0, 0.0, 0.0], "calm": [5.0, 5.0, 5.0], "wild": [4.0, 5.0, 6.0], "other": [0.0, 0.0, 0.0]}
    tests = tabulate(seeded(offsets), "sft", 20_000, seed=0)["tests"]["remi"]
    # Less the means of methods, wild has -1 0 1 and the others nothing; less the seeds' means -1/4 0 1/4, squares
    # 2 (3/4)^2 + 3 * 2 (1/4)^2 = 1.5. Over 3 * 2 = 6 degrees 0.25, twice that for a difference: sqrt(0.5 / 3). t_6 = 2.447
    calm = tests["calm"]["id"]
    assert calm["high"] - calm["value"] == pytest.approx(2.4469 * math.sqrt(0.5 / 3), rel=0.05)
    # wild less sft has the variance 1 of its own, and its own two degrees: t_2 = 4.303
    wild = tests["wild"]["id"]
    assert wild["high"] - wild["value"] == pytest.approx(4.3027 * math.sqrt(1 / 3), rel=0.05)
    # the common part of a seed is no difference at all
    common = tabulate(seeded({"sft": [0.0, 9.0, -4.0], "dpo": [1.0, 10.0, -3.0]}), "sft", 500, seed=0)
    assert common["tests"]["remi"]["dpo"]["id"]["low"] == pytest.approx(1.0)


def test_seeds_that_agree_by_chance_are_no_finding() -> None:
    # Seven methods of one quality, only seeds vary: in a quarter of differences all three seeds have one sign. A table has a
    # star in at most 5 of 100; of 40, at most 6 (three standard errors of 1.4 above 2)
    starred = off = 0
    for draw in range(40):
        rng = np.random.default_rng([5, draw])
        data = seeded({name: rng.normal(size=3).tolist() for name in ("sft", *"abcdef")})
        table = tabulate(data, "sft", 1500, seed=draw)
        starred += any(cell["p_holm"] < 0.05 for m in table["tests"]["remi"].values() for cell in m.values())
        levels = [m["levels"]["id"]["remi"] for m in table["methods"].values()]
        off += sum(not level["low"] <= 0 <= level["high"] for level in levels)
    assert starred <= 6, starred
    # 280 intervals, 14 expected to miss; the bootstrap's missed a quarter
    assert off <= 28, off


def test_the_first_is_named_with_those_that_may_be_as_good() -> None:
    offsets = {"sft": [0.5, 0.52, 0.51], "dpo": [0.9, 0.88, 0.92], "ppo": [0.91, 0.93, 0.89]}
    data = seeded(offsets)
    rows = {key: [replace(r, share_right=r.remi) for r in value] for key, value in data.rows.items()}
    table = tabulate(Measured(data.methods, data.seeds, rows, data.bounds), "sft", 2000, seed=0)
    lead = table["leads"]["share_right"]
    assert lead["first"] == "ppo" and lead["p"]["sft"] < 0.05 < lead["p"]["dpo"]
    found = {"results": {"b": {"estimators": {"e": table}}}}
    assert "shifted subsets: ppo, 91.0 [" in report.words(found, "b", "e")[0]
    assert report.words(found, "b", "e")[0].endswith("; not beyond noise from dpo.")
    alone = {name: by_seed for name, by_seed in offsets.items() if name != "dpo"}
    data = seeded(alone)
    rows = {key: [replace(r, share_right=r.remi) for r in value] for key, value in data.rows.items()}
    found["results"]["b"]["estimators"]["e"] = tabulate(
        Measured(data.methods, data.seeds, rows, data.bounds), "sft", 2000, 0
    )
    assert report.words(found, "b", "e")[0].endswith("; every other method is behind it beyond noise.")


def test_false_alarms_are_as_rare_as_they_should_be() -> None:
    # one seed, no true difference, 20 + 20 scenarios of the user shift: p < 0.05 in about 5 % of 300 draws
    alarms = 0
    for draw in range(300):
        rng = np.random.default_rng([11, draw])
        rows = {
            (method, 0): [row(f"{tag}-{i}", tag, rng.normal()) for tag, n in TAGS.items() for i in range(n)]
            for method in ("sft", "dpo")
        }
        bounds: Any = {key: {} for key in rows}
        table = tabulate(Measured(("sft", "dpo"), (0,), rows, bounds), "sft", 400, seed=draw)
        alarms += table["tests"]["remi"]["dpo"]["user"]["p"] < 0.05
    assert 5 <= alarms <= 30, alarms


def test_unscored_answers_are_left_out_and_counted() -> None:
    data = measured({"sft": {}, "dpo": {}}, spread=0.0)
    rows = {key: list(value) for key, value in data.rows.items()}
    broken = rows["dpo", 1][0]
    rows["dpo", 1][0] = Row(broken.sample_id, broken.subset_tag, "", "", "", "", "truncated", share_right=0.0)
    table = tabulate(Measured(data.methods, data.seeds, rows, data.bounds), "sft", 200, seed=0)
    assert table["methods"]["dpo"]["statuses"] == {"ok": 329, "truncated": 1}
    assert table["methods"]["dpo"]["levels"]["id"]["remi"]["value"] == pytest.approx(0.0)
    # share_right is known of every answer: 0.5 but for one of 90
    assert table["methods"]["dpo"]["levels"]["id"]["share_right"]["value"] == pytest.approx(0.5 * 89 / 90)


def test_cells_of_other_scenarios_are_refused() -> None:
    data = measured({"sft": {}, "dpo": {}})
    rows = {key: value if key != ("dpo", 1) else list(value)[1:] for key, value in data.rows.items()}
    with pytest.raises(DataError, match="dpo, seed 1: its scenarios are not those of the others"):
        tabulate(Measured(data.methods, data.seeds, rows, data.bounds), "sft", 100, seed=0)


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04, and none below the one before it
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_p_value_and_bonferroni(values: list[float]) -> None:
    for p, corrected in zip(values, holm(values), strict=True):
        assert p <= corrected <= min(1.0, len(values) * p) + 1e-12
    # the smallest is Bonferroni's
    assert min(holm(values)) == min(1.0, len(values) * min(values))


def test_p_values_by_hand() -> None:
    # 99 draws above 0 and none below: 2 (0 + 1) / (99 + 1)
    assert p_value(np.arange(1.0, 100.0)) == pytest.approx(0.02)
    assert p_value(np.array([-1.0, 1.0])) == 1.0 and p_value(np.zeros(5)) == 1.0


def test_a_share_s_interval_ends_where_shares_do() -> None:
    # three seeds whose levels lie far apart: Student's t of two degrees of freedom reaches below 0 and above 1
    shares = {0: 0.05, 1: 0.5, 2: 0.99}
    data = measured({f"m{k}": dict.fromkeys(TAGS, 0.0) for k in range(2)}, seeds=3, spread=1.0)
    rows = {key: [replace(row, share_right=shares[key[1]]) for row in value] for key, value in data.rows.items()}
    table = tabulate(Measured(data.methods, data.seeds, rows, data.bounds), "m0", 100, seed=0)
    found = table["methods"]["m1"]["levels"]["german"]["share_right"]
    assert (found["low"], found["high"]) == (0.0, 1.0) and found["value"] == pytest.approx(np.mean(list(shares.values())))


def test_the_metric_that_follows_the_truth_correlates_with_it() -> None:
    levels = {f"m{k}": {tag: -k * place for place, tag in enumerate(TAGS)} for k in range(4)}
    data = measured(levels, seeds=1, spread=0.0)
    rows = {
        key: [Row(**{**{f: getattr(r, f) for f in ("sample_id", "subset_tag", "persona", "query", "response", "reference")},
                     "status": "ok", "remi": r.remi, "share_right": 0.5 + r.remi / 100}) for r in value]
        for key, value in data.rows.items()
    }  # fmt: skip
    table = tabulate(Measured(data.methods, data.seeds, rows, data.bounds), "m0", 100, seed=0)
    found = correlations(table, 200, seed=0)
    assert found["remid, share_right"]["pearson"]["value"] == pytest.approx(-1.0)
    assert found["remid, share_right"]["spearman"]["n"] == 16


def test_a_correlation_within_subsets_is_of_methods_and_not_of_how_hard_a_subset_is() -> None:
    # within each subset the method of more R-EMID has more right slots; subsets of more R-EMID have fewer
    def level(value: float) -> dict[str, float]:
        return {"value": value}

    def method(place: int, same: bool = False) -> dict[str, Any]:
        known = {tag: -10.0 * column + (0 if same else place) for column, tag in enumerate(TAGS)}
        return {
            "levels": {tag: {"remid": level(value), "share_right": level(100 * column + place)}
                       for column, (tag, value) in enumerate(known.items())},
            "bound": {tag: level(0.1) for tag in TAGS},
        }  # fmt: skip

    found = correlations({"methods": {f"m{place}": method(place) for place in range(4)}}, 200, seed=0)
    assert found["remid, share_right"]["spearman"]["value"] < -0.9
    assert found["remid, share_right, within subsets"]["spearman"]["value"] == pytest.approx(1.0)
    # methods alike to rounding have no ranks
    found = correlations({"methods": {f"m{place}": method(place, same=True) for place in range(4)}}, 200, seed=0)
    assert found["remid, share_right, within subsets"]["spearman"]["value"] is None
    assert found["bound, share_right, within subsets"]["pearson"]["value"] is None


# --- the report -----------------------------------------------------------------------------------------------------


def test_the_report_of_an_unfinished_experiment_says_what_is_missing(tmp_path: Path) -> None:
    experiment = read_experiment(write(tmp_path))
    (tmp_path / "experiment.json").write_text(json.dumps(experiment.to_dict()))
    files = report.build(tmp_path)
    assert {file.name for file in files} == {"result.json", "report.md", "table.csv", "report.html"}
    text = (tmp_path / "report" / "report.md").read_text()
    assert "scores/base/scorer/seed-0 has not been measured yet" in text.replace("\\", "")
    assert "coevo train" in text and 'name="loop"' in text
    with pytest.raises(CheckpointError, match="holds no experiment"):
        report.build(tmp_path / "elsewhere")


@pytest.mark.parametrize("content", ["{", "{}", "[]", "\0\0"])
def test_damaged_records_are_named(tmp_path: Path, content: str) -> None:
    record = json.dumps(read_experiment(write(tmp_path)).to_dict())
    (tmp_path / "experiment.json").write_text(content)
    with pytest.raises(DataError, match=r"experiment\.json: .*(not valid JSON|is missing|expected)"):
        report.build(tmp_path)
    (tmp_path / "experiment.json").write_text(record)
    measured = tmp_path / "scores" / "base" / "scorer" / "seed-0"
    measured.mkdir(parents=True)
    (measured / "result.json").write_text(content)
    with pytest.raises(DataError, match=r"result\.json: .*(not valid JSON|is missing|expected).*Delete it and give"):
        report.build(tmp_path)


def test_hostile_names_are_text_in_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured({"sft": {}, "loop": dict.fromkeys(TAGS, -1.0)})
    table = tabulate(found, "sft", 100, seed=0)
    asked = read_experiment(write(tmp_path, methods={"sft": {"method": "sft"}, "loop": {}})).to_dict()
    results = {"base": {"estimators": {"scorer": table | {"correlations": {}}}, "missing": ["loop of base lacks a seed"]}}
    hostile = planted(json.loads(json.dumps(asked | {"results": results})), "german", "loop", "base", "scorer", "yaml")
    monkeypatch.setattr(report, "result", lambda folder: hostile)
    (tmp_path / "experiment.json").write_text("{}")
    assert cli.main(["report", str(tmp_path)]) == 0
    assert_harmless(tmp_path / "report", capsys.readouterr().out)


def test_names_are_escaped_in_the_page(tmp_path: Path) -> None:
    path = write(tmp_path, methods={"sft": {"method": "sft"}, "<b>x": {}}, bases={"<script>y": {}})
    (tmp_path / "experiment.json").write_text(json.dumps(read_experiment(path).to_dict()))
    report.build(tmp_path)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<script>y" not in page and "<b>x" not in page and "&lt;script&gt;y" in page
