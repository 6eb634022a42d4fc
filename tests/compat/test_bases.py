"""Bases as people have them: those that are whole are read, all others are refused before their weights are."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.integrations import deepspeed as hf_deepspeed

from coevo import cli
from coevo.config.load import load_recipe
from coevo.errors import CheckpointError, ConfigError
from coevo.lm import check
from coevo.lm.check import check_positions, check_weights, skeleton
from coevo.lm.likelihood import encode_pair, score_pairs
from coevo.lm.loading import load_base, load_tokenizer, new_adapter
from coevo.loop.base import check_models
from coevo.loop.context import LoRASeeded
from coevo.loop.run import train
from tests.compat.families import BUILTIN, FAMILIES, make_base

ROOT = Path(__file__).resolve().parents[2]
LORA = LoRASeeded(4, 8, 0.0, seed=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Family -> a base of it, made once; `altered` copies it."""
    folder = tmp_path_factory.mktemp("bases")

    def make(family):
        return folder / family if (folder / family).exists() else make_base(family, folder / family)

    return make


@pytest.fixture
def altered(made, tmp_path):
    """A copy of a family's base with other tensors, other fields of its configuration, or both."""

    def alter(family="llama", tensors=None, **config):
        shutil.copytree(made(family), tmp_path / "base")
        file = tmp_path / "base" / "model.safetensors"
        if tensors is not None:
            save_file(tensors(load_file(file)), file, {"format": "pt"})
        edit(tmp_path / "base" / "config.json", **config)
        return tmp_path / "base"

    return alter


def edit(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def recipe(base, *overrides):
    keys = ["base.kind=hub", f"base.path={base}", "base.dtype=float32", "limits.prompt=512"]
    return load_recipe(ROOT / "recipes" / "smoke.yaml", [*keys, *overrides])


# --- what is whole --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_and_scores(family, made):
    folder = made(family)
    assert check_models(recipe(folder), fetch=False) == []
    model, tokenizer = load_base(folder), load_tokenizer(folder)
    found = score_pairs(
        model, tokenizer, [encode_pair(tokenizer, "<|user|>Hi<|end|>", "Ho")], max_length=64, tokens_per_batch=64
    )
    assert math.isfinite(found[0].logprob_nats)


def test_what_older_checkpoints_carry_or_leave_out_is_no_fault(made, tmp_path):
    names = {
        "gpt2": {"h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8), "h.0.attn.masked_bias": torch.tensor(-1e4)},
        "gpt_neox": {"gpt_neox.layers.0.attention.bias": torch.ones(8, 8, dtype=torch.bool)},
        "llama": {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)},
        # a tied head that was saved all the same
        "qwen3": {"lm_head.weight": load_file(made("qwen3") / "model.safetensors")["model.embed_tokens.weight"]},
    }
    for family, extra in names.items():
        folder = tmp_path / family
        shutil.copytree(made(family), folder)
        plain = {name.removeprefix("transformer."): t for name, t in load_file(folder / "model.safetensors").items()}
        save_file({**plain, **extra}, folder / "model.safetensors", {"format": "pt"})
        check_weights(folder)


def test_sharded_weights_pass_and_are_whole_or_refused(made, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(made("llama"), folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(made("llama")).save_pretrained(folder, max_shard_size="300KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    check_weights(folder)
    # transformers reads the one file and not the shards, however old it is
    shutil.copy(made("llama") / "model.safetensors", folder)
    with pytest.raises(CheckpointError, match=rf"has the weights twice.*{shards[0].name}.*left over"):
        load_base(folder)
    (folder / "model.safetensors").unlink()
    shards[0].rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match=rf"1 of the {len(shards)} weight files .*are missing: {shards[0].name}"):
        load_base(folder)
    (tmp_path / "away").rename(shards[0])
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        load_base(folder)


def test_the_check_draws_nothing_and_is_made_once_until_a_file_changes(altered, monkeypatch):
    folder = altered()
    before = torch.random.get_rng_state()
    check_weights(folder)
    assert torch.equal(before, torch.random.get_rng_state())
    looked = []
    monkeypatch.setattr(check, "skeleton", looked.append)
    check_weights(folder)
    assert not looked
    edit(folder / "config.json", num_hidden_layers=1)
    check_weights(folder)
    assert looked == [folder]


class _Zero3:
    """What transformers asks of the live DeepSpeed setting."""

    def is_zero3(self):
        return True


def test_the_check_is_the_same_where_zero3_is_configured(altered, made, monkeypatch):
    setting = _Zero3()
    monkeypatch.setattr(hf_deepspeed, "_hf_deepspeed_config_weak_ref", None)
    hf_deepspeed.set_hf_deepspeed_config(setting)
    skeleton(made("llama"))
    with pytest.raises(CheckpointError, match="tensor"):
        skeleton(altered(tensors=lambda w: {f"module.{name}": t for name, t in w.items()}))
    assert hf_deepspeed.is_deepspeed_zero3_enabled()


# --- tensors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("_orig_mod.", "torch.compile"),
        ("base_model.model.", "PEFT"),
        ("module.", "DataParallel"),
        ("_fsdp_wrapped_module.", "FSDP"),
        ("policy.", "save the model again"),
    ],
)
def test_a_prefix_before_the_names_is_refused_and_named(prefix, reason, altered):
    folder = altered(tensors=lambda w: {prefix + name: t for name, t in w.items()})
    with pytest.raises(CheckpointError) as error:
        load_base(folder)
    said = str(error.value)
    assert "21 tensor(s) missing (lm_head.weight, " in said and "21 tensor(s) that the model does not have" in said
    assert f"Their names begin with {prefix!r}" in said and reason in said


def test_a_missing_output_head_is_refused_unless_it_is_tied(altered, made):
    check_weights(made("qwen3"))
    assert "lm_head.weight" not in load_file(made("qwen3") / "model.safetensors")
    folder = altered(tensors=lambda w: {name: t for name, t in w.items() if name != "lm_head.weight"})
    with pytest.raises(CheckpointError, match=r"1 tensor\(s\) missing \(lm_head\.weight\).*tie_word_embeddings to true"):
        load_base(folder)
    edit(folder / "config.json", tie_word_embeddings=True)
    tied = load_base(folder)
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            lambda w: {name: t for name, t in w.items() if ".layers.1." not in name},
            r"9 tensor\(s\) missing \(model\.layers\.1\.input_layernorm",
        ),
        (
            lambda w: {**w, "v_head.summary.weight": torch.zeros(1, 32)},
            r"1 tensor\(s\) that the model does not have \(v_head\.summary\.weight\).*Save the model again without",
        ),
        (
            lambda w: {**w, "lm_head.weight": torch.zeros(4100, 32)},
            r"lm_head\.weight is \(4100, 32\), expected \(4096, 32\)",
        ),
        (
            lambda w: {**w, "lm_head.weight": torch.zeros(4096, 32, dtype=torch.int8)},
            r"lm_head\.weight is stored as I8.*quantised",
        ),
        (
            lambda w: {**w, "lm_head.weight": torch.zeros(4096, 32, dtype=torch.float8_e4m3fn)},
            r"lm_head\.weight is stored as F8_E4M3.*quantised",
        ),
    ],
    ids=["layer", "value head", "shape", "int8", "fp8"],
)
def test_other_tensors_than_the_configuration_asks_for_are_refused(tensors, message, altered):
    with pytest.raises(CheckpointError, match=message):
        load_base(altered(tensors=tensors))


