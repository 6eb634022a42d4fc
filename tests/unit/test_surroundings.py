"""What surrounds a run: streams that nobody reads, variables that a launcher left, a tracker that cannot be reached."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from accelerate import PartialState
from transformers import TrainingArguments

from coevo import dist
from coevo.cli import streams
from coevo.config.load import load_recipe
from coevo.errors import ConfigError
from coevo.files import writing
from coevo.loop import tracking
from coevo.loop.run import start_processes
from coevo.plan.plan import check, count
from coevo.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "recipes" / "smoke.yaml"
LAUNCH = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


# --- streams ----------------------------------------------------------------------------------------------------------


@contextmanager
def unread():
    """A pipe's writing end whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


def test_a_stream_whose_reader_has_gone_takes_what_is_written() -> None:
    with unread() as pipe:
        stream = streams._stream(pipe, sys.__stdout__)
        for _ in range(3):
            stream.write("6/60 steps\n")
            stream.flush()
        # libraries in C and child processes write there too
        assert os.write(pipe, b"[INFO]") == 6 and os.path.samestat(os.fstat(pipe), Path(os.devnull).stat())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full")
def test_standard_output_on_a_full_disk_is_told_once_and_is_not_taken_for_the_run_folder(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    stream = streams._stream(full, sys.__stdout__)
    with pytest.raises(OSError, match=r"No space left on device: 'standard output'"), writing(tmp_path):
        print("6/60 steps", file=stream, flush=True)
    # what was not written is tried again when the process ends
    stream.flush()
    os.close(full)


@pytest.mark.parametrize("closed", ["pipe", ">&- 2>&-"])
def test_a_command_ends_as_it_would_without_a_reader(closed: str) -> None:
    command = f"{sys.executable} -m coevo train {SMOKE} --dry-run"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if closed == "pipe":
        with unread() as pipe:
            done = subprocess.run(command.split(), stdout=pipe, stderr=subprocess.PIPE, env=environment, check=False)
        assert not done.stderr
    else:
        done = subprocess.run(f"{command} {closed}", shell=True, stderr=subprocess.PIPE, env=environment, check=False)
        assert not done.stderr
    assert done.returncode == 0


# --- launch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "message"),
    [
        ({"WORLD_SIZE": "2"}, "has WORLD_SIZE=2 without RANK, MASTER_ADDR, MASTER_PORT.*unset WORLD_SIZE\\)"),
        ({"LOCAL_RANK": "0"}, "has LOCAL_RANK=0 without WORLD_SIZE, RANK, MASTER_ADDR, MASTER_PORT"),
        (
            {"WORLD_SIZE": "8", "RANK": "3", "LOCAL_RANK": "3"},
            "without MASTER_ADDR, MASTER_PORT.*unset WORLD_SIZE RANK LOCAL",
        ),
        ({"RANK": "1"}, "has RANK=1 without WORLD_SIZE"),
        (dict.fromkeys(LAUNCH, "two"), "WORLD_SIZE=two, RANK=two, LOCAL_RANK=two where whole numbers are expected"),
    ],
)
def test_a_part_of_a_launchers_variables_is_named(
    left: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{message}.*accelerate launch"):
        start_processes()


def test_one_process_may_be_called_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # as a Kubernetes job of one pod is
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    start_processes()
    assert dist.world_size() == 1 and dist.is_main()


def test_the_recipe_alone_decides_the_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    start_processes()
    assert TrainingArguments(output_dir=str(tmp_path), use_cpu=True).mixed_precision == "no"
    assert TrainingArguments(output_dir=str(tmp_path), use_cpu=True, bf16=True).mixed_precision == "bf16"


# --- wandb ------------------------------------------------------------------------------------------------------------


def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Exception | None = None) -> tuple[list[str], list[str]]:
    """The modes that wandb was begun in, and what was said."""
    modes: list[str] = []
    said: list[str] = []

    def init(mode: str, **_: object) -> SimpleNamespace:
        modes.append(mode)
        if mode == "online" and refusal is not None:
            raise refusal
        return SimpleNamespace(log=lambda row: None, finish=lambda: None)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "teardown", lambda: None)
    server = SimpleNamespace(settings=SimpleNamespace(base_url="https://wandb.example:8080"))
    monkeypatch.setattr(wandb, "setup", lambda: server)
    recipe = load_recipe(SMOKE, ["tracking.to=wandb"])
    with tracking.tracker(recipe, RunFolder(tmp_path), said.append) as log:
        log({"phase": "01", "step": 1, "loss": 1.0})
    return modes, said


