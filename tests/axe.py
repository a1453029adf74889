"""axe-core on a page in Chromium: what a person with other senses, hands or screens would stumble over.

Its script comes with the PyPI package axe-playwright-python, of the `dev` extra; nothing else of that package is used.
"""

from __future__ import annotations

from importlib import resources, util

import pytest

from tests.chromium import Tab

BAD = ("serious", "critical")


def faults(tab: Tab) -> list[str]:
    """What axe calls serious or critical on the page as it stands: rule, element, and what is wrong; [] for nothing."""
    if util.find_spec("axe_playwright_python") is None:
        pytest.skip("axe-playwright-python is not installed (it is in the dev extra): the page is not tried with axe")
    tab.evaluate(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8") + ";0")
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']}).then((result) => result.violations)")
    return [
        f"{each['id']} ({each['impact']}) at {node['target']}: {node['failureSummary']}"
        for each in found
        if each["impact"] in BAD
        for node in each["nodes"]
    ]
