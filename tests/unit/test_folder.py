"""What a run folder lets pass and what it refuses: two processes, other files, damaged checkpoints, a full disk."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from coevo import cli
from coevo.config.load import load_recipe
from coevo.errors import CheckpointError, ConfigError, StorageError
from coevo.files import LOCK_FILE, holder_of, locked, write_atomic, writing
from coevo.lm.lineage import atomic_directory
from coevo.loop.run import _changed, train
from coevo.plan.plan import plan
from coevo.runs.folder import RunFolder
from coevo.runs.record import with_own_data
from coevo.runs.streams import drop_rows, read_rows
from coevo.train.checkpoints import COMPLETE, _signed, last_checkpoint, newest, seal

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "recipes" / "smoke.yaml"

# --- two processes --------------------------------------------------------------------------------------------------


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    code = "import sys\nfrom pathlib import Path\nfrom coevo.files import locked\n"
    code += "with locked(Path(sys.argv[1])):\n print(1, flush=True)\n input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        named = rf"in use by another coevo \(process {holder.pid} on \S+, since 20"
        with pytest.raises(ConfigError, match=named), locked(tmp_path):
            pass
        assert f"process {holder.pid}" in str(holder_of(tmp_path))
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert holder_of(tmp_path) is None
    with locked(tmp_path):
        assert f"process {os.getpid()}" in str(holder_of(tmp_path))


def test_one_folder_is_written_by_one_run_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    # another fresh start that has got no further than its lock, then one that has
    with locked(run):
        with pytest.raises(ConfigError, match=f"{run} is in use by another coevo"):
            train(load_recipe(SMOKE), run)
        assert [file.name for file in run.iterdir()] == [LOCK_FILE]
        RunFolder.create(run, load_recipe(SMOKE))
        before = {file: file.read_bytes() for file in run.iterdir()}
        for words in (
            ["train", str(SMOKE), "--out", str(run)],
            ["train", "--resume", str(run)],
            ["audit", "--resume", str(run)],
        ):
            assert cli.main(words) == 2
            told = capsys.readouterr().err
            assert f"in use by another coevo (process {os.getpid()} on" in told and told.count("coevo: ") == 1, told
        assert {file: file.read_bytes() for file in run.iterdir()} == before


def test_a_start_that_was_killed_at_once_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).touch()
    (tmp_path / ".environment.json.tmp").write_text('{"pyth')
    assert RunFolder.create(tmp_path, load_recipe(SMOKE)).root == tmp_path


# --- recipe and data ------------------------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run folder in which nothing has been done."""
    return RunFolder.create(tmp_path / "run", load_recipe(SMOKE)).root


@pytest.mark.parametrize("lines", [-1, -12, None])
def test_a_recipe_that_was_cut_or_edited_is_refused(begun: Path, lines: int | None) -> None:
    path = begun / "resolved.yaml"
    text = path.read_text()
    # a cut at a line's end is YAML still, and what is missing would be filled up with defaults
    path.write_text("".join(text.splitlines(keepends=True)[:lines]) if lines else text.replace("steps: 2", "steps: 3", 1))
    for command in (["train", "--resume"], ["audit", "--resume"]):
        assert cli.main([*command, str(begun)]) == 2
    with pytest.raises(CheckpointError, match=r"resolved\.yaml: changed since .*Restore the file, or start a new run"):
        RunFolder.open(begun)
    path.write_text(text)
    assert RunFolder.open(begun)[1] == load_recipe(SMOKE)


def test_what_a_run_was_begun_with_is_read_or_refused(begun: Path) -> None:
    path = begun / "environment.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"environment\.json: damaged"):
        RunFolder.open(begun)
    path.unlink()  # as of a folder from before hashes were recorded
    assert RunFolder.open(begun)[1] == load_recipe(SMOKE)


def test_a_run_goes_on_with_its_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("data.json").write_text("mine")
    recipe = load_recipe(SMOKE, ["data={kind: file, path: data.json, reference: carry}", "loop.shifts=[user]"])
    run = RunFolder.create(tmp_path / "run", recipe).root
    own = tmp_path / "here" / "data.json"
    assert with_own_data(run, recipe) == recipe
    monkeypatch.chdir(tmp_path / "there")
    Path("data.json").write_text("another's")
    assert with_own_data(run, recipe).data.path == own, "wherever it is resumed"
    own.write_text("edited")
    digest = hashlib.sha256(b"mine").hexdigest()[:12]
    with pytest.raises(CheckpointError, match=rf"begun with the data file {own} of sha256 {digest}….*has .* now.*Restore"):
        with_own_data(run, recipe)
    own.unlink()
    with pytest.raises(CheckpointError, match=f"{own} is not there"):
        with_own_data(run, recipe)
    Path("data.json").write_text("mine")
    assert with_own_data(run, recipe) == recipe, "moved with its data"


# --- streams --------------------------------------------------------------------------------------------------------


def stream(path: Path, rows: list[tuple[str, int]], torn: str = "") -> Path:
    path.write_text("".join(json.dumps({"phase": phase, "step": step, "ä": 1.0}) + "\n" for phase, step in rows) + torn)
    return path


