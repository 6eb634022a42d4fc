"""Whether a folder holds a whole base that fits: read off configuration, tokenizer and headers, before any weights are.

transformers fills a tensor that it does not find with random numbers, and only warns of it. So the tensors' names and shapes
go through its own loading code first, without their values; that takes a fraction of a second for a base of any size.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from coevo.errors import CheckpointError
from coevo.lm.contexts import plain_local_modules, seeded
from coevo.lm.lineage import file_key, settings_files, weight_files

INDEX_FILE = "model.safetensors.index.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "BOOL": torch.bool,
    "U8": torch.uint8,
}
_POINTER = b"version https://git-lfs.github.com/spec/"
_OLD_BUFFERS = re.compile(r"\.(attn|attention)\.(bias|masked_bias)$|\.rotary_emb\.inv_freq$")
"""Constants that older checkpoints carry and that a model computes itself."""
_WRAPPERS = {
    "_orig_mod.": "torch.compile puts it there",
    "base_model.model.": "PEFT puts it there",
    "_fsdp_wrapped_module.": "FSDP puts it there",
    "module.": "DataParallel and DeepSpeed put it there",
}
_checked: set[Any] = set()


def check_weights(directory: Path) -> None:
    """Refuses a folder whose weights are not those that its configuration asks for, tensor by tensor.

    A folder that has passed is not looked at again by this process unless a file of it has changed.

    Raises:
        CheckpointError: an adapter's files, Git-LFS pointers, a damaged, missing or quantised weight file, a tensor that is
            missing, unexpected or of another shape, or a configuration of no causal model.
    """
    if not (directory / "config.json").is_file():
        raise CheckpointError(
            f"{directory}: cannot be loaded as a causal model: config.json is missing. Give a complete model directory."
        )
    _refuse_adapters(directory)
    refuse_pointers(directory)
    key = file_key([*settings_files(directory), *directory.glob(INDEX_FILE), *weight_files(directory)])
    if key not in _checked:
        skeleton(directory)
        _checked.add(key)


def skeleton(directory: Path) -> PreTrainedModel:
    """The model without its weights' values, on the meta device, its tensors' names and shapes compared with the files'.

    Raises:
        CheckpointError: as `check_weights`.
    """
    config = read_config(directory)
    tensors = _headers(directory)
    try:
        # not partitioned where ZeRO-3 is configured, and without a draw from the outer random state
        with _quiet(), plain_local_modules(), seeded(0):
            with torch.device("meta"):
                empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            model, report = type(empty).from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise CheckpointError(
            f"{directory}: cannot be loaded as a causal model ({type(error).__name__}: {_short(error)}). Check config.json, "
            "and whether transformers knows this architecture without code from the hub."
        ) from error
    _refuse_strangers(directory, report)
    return model


def read_config(directory: Path) -> PreTrainedConfig:
    """The model's configuration.

    Raises:
        CheckpointError: it is not there or cannot be read, is of quantised weights, or names ids beyond the embeddings.
    """
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(
            f"{directory}: cannot be loaded as a causal model: config.json is not readable ({_short(error)}). Give a "
            "complete model directory."
        ) from error
    for name in ("quantization_config", "compression_config"):
        found = getattr(config, name, None) or getattr(config.get_text_config(), name, None)
        if found:
            found = found if isinstance(found, dict) else vars(found)
            raise CheckpointError(
                f"{directory}: the weights are quantised ({name} in config.json: {found.get('quant_method', found)}). coevo "
                "trains and scores with the weights as they are; give the unquantised model, or dequantise it and save it."
            )
    rows = config.get_text_config().vocab_size
    for name in ("pad_token_id", "eos_token_id"):
        value = getattr(config.get_text_config(), name, None)
        beyond = [x for x in (value if isinstance(value, list) else [value]) if x is not None and x >= rows]
        if beyond:
            raise CheckpointError(
                f"{directory}/config.json: {name} is {beyond[0]}, and the embeddings have {rows} rows (0 to {rows - 1}). "
                "Set the id of a token that the model has, or save it with resized embeddings."
            )
    return config


def refuse_pointers(directory: Path) -> None:
    """Refuses files that Git wrote in place of their content.

    Raises:
        CheckpointError: names the first.
    """
    for path in [*settings_files(directory), *sorted(directory.glob("model*.safetensors"))]:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise CheckpointError(
                    f"{path}: is a Git-LFS pointer, not the file itself. Run `git lfs pull` in that folder, or download the "
                    "model with `hf download`."
                )


def check_tokenizer(directory: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a tokenizer that gives ids which the model has no embedding for.

    A special token beyond the embeddings that neither pads nor ends nor is in the chat template does no harm: data never
    give it, as their look-alikes are broken.

    Raises:
        CheckpointError: names tokens and ids.
    """
    rows = read_config(directory).get_text_config().vocab_size
    named = {name: getattr(tokenizer, f"{name}_token_id") for name in ("pad", "eos", "bos")}
    beyond = [f"{name} token {tokenizer.convert_ids_to_tokens(i)!r} ({i})" for name, i in named.items() if i and i >= rows]
    if not beyond and len(tokenizer) > rows:
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        template = str(tokenizer.chat_template)
        beyond = [
            f"token {token!r} ({i})"
            for token, i in tokenizer.get_vocab().items()
            if i >= rows and (i not in special or token in template)
        ]
    if beyond:
        raise CheckpointError(
            f"{directory}: the tokenizer's {', '.join(beyond[:3])}{' …' if len(beyond) > 3 else ''}: beyond the model's "
            f"embeddings, which have {rows} rows (0 to {rows - 1}). Give the tokenizer that belongs to these weights, or "
            "save the model with embeddings that were resized to it."
        )


