"""Uploading an exported folder."""

from __future__ import annotations

from pathlib import Path

from coevo.errors import EndpointError


def upload(folder: Path, name: str) -> str:
    """Uploads a folder as a private model, and says where it is.

    Raises:
        EndpointError: the hub is out of reach or refuses it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder))
    except (HfHubHTTPError, OSError) as error:
        raise EndpointError(
            f"--hub {name}: the hub did not take it ({str(error)[:300]}); the folder {folder} is whole."
        ) from None