def later(row: dict[str, Any]) -> bool:
    return row["phase"] == "b" and row["step"] > 1


def test_rows_are_dropped_wherever_they_stand(tmp_path: Path) -> None:
    whole = [("a", 1), ("b", 1), ("c", 1)]
    cases = {
        "none": (whole, ""),
        "torn": (whole, '{"phase": "c", "st'),
        "end": ([*whole, ("b", 2), ("b", 3)], '{"ph'),
        "middle": ([("a", 1), ("b", 2), ("b", 1), ("b", 3), ("c", 1)], ""),
        "all": ([("b", 2)], ""),
    }
    for name, (rows, torn) in cases.items():
        path = stream(tmp_path / name, rows, torn)
        before = path.stat()
        drop_rows(path, later)
        assert path.read_text() == stream(tmp_path / "expected", [row for row in rows if row in whole]).read_text(), name
        if name == "none":
            assert path.stat() == before, "not touched"
        assert (path.stat().st_ino == before.st_ino) == (name != "middle"), "what goes from the end is cut off"
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_stream_takes_no_memory_however_long_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    row = json.dumps({"phase": "a", "step": 1, "prompt": "x" * 10_000}) + "\n"
    path.write_text(row * 1_000)
    with path.open("a") as file:
        file.write(row.replace('"a"', '"b"').replace("1", "2", 1) + row)
    folder = RunFolder(tmp_path)
    tracemalloc.start()
    folder.rewind({"b": 1})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6 < path.stat().st_size
    assert sum(1 for _ in read_rows(path)) == 1_001


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = stream(tmp_path / "metrics.jsonl", [("a", 1)], '{"phase": "b", \n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl:2: not a JSON object"):
        drop_rows(path, later)
    path = stream(tmp_path / "metrics.jsonl", [("a", 1)], "[1]\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl:2: not a JSON object"):
        list(read_rows(path))


# --- checkpoints ----------------------------------------------------------------------------------------------------

FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def checkpoints(folder: Path, *steps: int) -> Path:
    for step in steps:
        path = folder / f"checkpoint-{step}"
        path.mkdir(parents=True)
        for name in FILES:
            (path / name).write_bytes(f"{name} {step}".encode() * 10)
        seal(path, step)
    return folder


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "step":
        path.write_bytes(content.replace(b'"step": ', b'"step": 1'))
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(content[:5] + bytes([content[5] ^ 1]) + content[6:])


DAMAGE = [(name, "missing") for name in (*FILES, COMPLETE)] + [
    (COMPLETE, how) for how in ("cut", "empty", "flipped", "step")
]
DAMAGE += [("optimizer.pt", "flipped"), ("rng_state.pth", "cut"), ("adapter_model.safetensors", "empty")]


@pytest.mark.parametrize(("name", "how"), DAMAGE)
def test_the_newest_checkpoint_that_is_whole_is_taken(tmp_path: Path, name: str, how: str) -> None:
    folder = checkpoints(tmp_path, 4, 10)
    assert (last_checkpoint(folder).checkpoint, last_checkpoint(folder).notes) == (folder / "checkpoint-10", ())
    damage(folder / "checkpoint-10" / name, how)
    start = last_checkpoint(folder)
    assert (start.checkpoint, start.step, newest(folder)) == (folder / "checkpoint-4", 4, folder / "checkpoint-4")
    reason = "it was not written to its end" if name == COMPLETE else name
    assert len(start.notes) == 1 and start.notes[0].startswith(f"checkpoint-10 is passed over: {reason}")
    damage(folder / "checkpoint-4" / name, how)
    start = last_checkpoint(folder)
    assert (start.checkpoint, start.step, len(start.notes)) == (None, -1, 1)


def test_a_checkpoint_without_hashes_is_taken_and_said(tmp_path: Path) -> None:
    folder = checkpoints(tmp_path, 2)
    (folder / "checkpoint-2" / COMPLETE).write_text("1\n")
    start = last_checkpoint(folder)
    assert (start.step, start.processes) == (1, 1) and "before hashes were recorded" in start.notes[0]


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    folder = checkpoints(tmp_path / "checkpoints", 2)
    last_checkpoint(folder).check_processes(tmp_path)
    mark = json.loads((folder / "checkpoint-2" / COMPLETE).read_text())
    (folder / "checkpoint-2" / COMPLETE).write_text(json.dumps(_signed(2, 2, mark["files"])))
    with pytest.raises(ConfigError, match=r"by 2 process\(es\), and resumed by 1:.*--num_processes 2\), or delete"):
        last_checkpoint(folder).check_processes(tmp_path)
    # also of one that an earlier version wrote
    (folder / "checkpoint-2" / COMPLETE).write_text("2\n")
    (folder / "checkpoint-2" / "rng_state.pth").rename(folder / "checkpoint-2" / "rng_state_0.pth")
    (folder / "checkpoint-2" / "rng_state_1.pth").touch()
    assert last_checkpoint(folder).processes == 2


# --- a phase that is stopped and goes on ----------------------------------------------------------------------------

PHASE = "01-sft-rpm"
SHORT = load_recipe(SMOKE, ["rpm_sft.samples=8", "rpm_sft.batch_size=2"])
"""Four updates, with a checkpoint after the second and the last."""


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file may grow beyond this, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Told:
    """What a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def __getattr__(self, _: str) -> Any:
        return lambda *args, **kwargs: None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first phase has ended."""
    return train(SHORT, tmp_path_factory.mktemp("whole") / "run", only=[PHASE])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, stopped by a full disk when its first phase was to be marked as done: its checkpoints are there."""
    root = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "finish", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StorageError, match=rf"{root}: cannot be written: No space left .*coevo train --resume {root}"):
            train(SHORT, root, only=[PHASE])
    assert {path.name for path in (root / "phases" / PHASE / "checkpoints").glob("*-*")} == {"checkpoint-2", "checkpoint-4"}
    return root


def results(run: Path) -> dict[str, bytes]:
    files = [*run.glob("phases/*/policy/*.safetensors"), *run.glob("*.jsonl"), *run.glob("phases/*/done.json")]
    return {str(path.relative_to(run)): path.read_bytes() for path in files if path.name != "timing.jsonl"}


@pytest.mark.parametrize("damaged", [["4/optimizer.pt"], ["4/rng_state.pth", "2/adapter_model.safetensors"]])
def test_a_damaged_checkpoint_is_passed_over_and_the_result_is_the_same(
    whole: Path, stopped: Path, tmp_path: Path, damaged: list[str]
) -> None:
    run, told = tmp_path / "run", Told()
    shutil.copytree(stopped, run)
    for name in damaged:
        damage(run / "phases" / PHASE / "checkpoints" / f"checkpoint-{name}", "flipped")
    train(SHORT, run, resume=True, only=[PHASE], progress=told)
    assert results(run) == results(whole)
    after = (
        "goes on from checkpoint-2, step 2." if len(damaged) == 1 else "no whole checkpoint is left, so that it begins anew."
    )
    assert told.lines == [
        *(
            f"{PHASE}: checkpoint-{name.replace('/', ' is passed over: ')} has changed since it was written."
            for name in damaged
        ),
        f"{PHASE}: {after}",
    ]


def test_another_number_of_processes_between_phases_is_said(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    here = SimpleNamespace(folder=RunFolder(run), plan=plan(SHORT), recipe=SHORT)
    assert _changed(here) == []  # type: ignore[arg-type]
    done = run / "phases" / PHASE / "done.json"
    done.write_text(done.read_text().replace('"processes": 1', '"processes": 2'))
    (run / "environment.json").unlink()
    recorded, processes = _changed(here)  # type: ignore[arg-type]
    assert "begun before hashes were recorded" in recorded
    assert f"{PHASE} was run by 2 process(es), and the run goes on with 1" in processes


def test_a_finished_run_is_read_and_not_locked(whole: Path) -> None:
    before = results(whole)
    with locked(whole):
        train(SHORT, whole, resume=True, only=[PHASE])
    assert results(whole) == before


def test_a_full_disk_is_one_message_and_loses_nothing(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    adapter = (whole / "phases" / PHASE / "policy" / "adapter_model.safetensors").stat().st_size
    # room for the adapter, and none for the optimizer's two states of it
    with file_size_limit(adapter + 1000), pytest.raises(StorageError, match=f"{run}.*: cannot be written") as caught:
        train(SHORT, run, only=[PHASE])
    assert str(caught.value).endswith(f"make room. Go on with: coevo train --resume {run}")
    train(SHORT, run, resume=True, only=[PHASE])
    assert results(run) == results(whole)


def test_every_writer_says_what_it_could_not_write(tmp_path: Path) -> None:
    tensors, old = {"a": torch.zeros(100_000)}, tmp_path / "old.json"
    write_atomic(old, "old")
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "mark").touch()

    def policy() -> None:
        with atomic_directory(tmp_path / "policy") as work:
            save_file(tensors, work / "model.safetensors")

    def checkpoint() -> None:
        with writing(tmp_path / "new.pt"):
            torch.save(tensors, tmp_path / "new.pt")

    def vocabulary() -> None:
        with writing(tmp_path / "tokenizer.json"):
            Tokenizer.from_file(str(ROOT / "coevo/lm/builtin/tokenizer.json")).save(str(tmp_path / "tokenizer.json"))

    def rows() -> None:
        RunFolder(tmp_path).append("metrics.jsonl", [{"a": "x" * 50_000}])

    writers = {
        "old.json": lambda: write_atomic(old, "x" * 50_000),
        "policy": policy,
        "new.pt": checkpoint,
        "tokenizer.json": vocabulary,
        "metrics.jsonl": rows,
    }
    for name, write in writers.items():
        with (
            file_size_limit(10_000),
            pytest.raises(StorageError, match=rf"{tmp_path / name}: cannot be written: .*make room"),
        ):
            write()
    assert old.read_text() == "old" and [path.name for path in (tmp_path / "policy").iterdir()] == ["mark"]
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
    # any other error stays what it is
    with pytest.raises(RuntimeError, match="mat1"), writing(old):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
