"""``quota-engine draw``: from a catalog to a result that can be checked, exit codes, and what never goes anywhere."""

from __future__ import annotations

import datetime
import hashlib
import json
import pathlib
import shutil
import stat
from random import Random
from typing import Any

import pytest

from quota_engine.catalog import load_catalog
from quota_engine.cli import main
from quota_engine.domain.errors import InvalidRequest, UnknownName
from quota_engine.draws.capacities import capacities_of_catalog

IDENTITY = "3578011203850007"
SEED = "53a9317dfe17d56c867632fac3b5afd613172e879fcc7c92624116511f99aaaa"


def run(*words: object) -> int:
    return main.main(["draw", *map(str, words)])


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A draw that has been carried out: two days of Surabaya, 300 applications. Tests change a copy."""
    tmp_path = tmp_path_factory.mktemp("draw")
    days = ("--first-day", "2026-12-07", "--last-day", "2026-12-08")
    capacities = tmp_path / "offered.json"
    assert run("capacities", "surabaya", "--draw", "dec", *days, "--group", "priority", "--out", capacities) == 0
    names = [choice["name"] for choice in json.loads(capacities.read_text())["choices"]]
    random = Random(1)
    rows = ["number,applicants,choices"]
    for number in range(1, 301):
        party = [f"{IDENTITY}-{number}-{index}" for index in range(random.choice((1, 2)))]
        rows.append(f"{number},{' '.join(party)},{' '.join(random.sample(names, 3))}")
    (tmp_path / "received.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "key").write_text("00112233445566778899aabbccddeeff\n")
    (tmp_path / "seed").write_text(f"{SEED}\n")
    published = tmp_path / "published"
    key = ("--key-file", tmp_path / "key")
    assert run("freeze", tmp_path / "received.csv", "--capacities", capacities, "--out", published, *key) == 0
    assert run_it(tmp_path) == 0
    return tmp_path


@pytest.fixture
def folder(carried_out: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> pathlib.Path:
    """A copy of the draw that has been carried out."""
    shutil.copytree(carried_out, tmp_path, dirs_exist_ok=True)
    capsys.readouterr()
    return tmp_path


def run_it(folder: pathlib.Path, *words: object) -> int:
    published = folder / "published"
    files = ("--capacities", published / "capacities.json", "--seed-file", folder / "seed")
    return run("run", published / "applications.jsonl", *files, "--out", published / "result.jsonl", *words)


def verify(folder: pathlib.Path, *words: object) -> int:
    published = folder / "published"
    files = ("--applications", published / "applications.jsonl", "--capacities", published / "capacities.json")
    return run("verify", published / "result.jsonl", *files, *words)


def read(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    figures = json.loads(capsys.readouterr().out)
    assert isinstance(figures, dict)
    return figures


def test_another_result_than_the_earlier_one_is_found(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same files with another text: each result is valid alone, and the second contradicts the first."""
    earlier = folder / "earlier.jsonl"
    earlier.write_bytes((folder / "published" / "result.jsonl").read_bytes())
    assert verify(folder, "--earlier", earlier) == 0
    assert run_it(folder, "--entropy", "7,123.46") == 0
    assert verify(folder) == 0
    capsys.readouterr()
    assert verify(folder, "--earlier", earlier) == 1
    assert "WRONG: the entropy was '' before, and is '7,123.46' now" in capsys.readouterr().out


