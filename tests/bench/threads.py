"""What threads are worth beside a busy process: training steps a second of the shipped base, alone and beside two loops.

    python -m tests.bench.threads [--seconds S]

Forward and backward of 32 sequences of 96 tokens. OpenMP reads its variables when torch loads, so each setting is a process
of its own. Run it on a machine that does nothing else; all processes keep to the first two cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

SETTINGS: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "two threads, OMP_WAIT_POLICY=PASSIVE": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
    "two threads, GOMP_SPINCOUNT=0": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "0"},
}
BASE = Path(__file__).resolve().parents[2] / "coevo" / "lm" / "builtin"
CORES = 2
BATCH, LENGTH = 32, 96
BUSY = "while True: pass"


def work(seconds: float) -> float:
    """Steps a second in this process, after two that warm it up."""
    import torch

    from coevo.lm.loading import load_base

    torch.manual_seed(0)
    model = load_base(BASE, dtype="float32")
    tokens = torch.randint(0, model.config.vocab_size, (BATCH, LENGTH))

    def step() -> None:
        model.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()

    step()
    step()
    began, done = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        step()
        done += 1
    return done / (time.monotonic() - began)


def measure(setting: dict[str, str], seconds: float, busy: int) -> float:
    """Steps a second under a setting, beside so many processes that never rest."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "MKL_", "KMP_"))}
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.threads", "--work", "--seconds", str(seconds)],
            env=kept | setting,
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    return float(done.stdout.split()[-1])


def machine() -> str:
    """What it was measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {CORES} of {os.cpu_count()} cores, {platform.platform()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(work(options.seconds))
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    print(machine())
    print(f"{'steps/s':40} {'alone':>8} {'beside two busy loops':>24}")
    for name, setting in SETTINGS.items():
        alone, beside = (measure(setting, options.seconds, busy) for busy in (0, CORES))
        print(f"{name:40} {alone:8.2f} {beside:24.2f}", flush=True)


if __name__ == "__main__":
    main()
