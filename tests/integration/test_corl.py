"""CoRL through the command line: both roles trained in turn, an ablation, a loop that reads reasonings, and a resume."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import coevo as library
from coevo.lm.lineage import read_lineage
from coevo.runs.folder import read_rows
from coevo.scoring.ablation import VARIANTS
from tests.integration.conftest import ROOT, coevo, environment, stamp

SMOKE = ROOT / "recipes" / "corl" / "smoke.yaml"
RESUMED_FILES = ("metrics.jsonl", "rollouts.jsonl", "evaluation/ablation.jsonl")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished, uninterrupted run of recipes/corl/smoke.yaml."""
    out = tmp_path_factory.mktemp("corl") / "run"
    done = coevo("train", SMOKE, "--out", out)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


def digests(run: Path) -> dict[str, str]:
    """sha256 of every CoRL policy, and of what the phases wrote."""
    policies = [p for p in run.glob("phases/*/policy/*.safetensors") if p.parent.parent.name < "08"]
    files = [*policies, *run.glob("reasonings/*.jsonl"), *(run / f for f in RESUMED_FILES)]
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)}


def test_each_adapter_descends_from_the_one_before_on_one_base(run: Path) -> None:
    lineage = {p.name: read_lineage(p / "policy") for p in sorted((run / "phases").iterdir()) if (p / "policy").exists()}
    assert len({one.base for one in lineage.values()}) == 1
    stacks = {
        "01-sft-reasoner": None,
        "02-sft-scorer": None,
        "03-reasoner-1": "01-sft-reasoner",
        "04-tune-scorer-1": "02-sft-scorer",
        "05-scorer-1": "04-tune-scorer-1",
        "06-sft-plain": None,
    }
    for name, parent in stacks.items():
        assert lineage[name].parent == (lineage[parent].sha256 if parent else None), name
    assert len({lineage[name].sha256 for name in stacks}) == len(stacks), "each phase changed its own policy"


def test_the_reasoners_reward_is_logged_in_its_parts(run: Path) -> None:
    rows = [row for row in read_rows(run / "rollouts.jsonl") if row["phase"] == "03-reasoner-1"]
    assert len(rows) == 32 and all(row["prompt"] for row in rows)  # 2 steps × 4 prompts × 4 completions
    whole = [row for row in rows if "likelihood" in row["parts"]]
    assert whole, "some reasonings are whole"
    for row in rows:
        parts = row["parts"]
        expected = parts["structure"] + parts.get("likelihood", 0.0) + parts.get("economy", 0.0)
        assert row["reward"] == pytest.approx(expected, abs=1e-5)
        assert ("likelihood" in parts) == (parts["structure"] == 1.0)
    # scored by the scorer before this iteration's
    assert {row["scorer"] for row in rows} == {stamp(run, "02-sft-scorer")}


def test_the_game_is_judged_by_scorer_and_reasoner_together(run: Path) -> None:
    both = "+".join(stamp(run, name) for name in ("05-scorer-1", "03-reasoner-1"))
    rows = [row for row in read_rows(run / "rollouts.jsonl") if row["role"] in ("simulator", "rpm")]
    assert rows and {row["scorer"] for row in rows} == {both}
    agreed = [row["parts"]["agreement"] for row in rows if "agreement" in row["parts"]]
    assert agreed and all(0 < value <= 1 for value in agreed)
    assert json.loads((run / "evaluation" / "sft.json").read_text())["scorer"] == both


def test_a_second_scorer_measures_what_the_first_one_rewards(run: Path) -> None:
    lineage, second = read_lineage(run / "phases" / "10-sft-second" / "policy"), stamp(run, "10-sft-second")
    assert lineage.parent is None and lineage.role == "second"
    assert second not in {row["scorer"] for row in read_rows(run / "rollouts.jsonl")}, "it rewards nothing"
    for name in ("sft", "final"):
        summary = json.loads((run / "evaluation" / f"{name}.json").read_text())
        assert summary["second_scorer"]["scorer"] == second and "+" in summary["scorer"]
        both = [list(read_rows(run / "evaluation" / f"{file}.jsonl")) for file in (name, f"{name}-second")]
        # the same responses, and other likelihoods of them
        assert [(r["sample_id"], r["response"]) for r in both[0]] == [(r["sample_id"], r["response"]) for r in both[1]]
        gaps = [[row["likelihood_gap"] for row in rows if row["status"] == "ok"] for rows in both]
        assert gaps[1] and gaps[0] != gaps[1]
    assert "## By a second scorer, which rewards nothing" in (run / "report" / "table.md").read_text()


