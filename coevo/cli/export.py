"""`coevo export`: a run's final model as a folder that other programs load."""

from __future__ import annotations

import argparse

from coevo.cli.console import Commands, command, path, say
from coevo.errors import ConfigError

EXPORT_EXAMPLES = """examples:
  coevo export runs/mine --to exported/mine            # the LoRA adapter, with tokenizer and model card
  coevo export runs/mine --to exported/mine --merge    # full weights, for plain transformers, vLLM or a GGUF converter
  coevo export runs/mine --to exported/mine --merge --hub me/mine

What is written is loaded again and must give the run's own likelihoods. README.md in the folder says what the model is, what
was measured, and how to ask it from Python.
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    export = command(commands, "export", "write a run's final model for other programs", EXPORT_EXAMPLES)
    export.add_argument("folder", type=path, metavar="RUN")
    export.add_argument("--to", type=path, required=True, metavar="DIR", help="a new folder")
    export.add_argument("--merge", action="store_true", help="full weights in place of the adapter")
    export.add_argument("--hub", metavar="ID", help="upload the folder there, as a private model")
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from coevo.export.model import export

    if options.hub:
        check_hub(options.hub)
    say(f"{options.folder} -> {options.to}; it is loaded again and compared, which takes a moment.")
    found = export(options.folder, options.to, options.merge)
    kind = "full weights" if found.merged else "a LoRA adapter"
    seen = (
        "the run's data are not here, so its likelihoods were not compared"
        if found.difference_nats is None
        else f"likelihoods of {found.compared} references within {found.difference_nats:.1g} nats per token of the run's"
    )
    say(f"{found.to}: {kind}; {seen}.")
    say(f"How to ask it: {found.to / 'README.md'}")
    if options.hub:
        from coevo.export.hub import upload

        say(upload(found.to, options.hub))
    return 0


def check_hub(name: str) -> None:
    """Looks whether there is anybody to upload for.

    Raises:
        ConfigError: no token, or a name that is none.
    """
    from huggingface_hub import get_token

    if name.count("/") != 1 or not all(name.split("/")):
        raise ConfigError(f"--hub {name}: expected OWNER/NAME.")
    if not get_token():
        raise ConfigError("--hub needs a token of the hub; log in with: hf auth login")
