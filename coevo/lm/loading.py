"""Load bases and policies, and save policies with their lineage. Only safetensors, never code from the hub."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from coevo.errors import CheckpointError
from coevo.lm.check import check_tokenizer, check_weights, refuse_pointers
from coevo.lm.contexts import plain_local_modules, seeded
from coevo.lm.lineage import (
    ADAPTER_FILE,
    VALUE_HEAD_FILE,
    atomic_directory,
    check_lineage,
    read_lineage,
    weight_files,
    weights_hash,
    whole_tensor,
    write_lineage,
)
from coevo.lm.template import end_of_turn, give_arguments
from coevo.lm.value import add_value_head, belongs_to_head, read_value_head
from coevo.types import Lineage

ADAPTER = "default"
"""Name of every trained adapter: TRL's reference model is hard-wired to it, another name silently gives a wrong one."""
_HUB_FILES = ["*.json", "*.txt", "*.jinja", "*.model", "model*.safetensors"]


class LoraShape(Protocol):
    """What `new_adapter` reads."""

    @property
    def r(self) -> int:
        """Rank of the two factors."""

    @property
    def alpha(self) -> int:
        """The product of the factors is scaled by alpha / r."""

    @property
    def dropout(self) -> float:
        """Share of the adapter's inputs dropped in training."""

    @property
    def seed(self) -> int:
        """Of the first factor's initial weights; the second begins at zero."""