def test_the_ablation_reads_every_test_with_every_variant(run: Path) -> None:
    rows = list(read_rows(run / "evaluation" / "ablation.jsonl"))
    assert {row["variant"] for row in rows} == set(VARIANTS) and len(rows) == 24 * len(VARIANTS)
    done = coevo("ablation", run)
    assert done.returncode == 0 and "| reasoning + CoRL |" in done.stdout
    # the same references under the same tokenizer: one number of tokens a reference, whatever reads it
    tokens = {(row["sample_id"], row["n_tokens"]) for row in rows if row["status"] == "ok"}
    assert len(tokens) == len({sample for sample, _ in tokens})


def test_a_diagnosis_of_the_runs_own_responses_has_the_runs_own_numbers(run: Path, tmp_path: Path) -> None:
    data, responses, out = tmp_path / "world.json", tmp_path / "responses.jsonl", tmp_path / "out"
    assert coevo("data", "world", "--out", data, "--train", "1", "--test", "2").returncode == 0
    rows = list(read_rows(run / "evaluation" / "sft.jsonl"))
    answered = [{"sample_ID": row["sample_id"], "response": row["response"], "model": "rpm"} for row in rows]
    for row, answer in zip(rows, answered, strict=True):
        answer |= {"status": "truncated"} if row["status"] == "truncated" else {}
    responses.write_text("".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answered))
    done = coevo("score", "--data", data, "--responses", responses, "--scorer", run, "--out", out)
    assert done.returncode == 0, done.stderr[-3000:]
    mine, own = (json.loads(path.read_text()) for path in (out / "result.json", run / "evaluation" / "sft.json"))
    assert mine["scorer"] == own["scorer"] and mine["seed"] == own["seed"]
    assert (mine["scorer_phase"], mine["reasoner"]["phase"]) == ("scorer-1", "reasoner-1")
    for tag, entry in own["subsets"].items():
        found = mine["models"]["rpm"]["subsets"][tag]
        assert found["statuses"] == entry["statuses"]
        for name in ("remi", "register_gap", "likelihood_gap"):
            # batches are cut otherwise, so sums round otherwise
            assert found[name] == (entry[name] and pytest.approx(entry[name], abs=1e-4)), (tag, name)
    written = sum(mine["reasoner"]["reasonings"].values())
    assert written == len(rows) and "reasoner" in (out / "result.md").read_text()
    # and from Python, with the reasoner loaded beside the scorer
    asked = {"k": mine["k"], "resamples": mine["resamples"], "divergences": False}
    found = library.diagnose(library.load_scorer(run), library.load_scenarios(data), responses, **asked)
    assert found.reasoned and found.record["scorer"] == mine["scorer"]
    for name, shift in found.models["rpm"].shifts.items():
        other = mine["models"]["rpm"]["shifts"][name]["remi"]
        assert shift.remi is not None and shift.remi.to_dict() == pytest.approx(other, abs=1e-4)


@pytest.mark.slow
def test_killed_in_a_reasoners_phase_and_resumed_is_bit_identical(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "coevo", "train", str(SMOKE), "--until", "ablation", "--out", str(folder)]
    process = subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        phase = folder / "phases" / "03-reasoner-1"
        deadline = time.monotonic() + 500
        while time.monotonic() < deadline and process.poll() is None:
            if list(phase.glob("checkpoints/checkpoint-*/complete")):
                break
            time.sleep(0.02)
        assert process.poll() is None, "the run ended before it could be interrupted"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert phase.exists() and not (phase / "done.json").exists()
    done = coevo("train", "--resume", folder, "--until", "ablation")
    assert done.returncode == 0, done.stderr[-3000:]
    mine, whole = digests(folder), digests(run)
    # the finished run went on after the ablation: its streams and its reasonings have more in them
    for stream in ("metrics.jsonl", "rollouts.jsonl"):
        assert (run / stream).read_bytes().startswith((folder / stream).read_bytes())
        mine.pop(stream), whole.pop(stream)
    kept = {name for name in mine if name.startswith("reasonings/")}
    for name in kept:
        assert (run / name).read_bytes().startswith((folder / name).read_bytes())
        mine.pop(name), whole.pop(name)
    assert kept and mine == whole
