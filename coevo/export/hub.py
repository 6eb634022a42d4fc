"""Uploading an exported folder to the Hugging Face hub, as a private model."""

from __future__ import annotations

from pathlib import Path

from coevo.errors import ConfigError, EndpointError


def check_hub(name: str) -> None:
    """Looks whether there is anybody to upload for, before anything is written.

    Raises:
        ConfigError: no token, or a name that is none.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"--hub {name}: no name of a model ({str(error)[:300]}); expected OWNER/NAME.") from None
    if name.count("/") != 1 or not all(name.split("/")):
        raise ConfigError(f"--hub {name}: expected OWNER/NAME.")
    if not get_token():
        raise ConfigError(f"--hub {name}: needs a token of the hub; log in with: hf auth login, or set HF_TOKEN.")


def check_base(base: str, merge: bool) -> None:
    """Refuses an adapter that nobody else could load.

    Raises:
        ConfigError: its base is a folder of this machine.
    """
    if not merge and Path(base).exists():
        raise ConfigError(
            f"--hub: the adapter's base is the folder {base}, which others do not have; upload full weights, with --merge."
        )


def upload(folder: Path, name: str) -> str:
    """Uploads a folder as a private model, and says where it is.

    Raises:
        EndpointError: the hub is out of reach or refuses it, or the model is there and is public.
    """
    from huggingface_hub import HfApi

    api, kept = HfApi(), f"the folder {folder} is whole."
    try:
        api.create_repo(name, private=True, exist_ok=True)
        private = api.model_info(name).private
        address = str(api.upload_folder(repo_id=name, folder_path=folder)) if private else ""
    except Exception as error:  # its client's errors of the network have no base in common with those of its answers
        raise EndpointError(
            f"--hub {name}: the hub did not take it ({type(error).__name__}: {str(error)[:300]}); {kept} "
            f"Try again with: hf upload {name} {folder}"
        ) from error
    if not private:
        raise EndpointError(
            f"--hub {name}: is there and is public, and coevo uploads to private models alone; {kept} "
            f"To publish it: hf upload {name} {folder}"
        )
    return address
