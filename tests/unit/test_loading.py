"""Loading and saving: adapters, full weights, lineage, hashes, and side models while ZeRO-3 is configured."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer, GenerationConfig, Qwen3ForCausalLM
from transformers.integrations import deepspeed as hf_deepspeed

from coevo.errors import CheckpointError
from coevo.lm.lineage import atomic_directory, check_lineage, read_lineage, tensors_hash, weights_hash
from coevo.lm.loading import load_base, load_policy, load_tokenizer, new_adapter, save_policy
from coevo.lm.small import build_base, save_base, train_tokenizer
from coevo.lm.value import add_value_head, value_head

TOKENIZER = train_tokenizer(["Good evening, I am Ada Lovelace."] * 10, 290)
TINY = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 64, "max_position": 64}
LORA = SimpleNamespace(r=4, alpha=8, dropout=0.0, seed=0)
IDS = torch.arange(5, 25).unsqueeze(0)


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model") / "base"
    save_base(directory, build_base(TOKENIZER, TINY, seed=1), TOKENIZER)
    return directory


@pytest.fixture
def adapter(base_dir):
    """An adapter with weights as after training: both factors non-zero."""
    model = new_adapter(load_base(base_dir), LORA)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model


def save(model, directory, base_dir, parent=None):
    return save_policy(model, directory, role="rpm", base_hash=weights_hash(base_dir), parent_hash=parent, phase="03-sft")


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_a_new_adapter_is_called_default_and_begins_as_its_base(base_dir):
    model = new_adapter(load_base(base_dir), LORA)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    # 2 layers x 7 linear maps (q, k, v, o, gate, up, down) x 2 factors; the tied output head is left alone
    assert len(trained) == 2 * 7 * 2
    assert all(".default." in name for name in trained)
    assert torch.equal(logits(model), logits(load_base(base_dir)))


def test_a_new_adapter_is_a_function_of_its_seed(base_dir):
    before = torch.random.get_rng_state()
    seeds = (0, 0, 1)
    first, second, other = (
        tensors_hash(new_adapter(load_base(base_dir), SimpleNamespace(r=4, alpha=8, dropout=0.0, seed=s))) for s in seeds
    )
    assert first == second != other
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_adapter_survives_saving_frozen_and_trainable(adapter, base_dir, tmp_path):
    save(adapter, tmp_path / "rpm", base_dir)
    assert {p.name for p in (tmp_path / "rpm").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "lineage.json",
    }
    trainable = load_policy(base_dir, tmp_path / "rpm", trainable=True)
    assert isinstance(trainable, PeftModel)
    assert tensors_hash(trainable, trainable_only=True) == tensors_hash(adapter, trainable_only=True)
    assert all(".default." in name for name, p in trainable.named_parameters() if p.requires_grad)
    assert torch.equal(logits(trainable), logits(adapter))
    frozen = load_policy(base_dir, tmp_path / "rpm", trainable=False)
    assert type(frozen) is Qwen3ForCausalLM
    assert not frozen.training and not any(p.requires_grad for p in frozen.parameters())
    assert torch.allclose(logits(frozen), logits(adapter), atol=1e-5)
    assert not torch.allclose(logits(frozen), logits(load_base(base_dir)), atol=1e-2)


def test_saving_leaves_the_adapter_trainable(adapter, base_dir, tmp_path):
    before = tensors_hash(adapter)
    save(adapter, tmp_path / "rpm", base_dir)
    assert tensors_hash(adapter) == before
    assert adapter.peft_config["default"].inference_mode is False
    assert any(p.requires_grad for p in adapter.parameters())


def test_an_adapters_files_do_not_depend_on_the_hash_seed(adapter, base_dir, tmp_path):
    # PEFT holds the target modules as a set, whose order is another in each process
    save(adapter, tmp_path / "rpm", base_dir)
    modules = json.loads((tmp_path / "rpm" / "adapter_config.json").read_text())["target_modules"]
    assert modules == sorted(modules) and len(modules) == 14, "7 in each of 2 layers"
    assert isinstance(adapter.peft_config["default"].target_modules, set)


def test_full_weights_survive_saving(base_dir, tmp_path):
    model = build_base(TOKENIZER, TINY, seed=7)
    lineage = save(model, tmp_path / "rpm", base_dir, parent="p" * 64)
    assert (lineage.role, lineage.base, lineage.parent) == ("rpm", weights_hash(base_dir), "p" * 64)
    trainable = load_policy(base_dir, tmp_path / "rpm", trainable=True)
    frozen = load_policy(base_dir, tmp_path / "rpm", trainable=False)
    assert tensors_hash(trainable) == tensors_hash(frozen) == tensors_hash(model)
    assert all(p.requires_grad for p in trainable.parameters())
    assert not any(p.requires_grad for p in frozen.parameters())
    tied = trainable.get_output_embeddings().weight is trainable.get_input_embeddings().weight
    assert tied


def test_full_weights_are_saved_whatever_the_base_says_of_sampling(base_dir, tmp_path):
    model = load_base(base_dir)
    # as in many a base's file: transformers refuses to write it, since nothing in it samples
    model.generation_config = asked = GenerationConfig(eos_token_id=[1, 7], min_p=0.9, temperature=0.6)
    save(model, tmp_path / "rpm", base_dir)
    written = load_policy(base_dir, tmp_path / "rpm", trainable=False).generation_config
    assert (written.eos_token_id, written.min_p, written.temperature) == ([1, 7], None, None)
    assert model.generation_config is asked


@pytest.mark.parametrize("full", [False, True])
def test_a_value_head_travels_beside_the_weights(full, adapter, base_dir, tmp_path):
    model = build_base(TOKENIZER, TINY, seed=7) if full else adapter
    without = save(model, tmp_path / "without", base_dir)
    head = add_value_head(model)
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(0))
        head.scale.fill_(3.0)
    lineage = save(model, tmp_path / "rpm", base_dir)
    weights = "model.safetensors" if full else "adapter_model.safetensors"
    # the weights are the same file, and the policy's hash sees the head
    assert (tmp_path / "rpm" / weights).read_bytes() == (tmp_path / "without" / weights).read_bytes()
    assert lineage.sha256 != without.sha256
    loaded = load_policy(base_dir, tmp_path / "rpm", trainable=True)
    found = value_head(loaded)
    assert torch.equal(found.weight, head.weight) and found.scale == 3.0
    assert not any(p.requires_grad for p in found.parameters()), "only the trainer that wants it lets it learn"
    assert value_head(load_policy(base_dir, tmp_path / "rpm", trainable=False)) is None
    assert value_head(load_policy(base_dir, tmp_path / "without", trainable=True)) is None
    (tmp_path / "rpm" / "value_head.safetensors").unlink()
    with pytest.raises(CheckpointError, match="damaged or were replaced"):
        load_policy(base_dir, tmp_path / "rpm", trainable=True)


def test_no_policy_means_the_base(base_dir):
    frozen = load_policy(base_dir, None, trainable=False)
    assert tensors_hash(frozen) == tensors_hash(load_base(base_dir))
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in load_policy(base_dir, None, trainable=True).parameters())


def test_dtype_is_as_asked(base_dir):
    assert load_base(base_dir).dtype == torch.float32  # auto: as stored
    assert load_base(base_dir, dtype="bfloat16", attn="eager").dtype == torch.bfloat16
    assert load_base(base_dir, attn="eager").config._attn_implementation == "eager"


def test_weights_hash_is_what_sha256sum_prints_and_sees_a_change(base_dir, tmp_path):
    expected = hashlib.sha256((base_dir / "model.safetensors").read_bytes()).hexdigest()
    assert weights_hash(base_dir) == expected
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(b"a")
    first = weights_hash(tmp_path)
    copy.write_bytes(b"ab")
    assert first == hashlib.sha256(b"a").hexdigest() != weights_hash(tmp_path)


def test_tensors_hash_tells_trained_from_frozen(adapter):
    everything, trained = tensors_hash(adapter), tensors_hash(adapter, trainable_only=True)
    with torch.no_grad():
        adapter.get_base_model().model.norm.weight.add_(1)
    assert tensors_hash(adapter, trainable_only=True) == trained
    assert tensors_hash(adapter) != everything


def test_lineage_names_base_parent_and_weights(adapter, base_dir, tmp_path):
    lineage = save(adapter, tmp_path / "rpm", base_dir)
    assert lineage == read_lineage(tmp_path / "rpm") == check_lineage(tmp_path / "rpm", base_dir)
    assert lineage.sha256 == weights_hash(tmp_path / "rpm")
    assert (lineage.base, lineage.parent, lineage.phase) == (weights_hash(base_dir), None, "03-sft")


def test_another_base_is_refused_before_weights_are_loaded(adapter, base_dir, tmp_path, monkeypatch):
    save(adapter, tmp_path / "rpm", base_dir)
    save_base(tmp_path / "other", build_base(TOKENIZER, TINY, seed=2), TOKENIZER)
    monkeypatch.setattr("coevo.lm.loading.AutoModelForCausalLM", None)  # any attempt to load would fail otherwise
    with pytest.raises(CheckpointError) as error:
        load_policy(tmp_path / "other", tmp_path / "rpm", trainable=False)
    assert weights_hash(base_dir) in str(error.value)
    assert weights_hash(tmp_path / "other") in str(error.value)
    assert "Load it on the base it was trained on" in str(error.value)


def test_a_damaged_weight_file_is_refused(adapter, base_dir, tmp_path):
    save(adapter, tmp_path / "rpm", base_dir)
    path = tmp_path / "rpm" / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged or were replaced"):
        load_policy(base_dir, tmp_path / "rpm", trainable=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "not valid JSON"),
        ("[]", "has list, expected the fields"),
        ('{"role": "rpm"}', r"has \['role'\], expected the fields"),
        (json.dumps(dict.fromkeys(("role", "base", "parent", "sha256", "phase"))), "field 'role' is None"),
    ],
)
def test_a_broken_lineage_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "lineage.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_lineage(tmp_path)


def test_missing_models_are_named(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="no weights found"):
        weights_hash(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_base(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="no weights found"):  # pickled weights are not even looked at
        weights_hash(tmp_path)
    with pytest.raises(CheckpointError, match="neither a local directory nor a model"):
        load_base(tmp_path / "missing")


def test_a_tokenizer_without_chat_template_is_refused(tmp_path):
    tokenizer = train_tokenizer(["x"], 261)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="has no chat_template"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_adds_special_tokens_is_told_not_to(tmp_path):
    # as Llama 3's: its file has a post-processor that writes the first token, and so has its chat template
    save_base(tmp_path / "base", build_base(TOKENIZER, TINY, seed=1), TOKENIZER)
    first = TOKENIZER.convert_ids_to_tokens(0)
    file = tmp_path / "base" / "tokenizer.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    own = [{"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    tokens = {first: {"id": first, "ids": [0], "tokens": [first]}}
    tree["post_processor"] = {"type": "TemplateProcessing", "single": own, "pair": own, "special_tokens": tokens}
    file.write_text(json.dumps(tree), encoding="utf-8")
    assert AutoTokenizer.from_pretrained(tmp_path / "base")("Ada")["input_ids"][0] == 0
    loaded = load_tokenizer(tmp_path / "base")
    assert (
        loaded("Ada")["input_ids"] == loaded("Ada", add_special_tokens=False)["input_ids"] == TOKENIZER("Ada")["input_ids"]
    )


def test_a_failed_write_leaves_the_old_directory_and_no_rubbish(tmp_path):
    target = tmp_path / "rpm"
    with atomic_directory(target) as work:
        (work / "a").write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic_directory(target) as work:
        (work / "a").write_text("new")
        raise OSError("disk full")
    assert (target / "a").read_text() == "old"
    with atomic_directory(target) as work:
        (work / "b").write_text("newer")
    assert [p.name for p in tmp_path.iterdir()] == ["rpm"]
    assert [p.name for p in target.iterdir()] == ["b"]


class _Zero3:
    """What transformers asks of the live DeepSpeed setting."""

    def is_zero3(self):
        return True


def test_frozen_policies_are_plain_modules_while_zero3_is_configured(adapter, base_dir, tmp_path, monkeypatch):
    save(adapter, tmp_path / "rpm", base_dir)
    setting = _Zero3()
    monkeypatch.setattr(hf_deepspeed, "_hf_deepspeed_config_weak_ref", None)
    hf_deepspeed.set_hf_deepspeed_config(setting)
    assert hf_deepspeed.is_deepspeed_zero3_enabled()
    frozen = load_policy(base_dir, tmp_path / "rpm", trainable=False)
    local = load_base(base_dir, local=True)
    assert hf_deepspeed.is_deepspeed_zero3_enabled()  # put back
    assert all(p.numel() and not hasattr(p, "ds_id") for m in (frozen, local) for p in m.parameters())
    assert torch.allclose(logits(frozen), logits(adapter), atol=1e-5)
