"""The list of tasks: each is done on a real service, by the page or the command that its row names."""

from __future__ import annotations

import datetime
import hashlib
import html
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from quota_engine.client import ServiceClient
from tests.docs.test_runbook import OFFICES
from tests.service.test_runner import Served, served
from tests.support.paths import DOCS, ROOT

pytestmark = pytest.mark.slow

PAGE = (DOCS / "tasks.md").read_text(encoding="utf-8")
TASKS = dict(re.findall(r"^\| (\d+) \| .* \| (.*) \|$", PAGE, re.MULTILINE))
TOKEN = "b3BlcmF0b3Igb2YgdGhlIHRhc2tz"  # noqa: S105
IDENTITY_KEY = "YSBrZXkgZm9yIHRlc3RzIG9ubHk="
ANI, BUDI, CITRA = "3578012345678901", "3578012345678902", "3578012345678903"
ALL_DAY = 'hours = { start = "00:00", end = "23:59" }\n'
"""People of today can be checked in at any time of a test."""
CONFIGURATION = """
catalog = "offices.toml"
backend = "sqlite://{folder}/data.db"
identity_key = "{key}"
[[tokens]]
name = "operator"
role = "operator"
sha256 = "{digest}"
[waiting_rooms]
offices = ["surabaya"]
join_opens_before_ms = 86400000
"""