def check_positions(directory: Path, longest: int) -> None:
    """Refuses limits beyond the positions that a model has, or was made for.

    Args:
        directory: the base.
        longest: tokens of the longest prompt with its text.

    Raises:
        CheckpointError: names both numbers.
    """
    positions = _positions(read_config(directory))
    if positions is not None and longest > positions:
        raise CheckpointError(
            f"{directory}: the model has {positions} positions (max_position_embeddings in config.json), and by the "
            f"recipe's limits a prompt with its text has up to {longest} tokens. Lower limits.prompt, limits.response, "
            "limits.turn or limits.reasoning, or take a base with a longer context."
        )


def _positions(config: PreTrainedConfig) -> int | None:
    """Tokens that the model can tell apart; None where nothing bounds them."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    if not isinstance(positions, int):
        return None
    rope = getattr(text, "rope_parameters", None) or {}
    # of each sort of layer, where there are several
    for one in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        if one.get("rope_type") in ("yarn", "dynamic"):
            first = one.get("original_max_position_embeddings") or positions
            positions = max(positions, int(first * one.get("factor", 1)))
    return positions


def _refuse_adapters(directory: Path) -> None:
    found = [name for name in ADAPTER_FILES if (directory / name).exists()]
    if not found:
        return
    if any(directory.glob("model*.safetensors")):
        remedy = (
            "If the adapter is merged into the weights, delete its files from that folder; else merge it "
            "(PEFT: merge_and_unload, then save_pretrained) and give the merged model."
        )
    else:
        remedy = "Merge it into its base (PEFT: merge_and_unload, then save_pretrained) and give the merged model."
    raise CheckpointError(
        f"{directory}: holds an adapter ({', '.join(found)}), which is no base: coevo puts its own adapter in its place, "
        f"and what it had learnt would be lost. {remedy}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' report and progress from the terminal: what they say is in the error, or is nothing."""
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()


def _headers(directory: Path) -> dict[str, torch.Tensor]:
    """Name -> tensor without values, of all weight files that loading would read."""
    tensors = {}
    for path in _loaded_files(directory):
        try:
            with safe_open(path, "pt") as file:
                shapes = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                found = {name: (one.get_dtype(), one.get_shape()) for name, one in shapes.items()}
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path}: cannot be read as safetensors ({error}): it is damaged or cut short. Copy or download it again."
            ) from error
        for name, (dtype, shape) in found.items():
            plain = dtype in _DTYPES and (dtype[0] in "FB" or not name.endswith(".weight"))
            if not plain:
                raise CheckpointError(
                    f"{path}: tensor {name} is stored as {dtype}, expected floating-point numbers of 16 bits or more: the "
                    "weights are quantised. Give the unquantised model."
                )
            tensors[name] = torch.empty(shape, dtype=_DTYPES[dtype], device="meta")
    return tensors