def test_the_receipt_of_a_lost_application_is_found(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another application has its number, or none."""
    lines = (folder / "published" / "applications.jsonl").read_text().splitlines()
    token = json.loads(lines[6])["applicants"][0]
    assert verify(folder, "--number", 7, "--token", token) == 0
    capsys.readouterr()
    assert verify(folder, "--number", 8, "--token", token) == 1
    assert "WRONG: application 8 has not the token of the receipt" in capsys.readouterr().out
    assert verify(folder, "--number", 999, "--token", token) == 1
    assert "WRONG: application 999 of the receipt is not in the list" in capsys.readouterr().out
    assert verify(folder, "--token", token) == 2


def test_a_draw_on_files_can_be_verified(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Digests are what sha256sum says; the places of both days are given away; the check finds nothing."""
    assert run_it(folder, "--json") == 0
    figures = read(capsys)
    for name in ("applications", "result", "capacities"):
        (path,) = (folder / "published").glob(f"{name}.*")
        assert figures[f"{name}_digest"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert figures["commitment"] == hashlib.sha256(f"dec {SEED}".encode()).hexdigest()
    assert figures["places"] == 240
    assert sum(figures["by_preference"]) == figures["applications"] == 300
    assert verify(folder, "--json", "--commitment", figures["commitment"]) == 0
    checked = read(capsys)
    assert checked["ok"] is True
    assert checked["findings"] == []
    assert checked["winners"] == figures["winners"]


def test_the_same_input_gives_the_same_bytes(folder: pathlib.Path) -> None:
    """The order of the lines does not matter, and CSV equals JSON Lines."""
    result = folder / "published" / "result.jsonl"
    before = result.read_bytes()
    applications = folder / "published" / "applications.jsonl"
    lines = applications.read_text().splitlines()
    Random(3).shuffle(lines)
    mixed = folder / "mixed.csv"
    rows = [json.loads(line) for line in lines]
    mixed.write_text(
        "choices,number,applicants,party\r\n"
        + "".join(
            f"{' '.join(row['choices'])},{row['number']},{' '.join(row['applicants'])},{row['party']}\r\n"
            for row in rows
        ),
        "utf-8-sig",
    )
    files = ("--capacities", folder / "offered.json", "--seed-file", folder / "seed", "--out", folder / "again.jsonl")
    assert run("run", mixed, *files) == 0
    assert (folder / "again.jsonl").read_bytes() == before


def test_another_entropy_is_another_draw(folder: pathlib.Path) -> None:
    result = folder / "published" / "result.jsonl"
    before = result.read_bytes()
    assert run_it(folder, "--entropy", "IHSG 7,123.45") == 0
    assert result.read_bytes() != before
    assert verify(folder, "--entropy", "IHSG 7,123.45") == 0
    assert verify(folder, "--entropy", "IHSG 7,123.46") == 1


def test_published_files_contain_no_identity(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the identity nor its unkeyed hash is in a file or in an output."""
    assert verify(folder, "--number", "17") == 0
    told = capsys.readouterr()
    texts = [path.read_text() for path in (folder / "published").iterdir()] + [told.out, told.err]
    assert len(texts) == 5
    plain = [f"{IDENTITY}-{number}-0" for number in range(1, 301)]
    hashed = [name(text.encode()).hexdigest()[:32] for text in plain for name in (hashlib.sha256, hashlib.md5)]
    hashed += [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in plain]
    for text in texts:
        assert IDENTITY not in text
        assert not [one for one in hashed if one in text]
    assert not [text for text in texts[-2:] if SEED in text]


def test_verify_shows_one_application(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output has choices, lot and rank; sha256sum gives the same lot."""
    lines = [json.loads(line) for line in (folder / "published" / "result.jsonl").read_text().splitlines()[1:]]
    winner = next(line for line in lines if line.get("preference") == 1)
    assert verify(folder, "--json", "--number", winner["number"]) == 0
    told = read(capsys)["application"]
    assert told["lot"] == hashlib.sha256(f"{told['order_key']} {winner['number']}".encode()).hexdigest()
    assert told["rank"] == f"{winner['rank']} of 300"
    assert told["got"] == f"choice 1: {told['choices'][0]}"
    assert "surabaya 2026-12-0" in told["got"]
    assert verify(folder, "--number", winner["number"]) == 0
    assert f"got                  choice 1: {told['choices'][0]}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "old", "new", "finding"),
    [
        ("result.jsonl", SEED, "0" * 64, "the seed does not match the commitment"),
        ("result.jsonl", '"preference":1', '"preference":2', "best available choice was"),
        ("applications.jsonl", '"number":17,', '"number":1700,', "the applications have the digest"),
        ("capacities.json", '"online": 100', '"online": 101', "the capacities have the digest"),
    ],
)
def test_a_changed_file_exits_with_1(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, finding: str
) -> None:
    path = folder / "published" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert verify(folder) == 1
    out = capsys.readouterr().out
    assert f"WRONG: {finding}" in out or finding in out
    assert "The draw is not valid." in out
    assert verify(folder, "--json") == 1
    assert read(capsys)["ok"] is False


def test_digests_are_those_of_the_bytes(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The contents are the same, but ``sha256sum`` of the file is not the published digest."""
    for name, change in (
        ("applications.jsonl", lambda text: text.replace('"party":', '"party": ')),
        ("applications.jsonl", lambda text: "".join(reversed(text.splitlines(keepends=True)))),
        ("capacities.json", lambda text: text.replace("  ", " ")),
        ("result.jsonl", lambda text: "".join(text.splitlines(keepends=True)[at] for at in (0, *range(300, 0, -1)))),
    ):
        path = folder / "published" / name
        text = path.read_text()
        path.write_text(change(text))
        assert path.read_text() != text
        assert verify(folder) == 1, name
        out = capsys.readouterr().out
        assert "have the digest" in out or "comes after that of" in out
        path.write_text(text)
    assert verify(folder) == 0


def test_both_digests_are_compared_or_none(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output names the published values that were not given."""
    digests = {
        name: hashlib.sha256((folder / "published" / file).read_bytes()).hexdigest()
        for name, file in (("applications", "applications.jsonl"), ("capacities", "capacities.json"))
    }
    for name, digest in digests.items():
        assert verify(folder, f"--{name}-digest", digest) == 2
        assert "missing beside the other digest" in capsys.readouterr().err
    assert verify(folder) == 0
    out = capsys.readouterr().out
    assert "NOT COMPARED with what was published before the draw: commitment, applications digest, capacities" in out
    commitment = hashlib.sha256(f"dec {SEED}".encode()).hexdigest()
    both = [word for name, digest in digests.items() for word in (f"--{name}-digest", digest)]
    assert verify(folder, *both) == 0
    assert "before the draw: commitment.\n" in capsys.readouterr().out
    assert verify(folder, *both, "--commitment", commitment, "--json") == 0
    assert read(capsys)["not_compared"] == []
    assert verify(folder, *both, "--commitment", commitment) == 0
    assert capsys.readouterr().out.endswith("seed, applications and capacities.\n")


def test_commit_keeps_an_existing_seed(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is secret and random, only the owner can read it, and a second call does not overwrite it."""
    seed_file = tmp_path / "seed"
    assert run("commit", "dec", "--seed-file", seed_file, "--json") == 0
    told = capsys.readouterr()
    seed = seed_file.read_text().strip()
    assert json.loads(told.out)["commitment"] == hashlib.sha256(f"dec {seed}".encode()).hexdigest()
    assert seed not in told.out + told.err
    assert stat.S_IMODE(seed_file.stat().st_mode) == 0o600
    assert run("commit", "dec", "--seed-file", seed_file) == 2
    assert seed_file.read_text().strip() == seed
    assert run("commit", "dec", "--seed-file", tmp_path / "other") == 0
    assert (tmp_path / "other").read_text().strip() != seed


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["commit", "a b", "--seed-file", "new"], "draw: not a valid id"),
        (["commit", "dec", "--seed-file", "none/seed"], "--seed-file"),
        (["capacities", "atlantis", "--draw", "d", "--first-day", "2026-12-07", "--out", "x.json"], "no built-in"),
        (["capacities", "surabaya", "--draw", "d", "--first-day", "2026-12-06", "--out", "x.json"], "no office works"),
        (["capacities", "surabaya", "--draw", "d", "--first-day", "soon", "--out", "x.json"], "first-day"),
        (["capacities", "surabaya", "--draw", "d", "--first-day", "2026-12-07", "--out", "x.txt"], "ends in .json"),
        (["freeze", "none.csv", "--capacities", "offered.json", "--out", "p"], "none.csv"),
        (["freeze", "bad.csv", "--capacities", "offered.json", "--out", "p"], "line 2"),
        (["freeze", "twice.csv", "--capacities", "offered.json", "--out", "p"], "an applicant is in application"),
        (["freeze", "latin.csv", "--capacities", "offered.json", "--out", "p"], "not utf-8"),
        (["freeze", "received.csv", "--capacities", "received.csv", "--out", "p"], "a capacities file"),
        (
            ["freeze", "received.csv", "--capacities", "offered.json", "--out", "p", "--key-file", "received.csv"],
            "not a key",
        ),
        (["freeze", "received.csv", "--capacities", "offered.json", "--out", "p", "--key-file", "short"], "16 to 64"),
        (
            ["run", "received.csv", "--capacities", "offered.json", "--seed-file", "key", "--out", "r.jsonl"],
            "not a seed",
        ),
        (
            ["run", "received.csv", "--capacities", "offered.json", "--seed-file", "seed", "--out", "r.csv"],
            "ends in .jsonl",
        ),
        (
            [
                *("run", "received.csv", "--capacities", "offered.json", "--seed-file", "seed", "--out", "r.jsonl"),
                *("--entropy", "é"),
            ],
            "entropy: not usable",
        ),
        (["verify", "seed", "--applications", "received.csv", "--capacities", "offered.json"], "head of a draw"),
        (
            [
                *("verify", "published/result.jsonl", "--applications", "received.csv", "--capacities", "offered.json"),
                *("--commitment", "12"),
            ],
            "--commitment: not a sha-256",
        ),
        (
            [
                *("verify", "published/result.jsonl", "--applications", "received.csv", "--capacities", "offered.json"),
                *("--number", "999"),
            ],
            "no application 999",
        ),
    ],
)
def test_bad_input_exits_with_2_and_names_the_error(
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(folder)
    (folder / "bad.csv").write_text(f"number,applicants,choices\nmany,{IDENTITY},c\n")
    choice = json.loads((folder / "offered.json").read_text())["choices"][0]["name"]
    (folder / "twice.csv").write_text(f"number,applicants,choices\n1,{IDENTITY},{choice}\n2,{IDENTITY},{choice}\n")
    (folder / "latin.csv").write_bytes(b"number,applicants,choices\n1,\xe9,c\n")
    (folder / "short").write_text("0011\n")
    assert run(*words) == 2
    told = capsys.readouterr()
    assert complaint in told.err.lower()
    assert told.out == ""
    assert "Traceback" not in told.err
    assert IDENTITY not in told.err
    assert SEED not in told.err
    assert not list(folder.glob("r.*"))


def test_capacities_of_a_catalog() -> None:
    """A choice for each service, session and group that an allotment admits; guards and allotments are counted once."""
    catalog = load_catalog("surabaya")
    monday = datetime.date(2026, 12, 7)
    capacities = capacities_of_catalog(catalog, "d", monday, monday)
    assert dict(capacities.days) == {
        ("surabaya", monday.toordinal()): {"afternoon": 80, "morning": 120, "online": 100},
    }
    assert sorted(capacities.preferences) == [
        f"surabaya-2026-12-07-{service}-{session}"
        for service in ("new", "renewal")
        for session in ("afternoon", "morning")
    ]
    assert capacities.preferences["surabaya-2026-12-07-new-morning"].choice.options == (("online", "morning"),)
    with_group = capacities_of_catalog(catalog, "d", monday, monday, groups=("", "priority"))
    options = with_group.preferences["surabaya-2026-12-07-new-morning-priority"].choice.options
    assert options == (("priority", "morning"), ("online", "morning"))
    national = capacities_of_catalog(load_catalog("indonesia"), "d", monday, monday)
    assert len({office for office, _ in national.days}) > 100


def test_capacities_rejects_unknown_names() -> None:
    catalog = load_catalog("surabaya")
    monday = datetime.date(2026, 12, 7)
    for change in ({"offices": ("atlantis",)}, {"channel": "smoke"}, {"groups": ("rich",)}):
        with pytest.raises(UnknownName):
            capacities_of_catalog(catalog, "d", monday, monday, **change)
    with pytest.raises(InvalidRequest, match="0 days"):
        capacities_of_catalog(catalog, "d", monday, monday - datetime.timedelta(days=1))
    with pytest.raises(InvalidRequest, match="401 days"):
        capacities_of_catalog(catalog, "d", monday, monday + datetime.timedelta(days=400))
