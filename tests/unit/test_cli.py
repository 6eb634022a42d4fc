"""The command line: exit codes, messages, and that help and bad input answer without torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coevo import cli
from coevo.cli.data import MOST_PROBLEMS
from coevo.config import Recipe, SmallBase
from coevo.config.load import dump_recipe, load_recipe
from coevo.errors import DataError
from coevo.plan.plan import Counts, parameters, plan
from coevo.plan.table import duration

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = str(ROOT / "recipes" / "quickstart.yaml")
SMOKE = str(ROOT / "recipes" / "smoke.yaml")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["judge", "--help"],
        ["data", "world", "--help"],
        ["train", SMOKE, "--dry-run"],
        ["audit", SMOKE, "--dry-run"],
        ["train", "gone.yaml"],
    ],
    ids=" ".join,
)
def test_help_dry_run_and_bad_recipes_import_no_torch(arguments: list[str], tmp_path: Path) -> None:
    script = (
        "import sys\nfrom coevo.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'trl', 'accelerate', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_error_is_one_message_without_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coevo", "train", SMOKE, "sed=1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "did you mean 'seed'?" in done.stderr and "Traceback" not in done.stderr and not done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_phases_come_in_the_order_of_the_method(path: Path) -> None:
    recipe = load_recipe(path)
    names = [phase.name for phase in plan(recipe, Counts(500, 50, 500, 100, 25))]
    expected = ["pretrain"] if recipe.pretrain else []
    expected += ["sft-rpm", *(["sft-scorer"] if recipe.scorer.kind == "tuned" else []), "audit"]
    expected += [*(["sft-second"] if recipe.evaluation.second_scorer else []), "sft-simulator", "evaluate-sft"]
    for k in range(1, recipe.loop.iterations + 1):
        expected += [f"simulator-{k}", f"harvest-{k}", f"rpm-{k}", f"accept-{k}"]
    expected += ["evaluate-final"]
    assert names == [f"{number:02d}-{name}" for number, name in enumerate(expected, start=1)]


def test_plan_counts_updates_and_sequences() -> None:
    # 100 ID samples in batches of 32 are 3 whole updates = 96 sequences; GRPO: 40 steps × 12 prompts × 8 completions
    phases = {phase.name: phase for phase in plan(Recipe(name="x"), Counts(100, 96, 8000, 1200, 100))}
    sft, simulator, accept = phases["01-sft-rpm"], phases["06-simulator-1"], phases["09-accept-1"]
    assert (sft.kind, sft.updates, sft.samples, sft.sequences) == ("sft", 3, 100, 96)
    assert (simulator.role, simulator.iteration, simulator.updates) == ("simulator", 1, 40)
    assert (simulator.samples, simulator.sequences) == (480, 3840)
    assert (accept.updates, accept.units) == (0, 192), "both models answer the 96 held-out scenarios"
    # 96 sequences × (110 + 28) tokens × 6 FLOPs × parameters at 6e10 FLOP/s
    size = parameters(Recipe(name="x"))
    assert size is not None and sft.tokens_estimate == 96 * 138
    assert sft.seconds_estimate == pytest.approx(6 * size * 96 * 138 / 6e10)


def test_parameters_of_small_and_hub_bases() -> None:
    # 2048·128 embedding + 4 layers of q, o: 2·128·128, k, v: 2·128·64, and 3·128·384
    base = SmallBase(vocab=2048, hidden=128, layers=4, heads=4, kv_heads=2, intermediate=384)
    expected_size = 2048 * 128 + 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 384)
    assert parameters(Recipe(name="x", base=base)) == expected_size
    for path, expected in (("Qwen/Qwen3-4B", 4e9), ("org/tiny-0.6B-Base", 6e8), ("my/model", None)):
        assert parameters(Recipe.model_validate({"name": "x", "base": {"kind": "hub", "path": path}})) == expected


def test_split_that_is_not_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "world.json"
    assert cli.main(["data", "world", "--out", str(file), "--train", "4", "--test", "1"]) == 0
    data = {"kind": "file", "path": str(file), "reference": "carry", "train_split": "IDTrian", "dev": 2}
    with pytest.raises(DataError, match="IDTrian"):
        plan(Recipe.model_validate({"name": "x", "data": data, "loop": {"shifts": ["user"]}}))


def test_dry_run_prints_every_phase_and_its_assumptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--dry-run", QUICKSTART, "loop.iterations=1"]) == 0
    shown = capsys.readouterr().out
    assert "evaluate-final" in shown and "rpm-1" in shown and "rpm-2" not in shown
    assert "estimates" in shown and "FLOP/s" in shown


def test_until_ends_the_plan_at_a_phase_that_must_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", SMOKE, "--dry-run", "--until", "rpm-1"]) == 0
    shown = capsys.readouterr().out
    assert "08-rpm-1" in shown and "accept" not in shown
    assert cli.main(["train", SMOKE, "--dry-run", "--until", "rpm-9"]) == 2
    assert "expected one of sft-rpm, sft-scorer" in capsys.readouterr().err


def test_an_audit_runs_what_it_rests_on_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    # --dry-run prints a row a phase, then a rule and the total
    assert cli.main(["audit", "--dry-run", SMOKE, "audit.scenarios=24"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:4]
    assert [row.split()[0] for row in rows] == ["02-sft-scorer", "03-audit"]
    # reference, twelve bad answers and sixteen of the ladder, in 24 scenarios
    assert rows[1].split()[3:5] == ["24", str(24 * (1 + 12 + 16))]
    assert cli.main(["audit", "--dry-run", str(ROOT / "recipes" / "base.yaml")]) == 0
    assert [row.split()[0] for row in capsys.readouterr().out.splitlines()[2:5]] == [
        "01-pretrain",
        "03-sft-scorer",
        "04-audit",
    ]
    # CoRL's scorer is final after its last phase before the game; RPM, ablation and its plain scorer can wait
    refreshed = ["loop.iterations=3", "corl.refresh_every=1"]
    assert cli.main(["audit", "--dry-run", str(ROOT / "recipes" / "corl" / "smoke.yaml"), *refreshed]) == 0
    assert [row.split()[0] for row in capsys.readouterr().out.splitlines()[2:-5]] == [
        "01-sft-reasoner",
        "02-sft-scorer",
        "03-reasoner-1",
        "04-tune-scorer-1",
        "05-scorer-1",
        "08-audit",
    ]


def _begun(run: Path, recipe: str, *finished: str) -> Path:
    """A run folder of a shipped recipe in which these phases have been marked as finished."""
    for name in finished:
        (run / "phases" / name).mkdir(parents=True)
        (run / "phases" / name / "done.json").write_text("{}")
    run.mkdir(exist_ok=True)
    (run / "resolved.yaml").write_text(dump_recipe(load_recipe(ROOT / "recipes" / recipe)), encoding="utf-8")
    return run


def test_score_asks_for_scorer_and_reasoner_that_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = _begun(tmp_path / "plain", "smoke.yaml", "02-sft-scorer")
    # the last round's scorer, and not the cold start's, is what the game was judged by
    begun = _begun(tmp_path / "begun", "corl/smoke.yaml", "01-sft-reasoner", "02-sft-scorer", "03-reasoner-1")
    whole = _begun(tmp_path / "whole", "corl/smoke.yaml", "03-reasoner-1", "05-scorer-1")
    refused = {
        (begun, None): f"--scorer {begun}: phase scorer-1 has not finished. Finish it with: coevo train --resume {begun} "
        "--until scorer-1",
        (whole, plain): f"--reasoner {plain}: its recipe does not set corl, so it has no reasoner",
        (plain, whole): f"--reasoner {whole}: the scorer of --scorer {plain} was never shown a reasoning",
        (whole, tmp_path / "gone"): f"--reasoner {tmp_path / 'gone'} holds no run",
    }
    for (scorer, reasoner), message in refused.items():
        asked = ["score", "--data", "d.json", "--responses", "r.jsonl", "--scorer", str(scorer)]
        asked += ["--reasoner", str(reasoner)] if reasoner else []
        assert cli.main([*asked, "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_calibration_takes_no_scorer_that_needs_reasonings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _begun(tmp_path / "whole", "corl/smoke.yaml", "03-reasoner-1", "05-scorer-1")
    assert cli.main(["calibrate", "--quick", "--out", str(tmp_path / "out"), "--scorer", str(run)]) == 2
    assert "needs every likelihood, and a scenario whose reasoning is not whole has none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_audit_refuses_what_train_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit"]) == 2
    assert "audit: no recipe given; for example: coevo audit recipes/" in capsys.readouterr().err
    assert cli.main(["audit", SMOKE, "audit.at_leest=1", "--dry-run"]) == 2
    assert "audit.at_leest: unknown key; did you mean 'at_least'?" in capsys.readouterr().err
    (tmp_path / "note.txt").write_text("mine")
    assert cli.main(["audit", SMOKE, "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_taken_folder_is_refused_and_untouched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note.txt").write_text("mine")
    assert cli.main(["train", SMOKE, "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_resume_keeps_the_runs_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--resume", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    (tmp_path / "resolved.yaml").write_text(dump_recipe(load_recipe(SMOKE)), encoding="utf-8")
    assert cli.main(["train", "--resume", str(tmp_path), SMOKE, "--dry-run"]) == 0
    capsys.readouterr()
    assert cli.main(["train", SMOKE, "loop.rpm.steps=9", "--resume", str(tmp_path), "--dry-run"]) == 2
    assert "differs from the run's in loop.rpm.steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", SMOKE, "--otu", "x"],
        ["train", SMOKE, "other.yaml"],
        ["fly"],
        [],
        ["data", "world"],
        ["data", "world", "--out", "x.json", "--train", "-1"],
        ["data", "world", "--out", "x.json", "--seed", "9" * 5000],
        ["data", "check", ""],
        ["report"],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2 and "usage" in capsys.readouterr().err


def test_interrupt_names_how_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(recipe: Recipe, out: Path, **_: object) -> None:
        out.mkdir()
        (out / "resolved.yaml").write_text(dump_recipe(recipe))
        raise KeyboardInterrupt

    module = type(sys)("coevo.loop.run")
    module.train = interrupted  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "coevo.loop.run", module)
    assert cli.main(["train", SMOKE, "--out", str(tmp_path / "run")]) == 130
    assert f"coevo train --resume {tmp_path / 'run'}" in capsys.readouterr().err


SAMPLE = {
    "sample_ID": "IDTrain-00000",
    "subset_tag": "IDTrain",
    "user_persona": "Ann, a nurse.",
    "agent_character": {"name": "Ada"},
    "dialogue_context": [{"user_query": "Who are you?"}],
    "agent_golden_response": "I am Ada.",
}


def _with(**fields: object) -> bytes:
    """A file with one sample of these fields, and a good one; None leaves a field out."""
    sample = {key: value for key, value in (SAMPLE | fields).items() if value is not None}
    return json.dumps({"IDTrain": [sample], "IDTest": [SAMPLE | {"sample_ID": "IDTest-00000"}]}).encode()


BAD_FILES = {
    "missing field": (_with(user_persona=None), "sample 0 ('IDTrain-00000'), field user_persona: is missing; expected"),
    "wrong type": (_with(user_persona=7), "field user_persona: is 7 (a number); expected non-empty text"),
    "dialogue that ends with the agent": (
        _with(dialogue_context=[{"user_query": "Hi."}, {"agent_response": "Yes."}]),
        "field dialogue_context[1]: is {'agent_response': 'Yes.'} (an object); expected the user's query as the last",
    ),
    "empty response": (
        _with(agent_golden_response=""),
        "field agent_golden_response: is '' (text); expected non-empty text",
    ),
    "invalid UTF-8": (_with().replace(b"Ann", b"\xff"), "(0xff) is not valid UTF-8"),
    "truncated JSON": (_with()[:-30], "expected complete JSON; the file is cut short"),
    "duplicate sample_ID": (
        json.dumps({"IDTrain": [SAMPLE], "IDTest": [SAMPLE]}).encode(),
        "split 'IDTest', sample 0 ('IDTrain-00000'), field sample_ID: is 'IDTrain-00000', which an earlier sample has",
    ),
    "JSON lines": (json.dumps(SAMPLE).encode(), "split 'sample_ID': found '\"'; expected a list of samples"),
}
BAD_RECIPES = {
    "unknown key": ({"sed": 1}, {}, "sed: unknown key; did you mean 'seed'?"),
    "split that is not in the file": ({}, {"train_split": "IDTrian"}, "has no split 'IDTrian'; it has IDTrain, IDTest"),
    "fewer samples than a batch": ({}, {}, "rpm_sft.batch_size=32 is more than the 3 samples there are"),
    "fewer prompts than a generation batch": (
        {"loop": {"shifts": ["user"], "rpm": {"prompts": 1, "group": 3}}},
        {},
        "loop.rpm.prompts=1 × group=3 does not divide among 2 processes",
    ),
}


def _state(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _resume_is_refused(run: Path, recipe: dict[str, object], capsys: pytest.CaptureFixture[str]) -> str:
    """Resumes a run of this recipe, expects a refusal that changes nothing, and returns the message."""
    run.mkdir()
    (run / "resolved.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    (run / "metrics.jsonl").write_text("{}\n")
    before = _state(run)
    capsys.readouterr()
    assert cli.main(["train", "--resume", str(run)]) == 2
    shown = capsys.readouterr()
    assert not shown.out and "Traceback" not in shown.err and shown.err.count("coevo: ") == 1
    assert _state(run) == before, "the run folder is untouched"
    return shown.err


def _file_recipe(file: Path) -> dict[str, object]:
    data = {"kind": "file", "path": str(file), "reference": "carry", "test_splits": ["IDTest"], "dev": 1}
    return {"name": "x", "data": data, "loop": {"shifts": ["user"]}}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_one_message_and_leaves_the_run_alone(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = BAD_FILES[case]
    file = tmp_path / "data.json"
    file.write_bytes(content)
    assert cli.main(["data", "check", str(file)]) == 2
    shown = capsys.readouterr().err
    assert message in shown and str(file) in shown and "Traceback" not in shown
    assert message in _resume_is_refused(tmp_path / "run", _file_recipe(file), capsys)


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_bad_recipe_is_one_message_and_leaves_the_run_alone(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    top, data, message = BAD_RECIPES[case]
    monkeypatch.setenv("WORLD_SIZE", "2")
    file = tmp_path / "world.json"
    assert cli.main(["data", "world", "--out", str(file), "--train", "4", "--test", "3"]) == 0
    recipe = _file_recipe(file) | top
    recipe["data"] |= data  # type: ignore[operator]
    assert message in _resume_is_refused(tmp_path / "run", recipe, capsys)


def test_out_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, link, locked = tmp_path / "file", tmp_path / "link", tmp_path / "locked"
    file.write_text("mine")
    link.symlink_to(tmp_path / "gone")
    locked.mkdir(mode=0o500)
    cases = [(file, "is a file"), (file / "run", "it is a file"), (link, "is a file"), (tmp_path / ("x" * 300), "too long")]
    if not os.access(locked, os.W_OK):  # root writes all the same
        cases.append((locked / "run", "nothing may be written in it"))
    for out, expected in cases:
        assert cli.main(["train", SMOKE, "--out", str(out)]) == 2
        shown = capsys.readouterr().err
        assert expected in shown and shown.count("\n") == 1
    assert file.read_text() == "mine" and link.is_symlink() and not any(locked.iterdir())


def test_many_problems_are_counted_and_the_first_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps({"IDTest": [SAMPLE | {"sample_ID": f"{i}", "user_persona": ""} for i in range(80)]}))
    assert cli.main(["data", "check", str(file)]) == 2
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == MOST_PROBLEMS + 1
    assert "80 problem(s), the first 50 of them listed above" in shown and "By field: user_persona 80." in shown


def test_only_rank_0_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert cli.main(["train", SMOKE, "--dry-run"]) == 0
    assert cli.main(["train", SMOKE, "sed=1"]) == 2
    shown = capsys.readouterr()
    assert not shown.out and not shown.err
    # a number that something else left behind silences nobody
    monkeypatch.delenv("MASTER_ADDR")
    assert cli.main(["train", SMOKE, "--dry-run"]) == 0
    assert capsys.readouterr().out


def test_data_world_then_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "world.json"
    assert cli.main(["data", "world", "--out", str(file), "--train", "6", "--test", "1"]) == 0
    assert "18 scenarios" in capsys.readouterr().out, "6 IDTrain + 12 test subsets of 1"
    before = file.read_bytes()
    assert cli.main(["data", "world", "--out", str(file)]) == 2
    assert file.read_bytes() == before
    assert cli.main(["data", "check", str(file)]) == 0
    file.write_bytes(before[: len(before) // 2])
    assert cli.main(["data", "check", str(file)]) == 2
    assert "problem(s)" in capsys.readouterr().err


def test_report_of_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_durations() -> None:
    assert [duration(s) for s in (None, 0.2, 40, 600, 7200)] == ["unknown", "< 1 s", "40 s", "10 min", "2.0 h"]
