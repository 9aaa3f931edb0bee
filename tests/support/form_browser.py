"""Browsers without JavaScript: they keep cookies, and submit the forms of the pages they have read."""

from __future__ import annotations

__all__ = ["DECLARED", "SLOT", "CitizenBrowser", "OperatorBrowser", "csrf_token_of", "heading"]

import html
import re
from collections.abc import Mapping
from typing import Final

import httpx

from quota_engine.service.http.auth import Role
from tests.support.in_process_service import DAY, NIK, TOKENS, Client

SLOT: Final = f"{DAY}|morning"
DECLARED: Final = {"declaration": "yes"}


def _http(client: Client) -> httpx.AsyncClient:
    transport = client.http._transport
    return httpx.AsyncClient(transport=transport, base_url="http://service", follow_redirects=True)


class CitizenBrowser:
    """Browser of a citizen, which remembers the last page."""

    def __init__(self, client: Client) -> None:
        self.http = _http(client)
        self.page = ""

    async def get(self, path: str = "/", **headers: str) -> httpx.Response:
        """Open a page."""
        response = await self.http.get(path, headers=headers)
        self.page = response.text
        return response

    def fields(self, action: str) -> dict[str, str]:
        """Return the hidden fields of the last page's form with this action."""
        (form,) = re.findall(rf'<form[^>]*action="{action}".*?</form>', self.page, re.DOTALL)[:1] or [""]
        assert form, self.page
        found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form)
        return {name: html.unescape(value) for name, value in found}

    async def submit(self, action: str, fields: Mapping[str, object] | None = None, **headers: str) -> httpx.Response:
        """Submit the last page's form with this action, with some fields filled in."""
        data = {**self.fields(action), **(fields or {})}
        response = await self.http.post(action, data=data, headers=headers)
        self.page = response.text
        return response

    async def reserve(self, *niks: str, slot: str = SLOT) -> httpx.Response:
        """Open the start page, and submit its reserve form."""
        await self.get("/?service=new")
        return await self.submit("/reserve", {"nik": list(niks or (NIK,)), "slot": slot})


class OperatorBrowser:
    """Browser of an operator."""

    def __init__(self, client: Client) -> None:
        self.http = _http(client)
        self.csrf_token = ""

    async def sign_in(self, role: Role, token: str = "") -> httpx.Response:
        """Forget all cookies, and sign in with the token of a role."""
        self.http.cookies.clear()
        csrf_token = csrf_token_of((await self.http.get("/operator")).text)
        data = {"csrf_token": csrf_token, "token": token or TOKENS[role]}
        response = await self.http.post("/operator/login", data=data)
        self.csrf_token = csrf_token_of(response.text)
        return response

    async def get(self, path: str) -> str:
        """Return the text of a page of any status."""
        return html.unescape((await self.http.get(path)).text)

    async def submit(self, form: str, **fields: str) -> httpx.Response:
        """Submit a form about the first day."""
        data = {"office": "surabaya", "day": str(DAY), "csrf_token": self.csrf_token, **fields}
        return await self.http.post(f"/operator/{form}", data=data)

    async def counters(self, quota: str) -> list[int]:
        """Return the counters of a quota on the dashboard's first day.

        In order: capacity, confirmed, held, cooling, available and overbooked.
        """
        page = await self.get("/operator/dashboard?lang=en&open=" + str(DAY))
        found = re.search(rf'<th scope="row"[^>]*>{quota}</th>(.*?)</tr>', page, re.DOTALL)
        assert found, page
        return [int(number) for number in re.findall(r"<span>([0-9]+)</span>", found[1])]


def csrf_token_of(page: str) -> str:
    """Return the CSRF token of a page's forms, which is the same in all of them."""
    tokens = set(re.findall(r'name="csrf_token" value="([^"]*)"', page))
    assert len(tokens) <= 1, page
    return tokens.pop() if tokens else ""


def heading(page: str) -> str:
    """Return the heading of a page."""
    found = re.search(r"<h1>(.*?)</h1>", page)
    assert found, page
    return html.unescape(found[1])
