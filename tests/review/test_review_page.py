"""The review page in a real browser: by keyboard alone, by two people, and with texts that would like to be more than text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cai.records import HumanVerdict, Judgement
from cai.review.server import ReviewServer
from cai.shown_text import visible
from cai.store import VerdictFile
from constitution.messages import assistant, user
from tests.axe import faults
from tests.chromium import Chromium, Tab, chromium
from tests.review.reviewed_runs import pair, unchanged, write_run
from tests.review.served import served

HOSTILE = "\n".join(
    [
        "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">",
        "</p></article></script><svg onload=document.title='owned'><a href=\"javascript:document.title='owned'\">click</a>",
        "javascript:document.title='owned' \x1b[31mred\x1b[0m \u202eright to left\u202c zero\u200bwidth nul\x00",
    ]
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


def begin(browser: Chromium, server: ReviewServer, name: str) -> Tab:
    tab = browser.tab()
    tab.open(server.url)
    tab.wait("document.getElementById('name-dialog').open")
    tab.type(name)
    tab.press("Enter")
    tab.wait("!document.getElementById('ask').hidden || !document.getElementById('nothing').hidden")
    return tab


def said(tab: Tab) -> str:
    return tab.evaluate("document.getElementById('said').textContent")


def text_of(tab: Tab, selector: str) -> str:
    return tab.evaluate(f"document.querySelector({selector!r}).innerText")


def kept(run: Path) -> list[HumanVerdict]:
    with VerdictFile.look_at(run) as file:
        return [each for _, each in file.history()]


def test_a_person_reviews_by_keyboard_alone(browser: Chromium, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [pair(f"p{n}") for n in range(4)], review={"double_share": 0.0})
    with served(run) as server:
        tab = begin(browser, server, "Ann")
        assert server.token not in tab.evaluate("location.href + document.documentElement.outerHTML")
        assert tab.evaluate("document.activeElement.id") == "question"
        shown = text_of(tab, ".answer.a .text")

        tab.press("d")
        tab.wait("document.querySelector('.answer.a mark')")
        assert text_of(tab, ".answer.a .text") == shown
        tab.press("n")
        tab.type("1 is a digit, not a verdict")
        tab.press("Escape")
        tab.press("1")
        tab.wait("document.getElementById('said').textContent.startsWith('Saved: A')")
        (made,) = kept(run)
        assert (made.reviewer, made.note) == ("Ann", "1 is a digit, not a verdict")
        assert made.seconds is not None
        assert made.seconds < 120
        answers = sorted((f"the better reply to {made.uid}", f"the draft of {made.uid}"))
        assert shown in answers
        assert (made.shown == "first_second") == (made.judgement is Judgement.FIRST)
        assert tab.evaluate("document.activeElement.id") == "question"  # a screen reader goes on with the next question

        tab.press("u")
        tab.wait("document.getElementById('said').textContent.includes('taken back')")
        assert text_of(tab, ".answer.a .text") == shown
        for key, expected in (("t", "Saved: Tie"), ("x", "Saved: Both bad"), ("s", "Skipped"), ("2", "Saved: B")):
            tab.press(key)
            tab.wait(f"document.getElementById('said').textContent.startsWith({expected!r})")
        tab.wait("!document.getElementById('nothing').hidden")
        assert [each.judgement for each in kept(run)][1:5] == [
            Judgement.WITHDRAWN,
            Judgement.TIE,
            Judgement.BOTH_BAD,
            Judgement.SKIP,
        ]
        tab.press("?")
        tab.wait("document.getElementById('help-dialog').open")
        assert tab.console == []


@pytest.mark.slow
def test_two_people_at_one_address_contradict_each_other_and_see_it(browser: Chromium, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [pair("p")], review={"double_share": 1.0})
    with served(run) as server:
        for name in ("Ann", "Bob"):
            tab = begin(browser, server, name)
            better = tab.evaluate("document.querySelector('.answer.a .text').innerText.startsWith('the better')")
            tab.press("1" if better == (name == "Ann") else "2")
            tab.wait("!document.getElementById('nothing').hidden")
        tab.press("o")
        tab.wait("document.getElementById('overview-dialog').open")
        overview = text_of(tab, "#overview")
        assert "Ann: one answer is better" in overview or "Ann: the other answer is better" in overview
        assert "question p" in overview
        assert tab.console == []


def test_hostile_texts_are_only_texts(browser: Chromium, tmp_path: Path) -> None:
    hostile = pair("<b>uid</b>", chosen=HOSTILE, rejected=f"{HOSTILE} and more").model_copy(
        update={"prompt": (user(HOSTILE), assistant(HOSTILE), user(HOSTILE))}
    )
    run = write_run(tmp_path / "run", [hostile])
    with served(run) as server:
        tab = begin(browser, server, "<img src=x onerror=document.title='owned'>")
        tab.press("d")
        tab.wait("document.querySelector('mark')")
        assert "<script>document.title = 'owned'</script>" in text_of(tab, ".answer.a .text")
        assert "⟦U+202E⟧right to left" in text_of(tab, ".answer.a .text")
        assert "␛[31mred" in text_of(tab, ".turn .text")
        inside = "document.querySelectorAll('main script, main img, main svg, main a, header img').length"
        assert tab.evaluate(inside) == 0
        assert "owned" not in tab.evaluate("document.title")
        # The page's own policy stops what got in all the same; that the test could fail is shown by what the page does run.
        tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=`owned`\">')")
        tab.evaluate("new Promise((done) => setTimeout(done, 200))")
        assert "owned" not in tab.evaluate("document.title")
        assert tab.evaluate("(document.title = 'ours')") == "ours"


LONG_TEXTS = {
    "words": " ".join(f"word{n % 977}" for n in range(120_000)),
    "lines": "\n".join(f"line {n % 977}" for n in range(110_000)),
    "one word": "ab" * 500_000,
    "pairs of surrogates": "a" + "\U0001f600" * 250_000,
    "right to left": "\u202ea" * 125_000,
    "hostile": HOSTILE * 4_000,
}


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_a_megabyte_is_shown_marked_and_judged_in_seconds(browser: Chromium, tmp_path: Path, name: str) -> None:
    """A browser took 17 s to break three such texts into lines, or a minute of them right to left, and again for the marks."""
    text = LONG_TEXTS[name]
    long = pair("p", chosen=f"{text} one", rejected=f"{text} other, and more").model_copy(update={"prompt": (user(text),)})
    run = write_run(tmp_path / "run", [long], review={"double_share": 0.0})
    all_of_it = "[...document.querySelectorAll('.answer .text')].map((each) => each.textContent)"
    with served(run) as server:
        began = time.monotonic()
        tab = begin(browser, server, "Ann")
        tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shown = tab.evaluate(all_of_it)
        assert sorted(shown) == sorted(visible(each) for each in (long.chosen, long.rejected))
        tab.press("d")
        tab.wait("document.querySelector('mark')")
        assert tab.evaluate(all_of_it) == shown
        assert tab.evaluate("document.querySelectorAll('mark').length") < 3000
        assert tab.evaluate("document.querySelectorAll('main script, main img, main svg, main a').length") == 0
        assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        tab.press("1")
        tab.wait("!document.getElementById('nothing').hidden")
        assert time.monotonic() - began < 10
        assert "owned" not in tab.evaluate("document.title")
        assert tab.console == []
    assert len(kept(run)) == 1


@pytest.mark.slow
def test_a_single_answer_is_good_or_bad(browser: Chromium, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [], [], [unchanged("k", tags=["x"])], review={"required": True, "tags": ["x"]})
    with served(run) as server:
        tab = begin(browser, server, "Ann")
        assert text_of(tab, "#choices") == "1 Good\n2 Bad"
        tab.press("1")
        tab.wait("!document.getElementById('nothing').hidden")
    assert [each.judgement for each in kept(run)] == [Judgement.GOOD]


@pytest.mark.slow
def test_a_server_that_is_gone_loses_nothing_and_says_so(browser: Chromium, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [pair("p")])
    with served(run) as server:
        tab = begin(browser, server, "Ann")
    tab.press("1")
    tab.wait("!document.getElementById('problem').hidden")
    assert "still running" in text_of(tab, "#problem")
    assert not tab.evaluate("document.getElementById('ask').hidden")


@pytest.mark.slow
def test_without_the_token_the_page_shows_nothing(browser: Chromium, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [pair("p")])
    with served(run) as server:
        tab = browser.tab()
        tab.open(f"http://127.0.0.1:{server.port}/")
        tab.wait("!document.getElementById('problem').hidden")
        assert "token is missing" in text_of(tab, "#problem")
        tab.open(f"http://127.0.0.1:{server.port}/#token=wrong")
        tab.evaluate("location.reload()")
        tab.wait("document.readyState === 'complete' && document.getElementById('name-dialog')?.open")
        tab.type("Eve")
        tab.press("Enter")
        tab.wait("!document.getElementById('name-problem').hidden")
        assert "token" in text_of(tab, "#name-problem")


def test_another_page_of_this_machine_cannot_judge(browser: Chromium, tmp_path: Path) -> None:
    """A site that knows the port, and even the token, is stopped by the browser and by the server."""
    run, other = (write_run(tmp_path / name, [pair("p")]) for name in ("run", "other"))
    with served(run) as server, served(other) as elsewhere:
        tab = browser.tab()
        tab.open(f"http://127.0.0.1:{elsewhere.port}/")
        attack = (
            f"fetch('http://127.0.0.1:{server.port}/api/next', {{method: 'POST', headers: {{'Content-Type': "
            f"'application/json', 'X-Review-Token': '{server.token}'}}, body: JSON.stringify({{reviewer: 'Eve'}})}})"
            ".then(() => 'in', () => 'out')"
        )
        assert tab.evaluate(attack) == "out"
        simple = (
            f"fetch('http://127.0.0.1:{server.port}/api/next', {{method: 'POST', mode: 'no-cors', body: '{{}}'}})"
            ".then(() => 'in', () => 'out')"
        )
        assert tab.evaluate(simple) == "out"
    assert not (run / "review.sqlite").exists() or not kept(run)


@pytest.mark.slow
@pytest.mark.parametrize("phone", [False, True])
def test_everything_has_a_name_fits_its_window_and_can_be_read(browser: Chromium, tmp_path: Path, phone: bool) -> None:
    run = write_run(tmp_path / "run", [pair("p", chosen="a long reply " * 400)])
    with served(run) as server:
        tab = begin(browser, server, "Ann")
        for dark in (False, True):
            tab.resize(390 if phone else 1280, 800, phone=phone, dark=dark)
            assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            assert tab.evaluate(CONTRASTS) == []
        nodes: list[dict[str, Any]] = tab.send("Accessibility.getFullAXTree")["nodes"]
        found = [(n.get("role", {}).get("value"), n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")]
        assert [name for role, name in found if role in ("button", "progressbar", "textbox", "dialog") and not name] == []
        assert {"main", "status"} <= {role for role, _ in found}
        assert ("heading", "Which answer is better?") in found
        if not phone:  # what scrolls can be scrolled by keyboard
            assert any(role == "region" and name.startswith("Answer") for role, name in found)
        small = "[...document.querySelectorAll('button')].filter((b) => b.offsetHeight && b.offsetHeight < 24).length"
        assert tab.evaluate(small) == 0  # WCAG 2.5.8
        assert tab.console == []


# WCAG's contrast of every shown text with what is behind it; at least 4.5, or 3 for large text.
CONTRASTS = """
(() => {
  const channels = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
    const v = c[i] / 255;
    return sum + w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const c = channels(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.offsetParent || element.matches(':disabled, .skip')) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(channels(style.color)), light(behind(element))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < wanted) bad.push(`${element.tagName} ${element.textContent.trim().slice(0, 30)}`);
  }
  return bad;
})()
"""


@pytest.mark.parametrize(
    ("width", "phone", "dark"), [(1280, False, False), (1280, False, True), (390, True, False)], ids=["light", "dark", "phone"]
)
def test_axe_finds_nothing_serious(browser: Chromium, tmp_path: Path, *, width: int, phone: bool, dark: bool) -> None:
    run = write_run(tmp_path / "run", [pair(f"p{n}") for n in range(2)])
    with served(run) as server:
        tab = browser.tab()
        tab.resize(width, 900, phone=phone, dark=dark)
        tab.send("Page.setBypassCSP", enabled=True)  # axe's own script is none of the page's
        tab.open(server.url)
        tab.wait("document.getElementById('name-dialog').open")
        assert faults(tab) == []
        tab.type("Ann")
        tab.press("Enter")
        tab.wait("!document.getElementById('ask').hidden")
        tab.press("d")
        tab.press("n")
        assert faults(tab) == []
        tab.press("Escape")
        for dialog in ("help", "overview"):
            tab.evaluate(f"document.getElementById('open-{dialog}').click()")
            tab.wait(f"document.getElementById('{dialog}-dialog').open")
            assert faults(tab) == []
            tab.press("Escape")
