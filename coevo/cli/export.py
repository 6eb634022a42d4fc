"""`coevo export`: a run's final model as a folder that other programs load."""

from __future__ import annotations

import argparse

from coevo.cli.console import Commands, command, path, say

EXPORT_EXAMPLES = """examples:
  coevo export runs/mine --to exported/mine            # the LoRA adapter, with tokenizer and model card
  coevo export runs/mine --to exported/mine --merge    # full weights, for plain transformers, vLLM or a GGUF converter
  coevo export runs/mine --to exported/mine --merge --hub me/mine

What is written is loaded again and must give the run's own log-likelihoods of eight references within 0.001 nats per token,
or nothing is left there. README.md in the folder says what the model is, what was measured, and how to ask it from Python;
prompt_format.json says the same to other programs. Of a run that trained all weights (lora: null) those are always written.
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    export = command(commands, "export", "write a run's final model for other programs", EXPORT_EXAMPLES)
    export.add_argument("folder", type=path, metavar="RUN", help="a finished run of coevo train")
    export.add_argument("--to", type=path, required=True, metavar="DIR", help="a folder that is new or empty")
    export.add_argument("--merge", action="store_true", help="full weights in place of the adapter")
    export.add_argument("--hub", metavar="OWNER/NAME", help="upload the folder there, as a private model")
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from coevo.export.hub import check_base, check_hub, upload
    from coevo.export.model import export, source

    if options.hub:
        check_hub(options.hub)
        found = source(options.folder)
        check_base(found.base, options.merge or not found.is_adapter)
    say(f"{options.folder} -> {options.to}; it is loaded again and compared, which takes a moment.")
    exported = export(options.folder, options.to, options.merge)
    say(f"{options.to}: {'full weights' if exported.merged else 'a LoRA adapter'}; {exported}.")
    say(f"How to ask it: {options.to / 'README.md'}")
    if options.hub:
        say(upload(options.to, options.hub))
    return 0