def local_directory(path: str | Path) -> Path:
    """The directory of a model: `path` itself if it is one, else the snapshot of the hub id, downloaded if needed.

    Raises:
        CheckpointError: neither a directory nor a repository that can be reached.
    """
    if Path(path).is_dir():
        return Path(path)
    try:
        return Path(snapshot_download(str(path), allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise CheckpointError(
            f"{path}: neither a local directory nor a model that the hub gives ({type(error).__name__}: {error}). "
            "Check the spelling, the network and the access token, or give a local directory."
        ) from error


def stored_directory(path: str | Path) -> Path | None:
    """As `local_directory`, but nothing is downloaded: None for a hub id whose weights are not on this machine."""
    if Path(path).is_dir():
        return Path(path)
    try:
        directory = Path(snapshot_download(str(path), allow_patterns=_HUB_FILES, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError):
        return None
    return directory if any(directory.glob("model*.safetensors")) else None


def load_tokenizer(path: str | Path, template: Mapping[str, Any] | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base (also that of every policy on it), with left padding.

    Its end-of-turn token is the one that its chat template writes after an answer, whatever the files call `eos_token`.
    A tokenizer without a pad token pads with its end token; coevo masks by length, so the two are never confused. One that
    adds special tokens to whatever it reads is told not to.

    Args:
        path: of the base.
        template: further arguments of its chat template, given at each rendering.

    Raises:
        ConfigError: an argument that the chat template does not read.
        CheckpointError: it cannot be loaded, has no chat template or no end-of-turn token, or gives ids that its model has
            no embedding for.
    """
    directory = local_directory(path)
    refuse_pointers(directory)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, padding_side="left")
    except Exception as error:  # of a damaged file, tokenizers raises no narrower one
        raise CheckpointError(f"{path}: no tokenizer can be loaded ({error}). Give a complete model directory.") from error
    refuse_no_words(path, tokenizer)
    for name in ("chat_template", "eos_token"):
        if getattr(tokenizer, name) is None:
            raise CheckpointError(f"{path}: the tokenizer has no {name}. Use a chat model, or set it in the base's files.")
    if isinstance(tokenizer.chat_template, dict):
        if "default" not in tokenizer.chat_template:
            raise CheckpointError(
                f"{path}: the tokenizer has the chat templates {', '.join(sorted(tokenizer.chat_template))} and none "
                "is named default; name the one to use so, in tokenizer_config.json or as chat_template.jinja."
            )
        tokenizer.chat_template = tokenizer.chat_template["default"]
    give_arguments(tokenizer, template or {})
    tokenizer.eos_token = end_of_turn(tokenizer) or tokenizer.eos_token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer("")["input_ids"]:
        # the chat template writes them all: Llama's would put a second <|begin_of_text|> before every rendered prompt
        for name in ("add_bos_token", "add_eos_token"):
            setattr(tokenizer, name, False)
    if (directory / "config.json").is_file():
        check_tokenizer(directory, tokenizer)
    return tokenizer


def refuse_no_words(path: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses the empty tokenizer that transformers makes up where a folder holds none.

    Raises:
        CheckpointError: its vocabulary has special tokens alone.
    """
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise CheckpointError(
            f"{path}: its tokenizer has no words; expected a tokenizer's files (tokenizer.json, or tokenizer.model and "
            "tokenizer_config.json) beside the weights. Give a complete model directory."
        )


def load_base(
    path: str | Path, *, dtype: str | torch.dtype = "auto", attn: str | None = None, local: bool = False
) -> PreTrainedModel:
    """Load full weights from a hub id or a directory.

    Args:
        path: hub id or local directory with safetensors weights.
        dtype: a torch dtype or its name; `auto` is the one the weights are stored in.
        attn: attention implementation (`sdpa`, `eager`, `flash_attention_2`); None leaves it to transformers.
        local: keep the model whole on this rank although ZeRO-3 is configured; else it is partitioned while loading.

    Raises:
        CheckpointError: no such model, no safetensors weights in it, or weights that are not whole; see `check_weights`.
    """
    if local:
        with plain_local_modules():
            return load_base(path, dtype=dtype, attn=attn)
    directory = local_directory(path)
    check_weights(directory)
    try:
        return AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, attn_implementation=attn, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be loaded as a causal model from safetensors ({error}).") from error


def stored_dtype(path: str | Path) -> torch.dtype:
    """The dtype that `auto` loads a base in: what its config names, else that of its first weights.

    Raises:
        CheckpointError: no such model, or no weights in it.
    """
    directory = local_directory(path)
    named = AutoConfig.from_pretrained(directory, trust_remote_code=False).dtype
    if named is not None:
        return named if isinstance(named, torch.dtype) else getattr(torch, named)
    with safe_open(weight_files(directory)[0], framework="pt") as file:
        dtypes = (file.get_tensor(name).dtype for name in file.keys())  # noqa: SIM118  # no dict
        return next((dtype for dtype in dtypes if dtype.is_floating_point), torch.float32)


def new_adapter(model: PreTrainedModel, lora: LoraShape) -> PeftModel:
    """Put a fresh trainable LoRA adapter named `default` on all linear layers except the output head.

    Its weights depend on `lora.seed` alone; the second factor is zero, so the policy begins as its base.

    Raises:
        CheckpointError: the architecture has no layers that an adapter can be put on.
    """
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    try:
        with seeded(lora.seed):
            return get_peft_model(model, config, adapter_name=ADAPTER)
    except (ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{model.config.name_or_path or type(model).__name__}: no adapter can be put on all linear layers of a "
            f"{model.config.model_type} ({error}). Train all weights (lora: null), or take another base."
        ) from error


def load_policy(
    base_path: str | Path,
    policy_dir: str | Path | None,
    *,
    trainable: bool,
    dtype: str | torch.dtype = "auto",
    attn: str | None = None,
) -> PreTrainedModel | PeftModel:
    """Load a policy: an adapter on its base, full weights, or (None) the base itself.

    Trainable: an adapter comes back as a PeftModel whose `default` adapter alone has gradients; a value head that was saved
    with the policy is put on, frozen, for the trainer that wants it. Frozen: a plain local model in evaluation mode, without
    gradients or value head and with the adapter merged (in the base's dtype), so that neither PEFT's active-adapter state
    nor ZeRO-3 can matter.

    Raises:
        CheckpointError: lineage and base, or lineage and weight files, do not fit; found before weights are loaded.
    """
    if not trainable:
        with plain_local_modules():
            frozen = _load_checked(base_path, policy_dir, False, dtype, attn)
        model = frozen.merge_and_unload() if isinstance(frozen, PeftModel) else frozen
        return model.eval().requires_grad_(False)
    model = _load_checked(base_path, policy_dir, True, dtype, attn)
    head = read_value_head(policy_dir) if policy_dir is not None else None
    if head is not None:
        add_value_head(model, head)
    return model


def _load_checked(
    base_path: str | Path, policy_dir: str | Path | None, trainable: bool, dtype: str | torch.dtype, attn: str | None
) -> PreTrainedModel | PeftModel:
    if policy_dir is None:
        return load_base(base_path, dtype=dtype, attn=attn)
    base_directory = local_directory(base_path)
    check_lineage(policy_dir, base_directory)
    if not (Path(policy_dir) / ADAPTER_FILE).is_file():
        return load_base(policy_dir, dtype=dtype, attn=attn)
    base = load_base(base_directory, dtype=dtype, attn=attn)
    try:
        return PeftModel.from_pretrained(base, policy_dir, adapter_name=ADAPTER, is_trainable=trainable)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{policy_dir}: adapter cannot be put on {base_path} ({error}).") from error


def save_policy(
    model: PreTrainedModel | PeftModel,
    directory: str | Path,
    *,
    role: str,
    base_hash: str,
    parent_hash: str | None,
    phase: str,
    base_settings: str | None = None,
    prompts: str = "",
) -> Lineage:
    """Write a policy and its lineage as one directory that appears whole or not at all.

    A PeftModel is saved as its `default` adapter, any other model as full weights, and a value head in a file of its own
    beside them, so that the weights load as any other's. In a distributed run every rank calls it (sharded weights are
    gathered), rank 0 writes, and all return when the directory is there; it must be on a file system that all ranks share.
    `model` is the unwrapped model, not a DDP or DeepSpeed wrapper.

    Args:
        model: the trained model.
        directory: where to; a policy that was there is replaced.
        role: rpm, scorer, simulator, ...
        base_hash: `weights_hash` of the base.
        parent_hash: `weights_hash` of the policy that training began from; None if it began from the base.
        phase: name of the phase that trained it.
        base_settings: `settings_hash` of the base; None leaves it out of what is checked when the policy is loaded.
        prompts: stamp of the prompts that it was taught to read; empty for the short ones.
    """

    def add_lineage(work: Path) -> None:
        write_lineage(work, Lineage(role, base_hash, parent_hash, weights_hash(work), phase, base_settings, prompts or None))

    _save(model, directory, add_lineage)
    return read_lineage(directory)


def save_full(model: PreTrainedModel, directory: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a whole model with its tokenizer, as a folder that any tool can load; every rank calls it."""
    _save(model, directory, tokenizer.save_pretrained)


def _save(model: PreTrainedModel | PeftModel, directory: str | Path, add: Callable[[Path], object]) -> None:
    """Gather on all ranks, write on rank 0, and let `add` put its files beside the weights before the folder appears."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    writes = not distributed or torch.distributed.get_rank() == 0
    weights = _whole_weights(model, keep=writes)
    if writes:
        with atomic_directory(directory) as work:
            _write_weights(model, weights, work)
            add(work)
    if distributed:
        torch.distributed.barrier()


def _whole_weights(model: PreTrainedModel | PeftModel, keep: bool) -> dict[str, torch.Tensor]:
    """Name -> full CPU tensor of what is to be saved; empty where not kept. Tied tensors stay one tensor."""
    adapter_only = isinstance(model, PeftModel)
    if adapter_only and ADAPTER not in model.peft_config:
        raise CheckpointError(f"the model has adapters {sorted(model.peft_config)}, expected one named {ADAPTER!r}.")
    whole: dict[int, torch.Tensor] = {}
    weights = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if adapter_only and f".{ADAPTER}" not in name and not belongs_to_head(name):
            continue
        if id(tensor) not in whole:
            copy = whole_tensor(tensor)  # Collective when sharded: every rank takes part, whether it keeps or not.
            whole[id(tensor)] = copy if keep else torch.empty(0)
        if keep:
            weights[name] = whole[id(tensor)]
    return weights


@contextmanager
def _end_tokens_alone(model: PreTrainedModel) -> Iterator[None]:
    """Keeps of the base's sampling defaults what ends a text: the recipe sampled without the others, which transformers
    refuses to write where they contradict each other, as in many a base's generation_config.json they do."""
    inherited = model.generation_config
    if inherited is not None:
        tokens = ("bos_token_id", "eos_token_id", "pad_token_id")
        model.generation_config = GenerationConfig(**{name: getattr(inherited, name) for name in tokens})
    try:
        yield
    finally:
        model.generation_config = inherited


def _write_weights(model: PreTrainedModel | PeftModel, weights: dict[str, torch.Tensor], work: Path) -> None:
    head = {name.rsplit(".", 1)[1]: weights.pop(name).contiguous() for name in list(weights) if belongs_to_head(name)}
    if head:
        save_file(dict(sorted(head.items())), work / VALUE_HEAD_FILE, {"format": "pt"})
    if not isinstance(model, PeftModel):
        with plain_local_modules(), _end_tokens_alone(model):
            model.save_pretrained(work, state_dict=weights)
        return
    # save_embedding_layers=False: "auto" would ask the hub whether the base's vocabulary has changed.
    state = get_peft_model_state_dict(model, state_dict=weights, adapter_name=ADAPTER, save_embedding_layers=False)
    save_file({name: t.contiguous() for name, t in sorted(state.items())}, work / ADAPTER_FILE, {"format": "pt"})
    config = copy.copy(model.peft_config[ADAPTER])
    config.inference_mode = True
    for name, value in vars(config).items():
        if isinstance(value, set):
            # PEFT would write it in the order of this process's hash seed
            setattr(config, name, sorted(value))
    config.save_pretrained(str(work))