def _loaded_files(directory: Path) -> list[Path]:
    """The files that transformers reads: one, or those that an index names."""
    index = directory / INDEX_FILE
    if (directory / "model.safetensors").is_file() or not index.is_file():
        _refuse_two_copies(directory, index)
        files = [path for path in weight_files(directory) if path.name == "model.safetensors"]
        if not files:
            names = ", ".join(path.name for path in weight_files(directory)[:3])
            raise CheckpointError(
                f"{directory}: has {names}, but neither model.safetensors nor {INDEX_FILE}, which says what is in which "
                "file. Copy or download the index too."
            )
        return files
    named = _named_by(index)
    missing = [name for name in named if not (directory / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{directory}: {len(missing)} of the {len(named)} weight files that {INDEX_FILE} names are missing: "
            f"{', '.join(missing[:3])}. Copy or download them too."
        )
    return [directory / name for name in named]


def _refuse_two_copies(directory: Path, index: Path) -> None:
    """Where one file and shards are there, the one is read, and the shards may be what the folder was saved with last."""
    whole = directory / "model.safetensors"
    if not whole.is_file() or not index.is_file():
        return
    shards = [name for name in _named_by(index) if name != whole.name and (directory / name).is_file()]
    if shards:
        raise CheckpointError(
            f"{directory}: has the weights twice, as {whole.name} and as {len(shards)} files that {INDEX_FILE} names "
            f"({shards[0]}, …), and one of the two is left over from before. Delete the one that is not to be used: "
            f"{whole.name}, or {INDEX_FILE} with its files."
        )


def _named_by(index: Path) -> list[str]:
    """Names of the files that an index sends to."""
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of weight files ({error}). Copy or download it again.") from error


def _refuse_strangers(directory: Path, report: dict[str, Any]) -> None:
    """Refuses tensors by transformers' loading report."""
    missing = set(report["missing_keys"])
    unexpected = {name for name in report["unexpected_keys"] if not _OLD_BUFFERS.search(name)}
    mismatched = sorted(report["mismatched_keys"])
    if missing or unexpected:
        counted = [
            f"{len(names)} tensor(s) {what} ({_some(names)})"
            for names, what in ((missing, "missing"), (unexpected, "that the model does not have"))
            if names
        ]
        raise CheckpointError(
            f"{directory}: the weights are not those of the model in config.json: {' and '.join(counted)}. "
            f"{_cause(missing, unexpected)}"
        )
    if mismatched:
        name, stored, wanted = mismatched[0]
        raise CheckpointError(
            f"{directory}: {len(mismatched)} tensor(s) have another shape than config.json asks for: {name} is "
            f"{tuple(stored)}, expected {tuple(wanted)}. Give the configuration that belongs to these weights."
        )


def _cause(missing: Collection[str], unexpected: Collection[str]) -> str:
    """What most likely happened, and what to do."""
    before = _prefix(missing, unexpected)
    if before:
        reason = next((f" ({why})" for part, why in _WRAPPERS.items() if part in before), "")
        return (
            f"Their names begin with {before!r}{reason}: save the model again from inside its wrapper, or take the prefix "
            "off the names."
        )
    if not unexpected and all("lm_head" in name or "embed_out" in name for name in missing):
        return (
            "The output head is not there: set tie_word_embeddings to true in config.json if it is the input embeddings, "
            "else save the model again with its head."
        )
    if not missing:
        return "Save the model again without them, or give the configuration that has them."
    return "Give the configuration that belongs to these weights, or a whole copy of the model."


def _prefix(missing: Collection[str], unexpected: Collection[str]) -> str:
    """What stands before the names of tensors that are otherwise those that are missing; nothing if that is not so."""
    wanted, found = set(missing), Counter[str]()
    for name in unexpected:
        parts = name.split(".")
        rest = next((start for start in range(1, len(parts)) if ".".join(parts[start:]) in wanted), None)
        if rest is not None:
            found[".".join(parts[:rest]) + "."] += 1
    return found.most_common(1)[0][0] if found else ""


def _some(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return f"{shown}, …" if len(names) > 3 else shown


def _short(error: Exception) -> str:
    """The beginning of what a library says, which may go on to list all architectures."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]} …"
