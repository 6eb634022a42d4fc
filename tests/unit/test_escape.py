"""Text of data and models as a terminal, Markdown and a spreadsheet get it."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from coevo.cli.console import complain, say
from coevo.cli.progress import ConsoleProgress
from coevo.errors import DataError
from coevo.escape import plain, plain_code, spreadsheet, visible

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Grüße, 日本語, שלום, 👩‍💻\n\tnächste Zeile", "Grüße, 日本語, שלום, 👩‍💻\n\tnächste Zeile"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("over\rwritten\x08\x7f\x00", r"over\x0dwritten\x08\x7f\x00"),
        ("\x9b2J\x85", r"\x9b2J\x85"),
        ("a\u202eb\u2066c\u2069\u2028", r"a\u202eb\u2066c\u2069\u2028"),
    ],
)
def test_a_terminal_is_shown_what_it_would_obey(text: str, expected: str) -> None:
    assert visible(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("R-EMI -1.50 [-2.00, -1.00]: register_gap (95 %)", "R-EMI -1.50 [-2.00, -1.00]: register_gap (95 %)"),
        ("<b> & &lt; Film & TV", "&lt;b&gt; & &amp;lt; Film & TV"),
        ("[x](javascript:alert(1)) ![y](z)", r"\[x]\(javascript:alert(1)) ![y]\(z)"),
        ("[x]: javascript:alert(1)", r"\[x]: javascript:alert(1)"),
        ("a|b `c` *d* _e_ __f__ #g ~~h~~ $i$ \\", r"a\|b \`c\` \*d\* \_e\_ \_\_f\_\_ \#g \~\~h\~\~ \$i\$ \\"),
        ("two\nlines\x1b", r"two lines\\x1b"),
    ],
)
def test_markdown_has_no_markup_of_a_text(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_code_ends_where_it_should() -> None:
    assert plain_code("coevo train 'a_b*'") == "`coevo train 'a_b*'`"
    assert plain_code("a ``b`` `") == "``` a ``b`` ` ```"


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-cmd", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "-1+1|cmd", "-"])
def test_a_spreadsheet_runs_no_text(text: str) -> None:
    assert spreadsheet(text).startswith("'")


@pytest.mark.parametrize("cell", [-1.5, None, 3, "-1.5", "+2", "-3.2e-05", "", "sft", "a=b", "1-2"])
def test_numbers_and_plain_names_stay(cell: object) -> None:
    assert spreadsheet(cell) == cell


def test_every_line_to_a_terminal_goes_through_it(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2Jname\u202e"
    say(hostile)
    complain(DataError(hostile))
    progress = ConsoleProgress([SimpleNamespace(name=hostile, seconds_estimate=1.0)], every_s=0)
    progress.phase(hostile, 2)
    progress.advance(1, note=hostile)
    progress.say(hostile)
    progress.done(hostile)
    shown = capsys.readouterr()
    assert shown.out.count(r"\x1b[2Jname\u202e") == 6 and shown.err.count(r"\x1b[2Jname\u202e") == 1
    assert not set("\x1b\u202e") & set(shown.out + shown.err)
    # nothing else writes to either stream
    elsewhere = re.compile(r"\bprint\(|sys\.(stdout|stderr)\.write|sys\.__std")
    house = ROOT / "coevo"
    files = {
        str(path.relative_to(house)) for path in house.rglob("*.py") if elsewhere.search(path.read_text(encoding="utf-8"))
    }
    examples = {"export/card.py", "cli/serve.py"}
    assert files - examples == {"cli/console.py", "cli/streams.py"}, "examples hold code that prints"
