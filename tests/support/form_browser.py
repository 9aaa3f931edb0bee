"""An operator's browser without JavaScript: keeps cookies, and sends the forms that it was given."""

from __future__ import annotations

__all__ = ["Desk", "mark_of"]

import html
import re

import httpx

from quota_engine.service.http.auth import Role
from tests.support.in_process_service import DAY, TOKENS, Client


class Desk:
    """Signs in, looks, and sends."""

    def __init__(self, client: Client) -> None:
        transport = client.http._transport
        self.http = httpx.AsyncClient(transport=transport, base_url="http://service", follow_redirects=True)
        self.mark = ""

    async def sign_in(self, role: Role, token: str = "") -> httpx.Response:
        """As somebody anew."""
        self.http.cookies.clear()
        mark = mark_of((await self.http.get("/operator")).text)
        response = await self.http.post("/operator/login", data={"mark": mark, "token": token or TOKENS[role]})
        self.mark = mark_of(response.text)
        return response

    async def get(self, path: str) -> str:
        """The text of a page, however it is answered."""
        return html.unescape((await self.http.get(path)).text)

    async def do(self, what: str, **fields: str) -> httpx.Response:
        """Send a form of the first day's."""
        data = {"office": "surabaya", "day": str(DAY), "mark": self.mark, **fields}
        return await self.http.post(f"/operator/{what}", data=data)

    async def row(self, quota: str) -> list[int]:
        """Capacity, confirmed, held, cooling, available and overbooked of a quota on the first day of the board."""
        page = await self.get("/operator/board?lang=en")
        found = re.search(rf'<th scope="row"[^>]*>{quota}</th>(.*?)</tr>', page, re.DOTALL)
        assert found, page
        return [int(number) for number in re.findall(r"<span>([0-9]+)</span>", found[1])]


def mark_of(page: str) -> str:
    """The mark in a page's forms; all have the same."""
    marks = set(re.findall(r'name="mark" value="([^"]*)"', page))
    assert len(marks) <= 1, page
    return marks.pop() if marks else ""
