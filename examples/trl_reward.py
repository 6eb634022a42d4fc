"""Train a chat model with bare TRL on coevo's reward.

    python examples/trl_reward.py --model Qwen/Qwen3-0.6B --scorer Qwen/Qwen3-4B --data dialogues.json --out out

The scorer is a chat model as it is, or a run of `coevo train` whose scorer knows your dialogues. With `--url` the reward is
asked of a server (`coevo reward --serve …`), and the scorer needs no memory here.
"""

import argparse

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

import coevo

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", required=True)
parser.add_argument("--scorer", required=True)
parser.add_argument("--data", required=True)
parser.add_argument("--splits", nargs="+", default=["IDTrain"])
parser.add_argument("--url", help="of a reward server, in the scorer's place")
parser.add_argument("--out", default="out")
parser.add_argument("--steps", type=int, default=100)
options = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(options.model)
scenarios = coevo.load_scenarios(options.data, options.splits)
# every token that ends an answer, so that one which the length limit cut off is known
ends = [tokenizer.eos_token_id]
if options.url:
    reward = coevo.RemoteReward(options.url, end_ids=ends)
else:
    reward = coevo.REMIDReward(coevo.load_scorer(options.scorer), scenarios, end_ids=ends)

rows = [{"prompt": coevo.chat_messages(x), "sample_id": x.sample_id} for x in scenarios]
settings = GRPOConfig(
    options.out, max_steps=options.steps, num_generations=4, per_device_train_batch_size=8, max_completion_length=64,
    logging_steps=1, report_to="none", save_strategy="no", bf16=torch.cuda.is_available(),
)  # fmt: skip
trainer = GRPOTrainer(options.model, reward, settings, Dataset.from_list(rows), processing_class=tokenizer)
trainer.train()
trainer.save_model(options.out)