def test_wandb_goes_offline_at_once_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert logged(tmp_path, monkeypatch) == (["offline"], [])
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(tracking, "unreachable", lambda server: f"no way to {server}")
    modes, said = logged(tmp_path, monkeypatch)
    assert modes == ["offline"] and "going on offline" in said[0] and "wandb sync" in said[0]
    monkeypatch.setattr(tracking, "unreachable", lambda server: None)
    modes, said = logged(tmp_path, monkeypatch, wandb.errors.AuthenticationError("The API key you provided\n is invalid"))
    assert modes == ["online", "offline"] and "cannot be used (The API key you provided is invalid)" in said[0]
    assert logged(tmp_path, monkeypatch) == (["online"], [])


def test_the_key_of_older_runs_is_read() -> None:
    assert load_recipe(SMOKE, ["tracking.wandb=true"]).tracking.to == ("wandb",)
    assert load_recipe(SMOKE, ["tracking.wandb=false"]).tracking.to == ()
    assert load_recipe(SMOKE, ["tracking.to=[tensorboard,mlflow]"]).tracking.to == ("tensorboard", "mlflow")
    with pytest.raises(ConfigError, match=r"tracking\.to"):
        load_recipe(SMOKE, ["tracking.to=comet"])


def test_a_tracker_that_is_not_installed_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(SMOKE, ["tracking.to=trackio"])
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "trackio" else found(name, *rest))
    with pytest.raises(ConfigError, match=r"tracking\.to=trackio: trackio is not installed; pip install"):
        check(recipe, count(recipe))


def rows(tmp_path: Path, name: str) -> list[str]:
    """What was said while two rows were logged in two sittings, as a resumed run does."""
    said: list[str] = []
    PartialState(cpu=True)
    recipe = load_recipe(SMOKE, [f"tracking.to={name}"])
    for step in (1, 2):
        with tracking.tracker(recipe, RunFolder(tmp_path), said.append) as log:
            log({"phase": "08-rpm-1", "role": "rpm", "iteration": None, "step": step, "reward": 0.5 * step})
    return said


def test_tensorboard_has_every_number() -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tempfile.TemporaryDirectory() as folder:
        assert rows(Path(folder), "tensorboard") == []
        events = EventAccumulator(folder + "/tensorboard").Reload()
        assert [(e.step, e.value) for e in events.Scalars("08-rpm-1/reward")] == [(1, 0.5), (2, 1.0)]


def test_mlflow_has_every_number_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert rows(tmp_path, "mlflow") == []
    (file,) = (tmp_path / "mlruns").glob("*/*/metrics/08-rpm-1/reward")
    assert [line.split()[1:] for line in file.read_text().splitlines()] == [["0.5", "1"], ["1.0", "2"]]


def test_trackio_has_every_number(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    code = (
        "from pathlib import Path; from tests.unit.test_surroundings import rows; import sys;"
        "said = rows(Path(sys.argv[1]), 'trackio'); assert said == [], said"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment, capture_output=True, cwd=ROOT)
    with closing(sqlite3.connect(tmp_path / "trackio" / "coevo.db")) as database:
        found = [json.loads(text) for (text,) in database.execute("select metrics from metrics order by step")]
    assert [row["08-rpm-1/reward"] for row in found if "08-rpm-1/reward" in row] == [0.5, 1.0]


def test_no_tracker_can_stop_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    (said, again) = rows(tmp_path, "mlflow")
    assert said == again and said.startswith("mlflow cannot be logged to: OSError: http://127.0.0.1:1: ")

    def full(numbers: object, step: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(tracking, "_by_accelerate", lambda *_: (full, lambda: full(None, 0)))
    said = rows(tmp_path, "mlflow")
    assert [line.split(":")[0] for line in said] == ["mlflow is logged to no longer", "mlflow may lack its last rows"] * 2


def test_a_server_is_tried_before_wandb_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert tracking.unreachable(f"http://127.0.0.1:{port}/api") is None
        # through a proxy nothing else can be tried
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{port}")
        assert tracking.unreachable("https://wandb.example") is None
    assert "refused" in str(tracking.unreachable(f"http://127.0.0.1:{port}"))
    assert tracking.unreachable("https://wandb.example") is not None