# --- files ----------------------------------------------------------------------------------------------------------


def test_an_adapter_is_no_base(made, tmp_path):
    model = new_adapter(load_base(made("llama")), LORA)
    alone = tmp_path / "alone"
    alone.mkdir()
    save_file(get_peft_model_state_dict(model), alone / "adapter_model.safetensors")
    model.peft_config["default"].base_model_name_or_path = str(made("llama"))
    model.peft_config["default"].save_pretrained(alone)
    shutil.copy(made("llama") / "config.json", alone)
    with pytest.raises(CheckpointError, match=r"holds an adapter \(adapter_config\.json, adapter_model.*Merge it into"):
        load_base(alone)
    # whole weights beside what an earlier adapter left there: transformers would put it on them again
    for left in ("adapter_config.json", "adapter_model.safetensors"):
        merged = tmp_path / left
        shutil.copytree(made("llama"), merged)
        shutil.copy(alone / left, merged)
        with pytest.raises(CheckpointError, match=rf"holds an adapter \({left}\).*is merged .*delete its files"):
            load_base(merged)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named(name, altered):
    folder = altered()
    (folder / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1139320\n")
    with pytest.raises(CheckpointError, match=rf"{name}: is a Git-LFS pointer.*git lfs pull"):
        load_base(folder)
    with pytest.raises(CheckpointError, match=rf"{name}: is a Git-LFS pointer"):
        load_tokenizer(folder)


def test_a_folder_without_a_tokenizer_is_refused(altered, tmp_path):
    folder = altered()
    bare = shutil.copytree(BUILTIN, tmp_path / "bare")  # of this one, transformers makes up a tokenizer of one token
    for one, message in ((folder, "no tokenizer can be loaded"), (bare, "its tokenizer has no words")):
        for file in one.glob("tokenizer*"):
            file.unlink()
        with pytest.raises(CheckpointError, match=message):
            load_tokenizer(one)


def test_a_chat_template_that_is_no_jinja_text_is_refused(altered):
    folder = altered()
    (folder / "chat_template.jinja").write_text("{% for m in messages %}\n{{ m.content")
    with pytest.raises(ConfigError, match=r"chat template is no Jinja text \(line 2: .*Mend it"):
        load_tokenizer(folder)


def test_damaged_files_are_named(altered):
    folder = altered()
    for name, load, message in (
        ("tokenizer.json", load_tokenizer, "no tokenizer can be loaded"),
        ("model.safetensors", load_base, "model.safetensors: cannot be read as safetensors .*cut short"),
        ("config.json", load_base, "config.json is not readable"),
    ):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError, match=message):
            load(folder)


