"""Tests of the tables that a notebook shows."""

from __future__ import annotations

from quota_engine import AuditReport, ManualClock, QuotaEngine, Status, load_catalog
from quota_engine.domain.notebook_tables import html_table
from quota_engine.domain.outcomes import Outcome

CATALOG = load_catalog("surabaya")
DAY = "2026-12-07"
IDENTITY = "3578012345678901"


def test_table_escapes_its_texts() -> None:
    assert html_table("<a>", ("b&c",), [("<d>",), (1,)]) == (
        "<table><caption>&lt;a&gt;</caption><tr><th>b&amp;c</th></tr><tr><td>&lt;d&gt;</td></tr><tr><td>1</td></tr></table>"
    )


def test_outcome_shows_its_reservation_without_the_applicants() -> None:
    clock = ManualClock.at("2026-12-04T14:00:00+07:00")
    with QuotaEngine.open("memory://", catalog=CATALOG, clock=clock) as engine:
        engine.publish(CATALOG, DAY)
        held = engine.reserve("surabaya", DAY, IDENTITY, service="new", session="morning")
        confirmed = engine.confirm(held.reference)
        (day,) = engine.availability("surabaya", DAY)
        engine.close_day("surabaya", DAY)
        (closed,) = engine.availability("surabaya", DAY)
    table = confirmed._repr_html_()
    assert table.startswith("<table><caption>CONFIRMED</caption><tr><td>ok</td><td>True</td></tr>")
    assert f"<td>reference</td><td>{held.reference}</td>" in table
    assert f"<td>day</td><td>{DAY}</td>" in table
    assert "<td>queue numbers</td><td>1</td>" in table
    assert confirmed.reservation is not None
    assert IDENTITY not in table
    assert not any(str(applicant) in table for applicant in confirmed.reservation.applicants)
    assert f"<caption>{DAY}</caption>" in day._repr_html_()
    assert "<tr><td>online</td><td>" in day._repr_html_()
    assert f"<caption>{DAY} (closed)</caption>" in closed._repr_html_()


def test_refusal_shows_when_to_retry() -> None:
    table = Outcome(Status.THROTTLED, retry_at_ms=5, reason="network")._repr_html_()
    assert table == (
        "<table><caption>THROTTLED</caption><tr><td>ok</td><td>False</td></tr>"
        "<tr><td>retry_at_ms</td><td>5</td></tr><tr><td>reason</td><td>network</td></tr></table>"
    )


def test_audit_shows_its_findings() -> None:
    assert AuditReport(2, ())._repr_html_() == "<table><caption>Audit of 2 offices: no inconsistency</caption></table>"
    assert AuditReport(1, ("online: 1 < 2",))._repr_html_() == (
        "<table><caption>Audit of 1 offices: 1 inconsistencies</caption><tr><td>online: 1 &lt; 2</td></tr></table>"
    )
