"""README and docs/ are true in what a machine can check: links lead somewhere, commands are commands, the site builds.

A block of shell commands is held against the real command line. What is not coevo's, or a shell's own, needs a line before
its block that says `<!-- not run: REASON -->` or `<!-- run by: tests/FILE.py -->`.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from coevo import cli
from coevo.config.load import load_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
MARKDOWN = MarkdownIt("commonmark").enable("table")
PROGRAMS = {"coevo", "accelerate", "bash", "sbatch", "python", "pip", "mkdocs", "hf", "curl", "jq", "inspect", "ssh"}
"""A block without a language that begins with one of them is a block of commands that lacks its language."""
HARMLESS = {".", "cd", "echo", "export", "ls", "mkdir"}
MARK = re.compile(r"<!-- (not run|run by): (.+?) -->\s*$")


class Block(NamedTuple):
    """A fenced block, and what the comment before it says."""

    where: str
    language: str
    text: str
    mark: str
    value: str


def slug(heading: str) -> str:
    """GitHub's anchor of a heading's text."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def said(token: Token) -> str:
    """The text of an inline token without its markup."""
    return "".join(child.content for child in token.children or () if child.type in ("text", "code_inline"))


def anchors(page: str) -> set[str]:
    """Of a page's text; a heading that comes again gets a number."""
    found: set[str] = set()
    tokens = MARKDOWN.parse(page)
    for token, inside in pairwise(tokens):
        if token.type == "heading_open":
            name = base = slug(said(inside))
            place = 0
            while name in found:
                place += 1
                name = f"{base}-{place}"
            found.add(name)
    return found


def links(page: str) -> Iterator[str]:
    for token in MARKDOWN.parse(page):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target is not None:
                yield str(target)


