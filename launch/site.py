"""A hook of mkdocs.yml: a link from docs/ to another file of the repository leads to a page of the site that shows the file.

So one link works on GitHub and in the site, which needs neither an address of the repository nor a network.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()\.\./[^)\s#]+")
LANGUAGES = {".yaml": "yaml", ".py": "python", ".sh": "bash", ".toml": "toml", ".txt": "text"}


def _outside(page: str, target: str) -> str | None:
    """The path from the root of a file that a page links to, if it lies outside docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return None if path.startswith("docs/") else path


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each file outside docs/ that some page links to."""
    linked: dict[str, str] = {}
    for page in files.documentation_pages():
        for target in LINK.findall(page.content_string):
            path = _outside(page.src_uri, target)
            if path is not None:
                linked.setdefault(path, page.src_uri)
    for path, page in sorted(linked.items()):
        file = ROOT / path
        if not file.is_file() or file.suffix not in LANGUAGES:
            raise PluginError(
                f"docs/{page}: links to {path}; expected a file of the repository that ends in one of {list(LANGUAGES)}"
            )
        text = file.read_text(encoding="utf-8").rstrip("\n")
        shown = f"---\nsearch: {{exclude: true}}\n---\n# {path}\n\n````{LANGUAGES[file.suffix]}\n{text}\n````\n"
        files.append(File.generated(config, f"files/{path}.md", content=shown, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points such links to the pages."""

    def pointed(found: re.Match[str]) -> str:
        path = _outside(page.file.src_uri, found.group())
        if path is None:
            return found.group()
        return posixpath.relpath(f"files/{path}.md", posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(pointed, markdown)