@pytest.mark.parametrize(
    "field",
    [
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
        {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}},
        {"quantization_config": {"quant_method": "fp8"}},
        {"compression_config": {"quant_method": "compressed-tensors"}},
    ],
    ids=["bitsandbytes", "gptq", "awq", "fp8", "compressed-tensors"],
)
def test_quantised_weights_are_refused(field, altered):
    method = next(iter(field.values()))["quant_method"]
    with pytest.raises(CheckpointError, match=rf"the weights are quantised .*{method}.*give the unquantised model"):
        load_base(altered(**field))


# --- ids, positions, layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [{"pad_token_id": 4096}, {"eos_token_id": [1, 5000]}])
def test_ids_of_the_configuration_are_within_the_embeddings(field, altered):
    (name, value) = next(iter(field.items()))
    wrong = value[1] if isinstance(value, list) else value
    with pytest.raises(CheckpointError, match=rf"{name} is {wrong}, and the embeddings have 4096 rows"):
        load_base(altered(**field))


def test_ids_of_the_tokenizer_are_within_the_embeddings(tmp_path, altered):
    small = make_base("llama", tmp_path / "small", vocab_size=4000)
    with pytest.raises(CheckpointError, match=r"token .* \(4\d\d\d\).* …: beyond the model's embeddings.* 4000 rows"):
        load_tokenizer(small)
    folder = altered()
    tokenizer = load_tokenizer(folder)
    # Gemma 3's text models have a token for images that their embeddings lack, and no text gives it
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]}, replace_extra_special_tokens=False)
    tokenizer.save_pretrained(folder)
    assert load_tokenizer(folder).convert_tokens_to_ids("<image_soft_token>") == 4096
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"pad token '\[PAD\]' \(4097\): beyond the model's embeddings"):
        load_tokenizer(folder)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_limits_beyond_the_positions_are_refused(family, tmp_path):
    folder = make_base(family, tmp_path / "base", max_position_embeddings=600)
    check_models(recipe(folder, "limits.response=40"), fetch=False)
    with pytest.raises(CheckpointError, match=r"600 positions.*up to 672 tokens.*Lower limits\.prompt"):
        check_models(recipe(folder, "limits.response=160"), fetch=False)


def test_positions_that_rope_stretches_count(altered):
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "rope_theta": 10000.0}
    folder = altered(rope_parameters=yarn)
    check_positions(folder, 4096)
    with pytest.raises(CheckpointError, match="4096 positions"):
        check_positions(folder, 4097)


def test_an_architecture_without_layers_for_an_adapter_is_refused_unless_all_weights_train(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}
    folder = make_base("mamba", tmp_path / "base", **sizes)
    assert check_models(recipe(folder, "lora=null"), fetch=False) == []
    with pytest.raises(CheckpointError, match=r"no adapter can be put on all linear layers of a mamba.*lora: null"):
        check_models(recipe(folder), fetch=False)


def test_of_several_chat_templates_the_default_is_taken_and_must_be_there(altered):
    folder = altered()
    default = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    tools = {"name": "tool_use", "template": "tools"}
    edit(folder / "tokenizer_config.json", chat_template=[tools])
    with pytest.raises(CheckpointError, match="chat templates tool_use and none is named default"):
        load_tokenizer(folder)
    edit(folder / "tokenizer_config.json", chat_template=[tools, {"name": "default", "template": default}])
    assert load_tokenizer(folder).chat_template == default


# --- when -----------------------------------------------------------------------------------------------------------


def test_a_run_and_a_dry_run_refuse_before_anything_is_written(altered, tmp_path, capsys):
    folder = altered(tensors=lambda w: {f"_orig_mod.{name}": t for name, t in w.items()})
    with pytest.raises(CheckpointError, match="_orig_mod"):
        train(recipe(folder), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    keys = ["base.kind=hub", f"base.path={folder}", "limits.prompt=512"]
    for command in ("train", "audit"):
        assert cli.main([command, str(ROOT / "recipes" / "smoke.yaml"), *keys, "--dry-run"]) == 2
        said = capsys.readouterr()
        assert "_orig_mod" in said.err and not said.out


def test_a_dry_run_downloads_nothing_and_says_what_it_did_not_check(capsys):
    keys = ["base.kind=hub", "base.path=nobody/no-such-base", "limits.prompt=512"]
    assert cli.main(["train", str(ROOT / "recipes" / "smoke.yaml"), *keys, "--dry-run"]) == 0
    assert "base.path=nobody/no-such-base is not on this machine, so it was not checked" in capsys.readouterr().out