def broken(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for target in links(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        there = not path or (file.is_file() and file.is_relative_to(ROOT))
        if there and anchor:
            there = anchor in anchors(text if file == page else file.read_text(encoding="utf-8"))
        if not there:
            found.append(target)
    return found


def blocks(name: str, page: str) -> Iterator[Block]:
    lines = page.split("\n")
    for token in MARKDOWN.parse(page):
        if token.type == "fence" and token.map is not None:
            before = "\n".join(lines[: token.map[0]]).rstrip().rsplit("\n", 1)[-1]
            mark = MARK.search(before)
            yield Block(f"{name}:{token.map[0] + 1}", token.info, token.content, *(mark.groups() if mark else ("", "")))


def commands(text: str) -> Iterator[list[str]]:
    """The single commands of a block, as a shell divides it: without comments, assignments before them and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        to_file = False
        for word in [*lexer, ";"]:
            if set(word) <= {"&", "|", ";"}:
                if words:
                    yield words
                words = []
            elif set(word) <= {"<", ">"}:
                to_file = True
            elif to_file:
                to_file = False
            elif words or not re.match(r"[A-Z_]+=", word):
                words.append(word)


def problem(words: list[str]) -> str | None:
    """Why a command is none that this repository knows; None if it is one, "foreign" if that cannot be told."""
    program, *rest = words
    if program in HARMLESS:
        return None
    if program == "coevo":
        return _coevo(rest)
    if program in ("bash", "sbatch"):
        return None if rest and (ROOT / rest[0]).is_file() else "no such script"
    if program == "python" and rest[:1] == ["-m"]:
        return None if rest[1].startswith("tests.") and importlib.util.find_spec(rest[1]) else "no such module"
    if program == "python":
        return None if (ROOT / rest[0]).is_file() else "no such script"
    if program == "mkdocs":
        return None if rest[0] in ("build", "serve") else "foreign"
    if words[:2] == ["accelerate", "launch"]:
        if not (ROOT / rest[rest.index("--config_file") + 1]).is_file():
            return "no such launch file"
        module = rest.index("-m")
        after = rest[module + 2 :]
        return (_coevo(after) if after else None) if rest[module + 1] == "coevo" else "launches something else"
    return "foreign"


def _coevo(words: list[str]) -> str | None:
    try:
        options = cli._parse(words)
    except SystemExit:
        return "the command line does not take it"
    if getattr(options, "launch", None):
        (launched,) = commands(options.launch)
        if (found := problem(launched)) is not None:
            return found
    recipe = getattr(options, "recipe", None) or getattr(options, "file", None)
    if recipe is None or not str(recipe).startswith("recipes/"):
        return None
    if not (ROOT / recipe).is_file():
        return "no such recipe"
    if options.command in ("train", "audit"):
        # keys that extending.md adds are known to the copy alone that its test makes
        load_recipe(ROOT / recipe, [word for word in options.overrides if not word.startswith(("method=rest", "prompts="))])
    return None


def faults(name: str, text: str) -> list[str]:
    """What is wrong with the command blocks of a page."""
    found = []
    for block in blocks(name, text):
        first = block.text.split(maxsplit=1)[0] if block.text.strip() else ""
        if block.language == "" and first in PROGRAMS:
            found.append(f"{block.where}: a block of commands says so: ```bash")
        if block.language != "bash":
            continue
        if block.mark == "run by" and not (ROOT / block.value).is_file():
            found.append(f"{block.where}: no test {block.value}")
        for words in commands(block.text):
            said = problem(words)
            if said is not None and not (said == "foreign" and block.mark):
                found.append(f"{block.where}: {shlex.join(words)}: {said}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_is_one(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if page.name == "extending.md":
        pytest.skip("tests/integration/test_extending.py runs its commands, on a copy that knows its keys")
    assert faults(page.name, page.read_text(encoding="utf-8")) == [], capsys.readouterr().err


def test_commands_in_sentences_exist() -> None:
    _, known = cli.make_parser()
    for page in PAGES:
        for token in MARKDOWN.parse(page.read_text(encoding="utf-8")):
            for child in token.children or ():
                found = re.match(r"coevo ([a-z]+)\b", child.content) if child.type == "code_inline" else None
                assert found is None or found[1] in known, f"{page.name}: {child.content}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[x](nowhere.md)", ["nowhere.md"]),
        ("[x](data.md#no-such-heading)", ["data.md#no-such-heading"]),
        ("[x](#nor-here)", ["#nor-here"]),
        ("![x](assets/none.png)", ["assets/none.png"]),
        ("[x]: gone.md\n\n[a][x]", ["gone.md"]),
        ("# A `b.c` and (d), e\n[x](#a-bc-and-d-e) [y](data.md#the-world) [z](../recipes/smoke.yaml)", []),
        ("# A\n# A\n[x](#a-1)", []),
        ("`[x](nowhere.md)`\n\n```\n[x](nowhere.md)\n```", []),
    ],
)
def test_a_link_that_leads_nowhere_is_found(text: str, expected: list[str]) -> None:
    assert broken(ROOT / "docs" / "page.md", text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("coevo trian recipes/smoke.yaml", "does not take it"),
        ("coevo train recipes/smoke.yaml --otu x", "does not take it"),
        ("coevo data check dialogues.json && coevo score --data x", "does not take it"),
        ("coevo train recipes/none.yaml  # a comment", "no such recipe"),
        ("bash launch/none.sh", "no such script"),
        (
            "accelerate launch --config_file launch/accelerate/none.yaml -m coevo train recipes/smoke.yaml",
            "no such launch file",
        ),
        ("accelerate launch --config_file launch/accelerate/ddp.yaml -m coevo trian x", "does not take it"),
        (
            'coevo experiment recipes/paper/world.yaml --launch "accelerate launch --config_file x -m coevo"',
            "no such launch file",
        ),
        ("python -m tests.bench.none", "no such module"),
        ("python examples/none.py", "no such script"),
        ("jq . x.json", "foreign"),
    ],
)
def test_a_command_that_is_none_is_found(text: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = faults("page", f"```bash\n{text}\n```\n")
    assert found.endswith(expected), capsys.readouterr().err


def test_marks_and_shell_syntax() -> None:
    assert faults("page", "<!-- not run: needs jq -->\n```bash\njq . x.json\n```\n") == []
    assert faults("page", "<!-- not run: needs jq -->\n\ntext\n```bash\njq . x.json\n```\n") != []
    assert faults("page", "<!-- not run: a GPU -->\n```bash\ncoevo trian x\n```\n") != []
    assert faults("page", "<!-- run by: tests/none.py -->\n```bash\nls\n```\n") != []
    assert faults("page", "```\ncoevo train x\n```\n") != []
    text = "A=1 coevo train recipes/smoke.yaml \\\n  seed=1 > out.txt # it's > a; comment\n\ncoevo view x | head\n"
    assert list(commands(text)) == [["coevo", "train", "recipes/smoke.yaml", "seed=1"], ["coevo", "view", "x"], ["head"]]


STRUCTURE = {"ul", "ol", "li", "table", "td", "pre", "em", "strong", "blockquote", "h1", "h2", "h3"}


class Text(HTMLParser):
    """What a reader sees of a page, without white space."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.depth = 1 if whole else 0
        self.text = ""
        self.hidden = False
        self.tags: Counter[str] = Counter()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        if tag in ("script", "link", "img", "iframe"):
            self.fetched += [value for key in ("src", "href") if (value := named.get(key))]
        self.depth += bool(self.depth and tag == "article") or (
            tag == "article" and "md-content__inner" in (named.get("class") or "")
        )
        self.tags[tag] += bool(self.depth and tag in STRUCTURE)
        self.hidden = named.get("class") == "headerlink" or tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= bool(self.depth and tag == "article")
        self.hidden = False

    def handle_data(self, data: str) -> None:
        if self.depth and not self.hidden:
            self.text += "".join(data.split())


def text_of(html: str, whole: bool) -> Text:
    reader = Text(whole)
    reader.feed(html)
    return reader


def difference(expected: Text, built: Text) -> str:
    """Where two pages part."""
    for place, (left, right) in enumerate(zip(expected.text, built.text, strict=False)):
        if left != right:
            around = slice(max(0, place - 40), place + 40)
            return f"{expected.text[around]!r} became {built.text[around]!r}"
    return f"{expected.tags - built.tags} became {built.tags - expected.tags}"


def test_the_site_builds_and_shows_what_github_shows(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs the extra docs")
    site = tmp_path / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in PAGES[1:]:
        name = page.relative_to(ROOT / "docs").with_suffix(".html")
        built = text_of((site / name).read_text(encoding="utf-8"), whole=False)
        # the site's parser is another than GitHub's: lists, emphasis and escapes must come out alike
        expected = text_of(MARKDOWN.render(page.read_text(encoding="utf-8")), whole=True)
        assert expected.text in built.text and built.tags == expected.tags, f"{name}: {difference(expected, built)}"
        assert not [target for target in built.fetched if re.match(r"(https?:)?//", target)], name
    assert (site / "files" / "recipes" / "smoke.yaml.html").is_file()
