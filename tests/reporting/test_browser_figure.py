"""Figures of a report in a real browser of the size of a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from quota_engine.bench.compare import compare_results
from quota_engine.bench.report import html_report
from tests.support.bench_results import case_with, result_with
from tests.support.browser import PhoneBrowser

pytestmark = pytest.mark.browser

_SMALLEST_TEXT = """return Math.min(...[...document.querySelectorAll("svg text")]
    .filter((one) => one.getBoundingClientRect().width).map((one) => one.ownerSVGElement)
    .map((svg) => 13 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width))"""
_HIDDEN = "return document.documentElement.scrollWidth > innerWidth ? document.documentElement.scrollWidth : 0"


def test_a_report_shows_everything_on_a_phone_and_its_values_on_focus(tmp_path: Path) -> None:
    cases = [
        case_with((90.0, 100.0, 110.0, 105.0, 95.0), name=name, concurrency=callers)
        for name, callers in (("reserve, lone", 1), ("reserve", 8), ("reserve", 64))
    ]
    report = tmp_path / "report.html"
    report.write_text(html_report(result_with(*cases), compare_results(result_with(*cases), result_with(*cases))))
    with PhoneBrowser(report.as_uri(), tmp_path / "profile") as phone:
        for width in (320, 390, 600, 1100):
            phone.resize(width)
            phone.open("")
            assert phone.driver.execute_script(_HIDDEN) == 0, width
            assert phone.driver.execute_script(_SMALLEST_TEXT) >= 12, width
        phone.check_accessibility()
        phone.driver.execute_script("document.querySelectorAll('.wide svg[data-box]')[2].focus()")
        readout = phone.driver.switch_to.active_element.find_element("xpath", "ancestor::figure/p")
        before = readout.text
        phone.type(Keys.END)
        assert before.startswith("round 1 ")
        assert readout.text.startswith("round 5 ")
        phone.driver.execute_script("document.querySelector('.wide [data-value]').focus()")
        readout = phone.driver.switch_to.active_element.find_element("xpath", "ancestor::figure/p")
        assert readout.text == "reserve, lone: p50 900 \u00b5s, p99 2.4 ms"