class World(NamedTuple):
    """A service with a release in half an hour, the folder of its files, and the variables of the commands."""

    service: Served
    folder: Path
    variables: dict[str, str]

    @property
    def day(self) -> datetime.date:
        return datetime.date.fromisoformat(self.variables["DAY"])

    def run(self, task: int, given: str = "") -> str:
        """Run the command in the row of a task, and return its output."""
        (command, *_) = re.findall(r"`((?:quota-engine|curl) [^`]*)`", TASKS[str(task)])
        done = subprocess.run(
            ["/bin/bash", "-euc", command],
            cwd=self.folder, env=self.variables, input=given, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


class Browser:
    """Browser that submits the forms of the page it has read."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, follow_redirects=True, cookies={"lang": "en"}, timeout=30)
        self.page = ""

    def open(self, path: str) -> str:
        self.page = self.http.get(path).text
        return self.page

    def submit(self, action: str, **fields: str) -> str:
        """Submit the form with this action, and return the next page. A field of the form keeps its value."""
        (form,) = re.findall(rf'<form[^>]*action="{action}"[^>]*>.*?</form>', self.page, re.DOTALL)[:1] or [""]
        assert form, self.page
        hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form)
        data = {**{name: html.unescape(value) for name, value in hidden}, **fields}
        self.page = self.http.post(action, data=data).text
        return self.page

    def sign_in(self) -> None:
        self.open("/operator?lang=en")
        self.submit("/operator/login", token=TOKEN)

    def find_code(self) -> str:
        """Return the registration code of the page."""
        found = re.search(r'<p class="code">.*?<strong>([^<]+)</strong>', self.page)
        assert found, self.page
        return found[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("tasks")
    now = datetime.datetime.now(datetime.UTC)
    for name in ("offices.toml", "offices.new.toml"):
        text = OFFICES.format(at=now + datetime.timedelta(minutes=30)).replace("[[offices]]", f"{ALL_DAY}[[offices]]")
        (folder / name).write_text(text, encoding="utf-8")
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    (folder / "quota.toml").write_text(CONFIGURATION.format(folder=folder, key=IDENTITY_KEY, digest=digest))
    (folder / "operator.token").write_text(TOKEN)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    sources = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    with served(folder, "--config", "quota.toml") as service:
        (office,) = httpx.get(f"{service.url}/v1/offices", timeout=30).json()["offices"]
        opening = datetime.datetime.fromtimestamp(office["next_opening_at_ms"] / 1000, datetime.UTC)
        variables = {
            **os.environ, "PATH": path, "PYTHONPATH": sources, "COLUMNS": "80",
            "URL": service.url, "OFFICE": "surabaya",
            "DAY": str(now.date() + datetime.timedelta(days=3)),
            "CLOSED_DAY": str(now.date() + datetime.timedelta(days=2)),
            "ROOM": f"surabaya-{opening:%Y%m%dT%H%M}", "QUOTA_ENGINE_IDENTITY_KEY": IDENTITY_KEY,
            "QUOTA_ENGINE_BACKEND": f"sqlite://{folder}/data.db",
        }  # fmt: skip
        yield World(service, folder, variables)


@pytest.fixture
def browser(world: World) -> Iterator[Browser]:
    browser = Browser(world.service.url)
    with browser.http:
        yield browser


@pytest.fixture
def computer(world: World) -> Iterator[Browser]:
    """Another browser."""
    browser = Browser(world.service.url)
    with browser.http:
        yield browser


def book(world: World, day: datetime.date | str, person: str) -> str:
    """Give a person a confirmed place, and return its reference."""
    with ServiceClient.open(world.service.url, TOKEN) as client:
        held = client.reserve("surabaya", day, person, service="new")
        assert client.confirm(held.reference).ok, held
        return held.reference


def test_list_has_twenty_tasks_whose_labels_are_those_of_the_pages() -> None:
    assert list(TASKS) == [str(number) for number in range(1, 21)]
    file = ROOT / "src/quota_engine/service/pages/texts/en.toml"
    texts = {text for table in tomllib.loads(file.read_text(encoding="utf-8")).values() for text in table.values()}
    labels = {label for row in TASKS.values() for label in re.findall(r"\*([^*]+)\*", row)}
    assert len(labels) > 5
    assert labels <= texts


def test_operator_sees_and_changes_days(world: World, browser: Browser) -> None:
    browser.sign_in()
    assert "surabaya" in world.run(1)
    assert str(world.day) in browser.open(f"/operator/dashboard?lang=en&open={world.day}")
    browser.open(f"/operator/day?office=surabaya&day={world.day}&lang=en")
    assert "The capacities were saved." in browser.submit("/operator/day/capacity", **{"capacity-online": "25"})
    with ServiceClient.open(world.service.url, TOKEN) as client:
        assert client.availability("surabaya", world.day)[0].quotas["online"].capacity == 25
    moved = book(world, world.variables["CLOSED_DAY"], CITRA)
    world.run(3)
    with ServiceClient.open(world.service.url, TOKEN) as client:
        record = client.lookup(moved)
        assert record is not None
        assert str(datetime.date.fromordinal(record.day)) != world.variables["CLOSED_DAY"]


def test_operator_checks_in_and_finds_a_person(world: World, browser: Browser) -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    book(world, today, BUDI)
    browser.sign_in()
    browser.open(f"/operator/queue?office=surabaya&day={today}&lang=en")
    found = browser.submit("/operator/queue/find", nik=BUDI)
    assert "Print tickets" in found
    assert BUDI not in found
    browser.open(f"/operator/queue?office=surabaya&day={today}&lang=en")
    browser.submit("/operator/queue/check-in", number="1")
    with ServiceClient.open(world.service.url, TOKEN) as client:
        assert [one.state for one in client.list_reservations("surabaya", today)] == ["ATTENDED"]


def test_citizen_books_finds_and_cancels(world: World, browser: Browser, computer: Browser) -> None:
    assert f'value="{world.day}|' in browser.open("/?lang=en&service=new")
    slot = re.findall(rf'name="slot" value="({world.day}\|[^"]*)"', browser.page)[0]
    assert "Finish registration" in browser.submit("/reserve", nik=ANI, slot=slot)
    assert "You are registered" in browser.submit("/reservation/confirm", declaration="yes")
    code = browser.find_code()
    computer.open("/find?lang=en&office=surabaya")
    assert "You are registered" in computer.submit("/find", nik=ANI, code=code)
    assert "Registration canceled" in computer.submit("/reservation/cancel", sure="yes")


def test_citizen_joins_and_journalist_verifies_a_room(world: World, browser: Browser) -> None:
    browser.open("/?lang=en&service=new")
    assert "Your ticket number: 1." in browser.submit("/room/join", nik=ANI)
    assert '"quotas":' in world.run(11)
    world.run(12)
    shutil.copy(world.folder / "before.json", world.folder / "after.json")
    assert "No contradiction so far." in world.run(13)
    assert "after.json" in browser.open("/check?lang=en")


def test_journalist_verifies_a_draw(world: World) -> None:
    for file in (DOCS / "draw").iterdir():
        shutil.copy(file, world.folder)
    assert "the result follows from its seed, applications and capacities" in world.run(14)


def test_administrator_sets_up_and_checks_a_service(world: World) -> None:
    world.run(15, "Klinik Baru\n\n\n\n\n")
    assert (world.folder / "booking" / "operator.token").is_file()
    assert "Valkey" in world.run(16) or "store" in world.run(16)
    assert world.run(17).startswith("the configuration is valid")
    assert world.run(18)
    assert "nothing is wrong" in world.run(19)
    assert "no findings" in world.run(20)
