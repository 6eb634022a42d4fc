"""Content hashes of weights, and the lineage record that keeps them from being loaded on the wrong base."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
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
SETTINGS_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template.*",
    "additional_chat_templates/*.jinja",
)
"""Files of a base that decide, beside its weights, what a text's numbers are."""
_CHUNK_BYTES = 1 << 22
FileKey = tuple[tuple[str, int, int], ...]
_hash_cache: dict[FileKey, str] = {}


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
    return _files_hash(weight_files(directory), named=False)


def settings_files(directory: str | Path) -> list[Path]:
    """The base's files of SETTINGS_FILES that are there, sorted by name: configuration, tokenizer, chat templates."""
    folder = Path(directory)
    return sorted({path for pattern in SETTINGS_FILES for path in folder.glob(pattern) if path.is_file()})


def settings_hash(directory: str | Path) -> str:
    """Hex sha256 over names and bytes of a base's configuration, tokenizer and chat templates.

    With `weights_hash` it is the base's identity: the same weights give other likelihoods by another chat template.
    """
    return _files_hash(settings_files(directory), named=True)


def identity(weights: str | Path, base: str | Path, prompts: str = "") -> str:
    """What likelihoods and texts of a policy depend on, hashed: weights, how its base makes tokens of text, prompts.

    Args:
        weights: directory of the policy, or of the base itself.
        base: directory of its base.
        prompts: stamp of the prompts that it reads; empty for the short ones.
    """
    parts = [weights_hash(weights), settings_hash(base), prompts]
    return hashlib.sha256(" ".join(filter(None, parts)).encode()).hexdigest()


def file_key(files: Sequence[Path]) -> FileKey:
    """Where files are, when they were written, and how large they are: equal as long as nobody writes to them."""
    return tuple((str(path.resolve()), (stat := path.stat()).st_mtime_ns, stat.st_size) for path in files)


def _files_hash(files: Sequence[Path], named: bool) -> str:
    key = (*file_key(files), (str(named), 0, 0))
    if key not in _hash_cache:
        digest = hashlib.sha256()
        for path in files:
            if named:
                digest.update(f"{path.name} {path.stat().st_size}\n".encode())
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
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}). {remedy}") from error
    # a record of an earlier version does not say what the base's settings and the prompts were
    if not isinstance(record, dict) or {*record, "settings", "prompts"} != expected:
        found = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise CheckpointError(f"{path}: has {found}, expected the fields {sorted(expected)}. {remedy}")
    for name, value in record.items():
        if not isinstance(value, str) and not (name in ("parent", "settings", "prompts") and value is None):
            raise CheckpointError(f"{path}: field {name!r} is {value!r}, expected a string. {remedy}")
    return Lineage(**record)


def check_lineage(directory: str | Path, base_directory: str | Path) -> Lineage:
    """Compare a policy's lineage with the base it is to be loaded on and with its own weight files.

    Raises:
        CheckpointError: another base, the same with other settings, or weight files that are not those which were written.
    """
    lineage = read_lineage(directory)
    base_hash = weights_hash(base_directory)
    if base_hash != lineage.base:
        raise CheckpointError(
            f"{directory}: was trained on a base with weights {lineage.base}, but the base {base_directory} has "
            f"{base_hash}. Load it on the base it was trained on, or train the policy again on this one."
        )
    if lineage.settings not in (None, settings_hash(base_directory)):
        names = ", ".join(path.name for path in settings_files(base_directory))
        raise CheckpointError(
            f"{directory}: was trained on the base {base_directory} when one of its files was another ({names}): its "
            "configuration, tokenizer or chat template has been edited since. Restore the file, or train the policy again."
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
