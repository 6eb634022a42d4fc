"""Content hashes of weights, and the lineage record that keeps them from being loaded on the wrong base."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import nn

from coevo.errors import CheckpointError
from coevo.files import fsync, writing
from coevo.types import Lineage

ADAPTER_FILE = "adapter_model.safetensors"
VALUE_HEAD_FILE = "value_head.safetensors"
LINEAGE_FILE = "lineage.json"
_CHUNK_BYTES = 1 << 22
_hash_cache: dict[tuple[tuple[str, int, int], ...], str] = {}


def weight_files(directory: str | Path) -> list[Path]:
    """The safetensors files that loading would read, sorted by name: the adapter's, else `model*.safetensors`.

    A value head beside them is one of them, so that a policy's hash vouches for it too.

    Raises:
        CheckpointError: there are none.
    """
    folder = Path(directory)
    adapter = folder / ADAPTER_FILE
    files = [adapter] if adapter.is_file() else sorted(folder.glob("model*.safetensors"))
    if not files:
        raise CheckpointError(
            f"{folder}: no weights found; expected {ADAPTER_FILE} or model*.safetensors. "
            "Check the path; weights in another format must be converted to safetensors first."
        )
    head = folder / VALUE_HEAD_FILE
    return [*files, head] if head.is_file() else files


def weights_hash(directory: str | Path) -> str:
    """Hex sha256 over the bytes of the weight files in order of name; of one file, what `sha256sum` prints.

    Kept in memory by (path, mtime, size) of the files, since a base of many gigabytes is asked for in every phase.
    """
    files = weight_files(directory)
    stats = [(path, path.stat()) for path in files]
    key = tuple((str(path.resolve()), stat.st_mtime_ns, stat.st_size) for path, stat in stats)
    if key not in _hash_cache:
        digest = hashlib.sha256()
        for path in files:
            with path.open("rb") as file:
                while block := file.read(_CHUNK_BYTES):
                    digest.update(block)
        _hash_cache[key] = digest.hexdigest()
    return _hash_cache[key]


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A detached CPU copy of a tensor, gathered first if ZeRO-3 or FSDP2 splits it over ranks (then collective)."""
    if hasattr(tensor, "ds_id"):
        from deepspeed import zero  # Only a process that trains by ZeRO-3 has such tensors, and needs the import.

        with zero.GatheredParameters([tensor]):
            return tensor.detach().cpu().clone()
    if hasattr(tensor, "full_tensor"):
        return tensor.full_tensor().detach().cpu().clone()
    return tensor.detach().cpu().clone()


def tensors_hash(model: nn.Module, trainable_only: bool = False, names: Collection[str] | None = None) -> str:
    """Hex sha256 over name, dtype, shape and bytes of the live parameters, in order of name.

    For the assertions after a phase: the trained adapter's hash changed and no other's did. Collective if sharded.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if (trainable_only and not parameter.requires_grad) or (names is not None and name not in names):
            continue
        tensor = whole_tensor(parameter)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_lineage(directory: str | Path, lineage: Lineage) -> None:
    """Write `lineage.json` beside the weights; the directory itself is made whole by `atomic_directory`."""
    text = json.dumps(asdict(lineage), indent=2, sort_keys=True) + "\n"
    (Path(directory) / LINEAGE_FILE).write_text(text, encoding="utf-8")


def read_lineage(directory: str | Path) -> Lineage:
    """Read `lineage.json`.

    Raises:
        CheckpointError: the file is missing, is not JSON, or its fields are not those of `Lineage`.
    """
    path = Path(directory) / LINEAGE_FILE
    expected = {field.name for field in fields(Lineage)}
    remedy = "Point at a directory that save_policy wrote, or train the policy again."
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; expected the lineage of a policy. {remedy}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}). {remedy}") from error
    if not isinstance(record, dict) or set(record) != expected:
        found = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise CheckpointError(f"{path}: has {found}, expected the fields {sorted(expected)}. {remedy}")
    for name, value in record.items():
        if not isinstance(value, str) and not (name == "parent" and value is None):
            raise CheckpointError(f"{path}: field {name!r} is {value!r}, expected a string. {remedy}")
    return Lineage(**record)


def check_lineage(directory: str | Path, base_directory: str | Path) -> Lineage:
    """Compare a policy's lineage with the base it is to be loaded on and with its own weight files.

    Raises:
        CheckpointError: another base, or weight files that are not those which were written.
    """
    lineage = read_lineage(directory)
    base_hash = weights_hash(base_directory)
    if base_hash != lineage.base:
        raise CheckpointError(
            f"{directory}: was trained on a base with weights {lineage.base}, but the base {base_directory} has "
            f"{base_hash}. Load it on the base it was trained on, or train the policy again on this one."
        )
    own_hash = weights_hash(directory)
    if own_hash != lineage.sha256:
        raise CheckpointError(
            f"{directory}: weight files have hash {own_hash}, expected {lineage.sha256} by {LINEAGE_FILE}: they are "
            "damaged or were replaced. Restore them from a copy, or run the phase that wrote them again."
        )
    return lineage


@contextmanager
def atomic_directory(target: str | Path) -> Iterator[Path]:
    """Yield an empty sibling directory; when the block ends well, fsync its files and rename it to `target`.

    A directory that was at `target` is moved aside first and deleted last. After an error nothing is left behind.

    Raises:
        StorageError: the disk is full; what was at `target` is still there.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        with writing(target):
            yield work
            work.chmod(0o755)
            for path in [*work.rglob("*"), work]:
                fsync(path)
            if target.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
                target.rename(old / target.name)
                work.rename(target)
                shutil.rmtree(old)
            else:
                work.rename(target)
            fsync(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
