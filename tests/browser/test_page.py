"""The page of a run in Chromium: it asks nobody, filters, draws, and never scrolls sideways."""

import shutil

import pytest

from coevo.report import build
from tests.browser.driver import Browser, missing
from tests.unit import test_report
from tests.unit.test_report import turns, write_lines

run = test_report.run
"""A finished run in which the shifted subsets gained 4 nats."""

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}")
EVIL = "</script><script>window.bad = 1</script><img src=x onerror='window.bad = 1'>"
SET = """
const [name, value] = arguments;
const field = document.querySelector(".filters").elements[name];
field.value = value;
const begun = performance.now();
field.dispatchEvent(new Event("input", {bubbles: true}));
document.body.offsetHeight;
return performance.now() - begun;
"""
SIDEWAYS = "return document.documentElement.scrollWidth > innerWidth"


@pytest.fixture
def opened(run, tmp_path):
    """Opens the report of the run in a window of a width, light or dark."""
    browsers = []

    def open_page(width=1280, dark=False):
        browser = Browser(tmp_path / f"profile{len(browsers)}", width, dark=dark)
        browsers.append(browser)
        build(run)
        browser.open(f"file://{run}/report/report.html")
        return browser

    yield open_page
    for browser in browsers:
        browser.close()
        shutil.rmtree(browser.profile, ignore_errors=True)


def count(browser):
    return browser.run("return document.getElementById('count').textContent")


def test_the_browser_filters_and_shows_hostile_text_as_text(run, opened):
    write_lines(run / "rollouts.jsonl", [*turns(1, text=EVIL), *turns(2, n=60)])
    browser = opened()
    assert count(browser) == "75 of 75 rollouts"
    assert browser.run("return document.querySelectorAll('.row').length") == 50
    browser.run("document.getElementById('more').click()")
    assert browser.run("return document.querySelectorAll('.row').length") == 75
    browser.run(SET, "iteration", "1")
    assert count(browser) == "15 of 75 rollouts"
    # a subset has every third turn
    browser.run(SET, "subset", "german")
    assert count(browser) == "5 of 75 rollouts"
    browser.run(SET, "q", "ONERROR script")
    assert count(browser) == "5 of 75 rollouts"
    browser.run(SET, "most", "3.4")
    assert count(browser) == "0 of 75 rollouts"
    browser.run(SET, "most", "")
    browser.run("document.querySelector('.row').open = true")
    text = browser.run("return new Promise(done => setTimeout(() => done(document.querySelector('.row').innerText), 100))")
    assert EVIL in text and "regret 4" in text
    assert browser.run("return window.bad") is None
    # the choice is in the address, and comes again with it
    assert "subset=german" in browser.run("return location.hash")
    browser.run("location.reload()")
    assert count(browser) == "5 of 75 rollouts"
    assert set(browser.requests()) == {f"file://{run}/report/report.html"}


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_draws_and_never_scrolls_sideways(opened, width, dark):
    browser = opened(width, dark)
    assert browser.run("return document.querySelectorAll('#verdict svg').length") == 2
    browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    browser.run("return new Promise(done => setTimeout(done, 1500))")
    assert browser.run("return document.querySelectorAll('svg').length") > 15
    assert not browser.run(SIDEWAYS)
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") != dark
    browser.run("document.getElementById('theme').click()")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != ground
    # neither a refused script nor a failed request
    assert [entry["message"] for entry in browser.log("browser")] == []
    assert len(set(browser.requests())) == 1


def test_ten_thousand_rollouts_are_there_within_two_seconds_and_filtered_within_a_third(run, opened):
    write_lines(run / "rollouts.jsonl", turns(1, n=10_000, text="Wie geht es Ihnen? " * 20))
    browser = opened()
    assert count(browser) == "10,000 of 10,000 rollouts"
    assert browser.run("return performance.getEntriesByType('navigation')[0].loadEventEnd") < 2000
    for name, value in (("q", "ihnen? 33"), ("subset", "korean"), ("q", ""), ("order", "best")):
        assert browser.run(SET, name, value) < 300
