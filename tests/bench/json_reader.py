"""The streaming reader of data files beside the json module, in time and memory; each in a process of its own.

python -m tests.bench.json_reader                # 20,000 scenarios of the world, some 25 MB
python -m tests.bench.json_reader --samples 200000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

READERS = {
    "json.load, nothing checked": "import json; found = json.load(open(path, encoding='utf-8'))",
    "json.load, then every sample": (
        "import json\n"
        "from coevo.data.jsonstream import Element\n"
        "from coevo.data.sample import Sample\n"
        "found = json.load(open(path, encoding='utf-8'))\n"
        "found = [Sample(path, Element(k, i, v, 1, '')).scenario() for k, vs in found.items() for i, v in enumerate(vs)]"
    ),
    "streaming, all kept (load_scenarios)": "import coevo; found = coevo.load_scenarios(path)",
    "streaming, none kept (data check)": ("from coevo.data import read_rpgbench\nfor found in read_rpgbench(path): pass"),
}
MEASURED = """
import pathlib, re, sys, time
path = sys.argv[1]
import coevo.data
def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
held = most()
began = time.perf_counter()
{code}
spent = time.perf_counter() - began
print(spent, (most() - held) / 1024)
"""


def main() -> None:
    """Prints a line a reader: median of three, seconds and the most memory beyond the imports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    samples = parser.parse_args().samples
    from coevo.data import world, write_rpgbench

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "world.json"
        write_rpgbench(path, world.generate("IDTrain", samples, seed=0))
        print(f"{samples:,} scenarios, {path.stat().st_size / 2**20:.0f} MB")
        for name, code in READERS.items():
            runs = sorted(_measured(code, path) for _ in range(3))
            print(json.dumps({"reader": name, "s": round(runs[1][0], 2), "mb": round(runs[1][1])}))


def _measured(code: str, path: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", MEASURED.format(code=code), str(path)]
    seconds, megabytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), float(megabytes)


if __name__ == "__main__":
    main()
