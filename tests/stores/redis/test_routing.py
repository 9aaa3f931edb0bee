"""Redirections and failovers, step by step, with replies that the test writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.stores.redis.keys import keys_of
from quota_engine.stores.redis.retrying_calls import (
    BlockingWork,
    Call,
    Header,
    Node,
    NotSent,
    ReplyLost,
    RetryPause,
    RetryPolicy,
    Router,
    Step,
    call_plain,
    call_script,
)
from quota_engine.stores.redis.routing import ClusterRouter, SentinelRouter
from quota_engine.stores.redis.scripts import OFFICE_COMMANDS
from quota_engine.stores.redis.server_clock import ServerClocks

KEYS = keys_of("", "office")
A, B, C = (Node("10.0.0.1", port) for port in (1, 2, 3))
S, T = Node("10.0.0.9", 1, is_sentinel=True), Node("10.0.0.9", 2, is_sentinel=True)
SLOT = key_slot(KEYS[0].encode())


def slots(*owners: tuple[int, int, Node]) -> list[Any]:
    """The replies to CLUSTER SLOTS alone."""
    return [[[first, last, [node.host, node.port, "id"]] for first, last, node in owners]]


ALL_A = slots((0, 16383, A))
ALL_B = slots((0, 16383, B))


def play(call: Call[Any], *answers: list[Any] | Exception) -> tuple[Any, list[str]]:
    """Drive a call with these answers to its attempts. Returns its outcome, be it an error, and what it did.

    Questions for a server's time are answered and left out: ``test_server_clock.py`` is about them.
    """
    did: list[str] = []
    left = list(answers)
    try:
        step = next(call)
        while True:
            words = _words(step)
            if words.endswith("TIME"):
                step = call.send([["1000", "0"]])
                continue
            did.append(words)
            answer = [] if isinstance(step, RetryPause) else left.pop(0)
            step = (
                call.throw(answer)
                if isinstance(answer, (NotSent, ReplyLost, BusyLoadingError))
                else call.send([answer] if isinstance(answer, Exception) else answer)
            )
    except StopIteration as end:
        outcome = end.value
    except (BackendUnavailable, OutcomeUnknown) as error:
        outcome = error
    assert left == []
    return outcome, did


def _words(step: Step) -> str:
    assert not isinstance(step, BlockingWork)
    if isinstance(step, RetryPause):
        return "pause"
    words = " ".join(str(request[0]) for request in step.requests(None))
    return f"{step.node} {words}" if step.node else words


def script(router: Router, attempts_max: int = 8) -> Call[list[Any]]:
    policy = RetryPolicy(attempts_max=attempts_max)
    return call_script(OFFICE_COMMANDS, KEYS, Header(), (), policy, router, ServerClocks(), writes=True)


def plain(router: Router, *commands: Sequence[str | int]) -> Call[list[Any]]:
    return call_plain(commands or (("PING",),), RetryPolicy(), router, KEYS[0])


def knowing(*nodes: Node) -> ClusterRouter:
    """A router that knows A as the owner of all."""
    router = ClusterRouter(nodes or (A, B))
    assert play(plain(router), ALL_A, ["PONG"])[0] == ["PONG"]
    return router


class TestCluster:
    """In a cluster."""

    def test_slots_are_queried_once(self) -> None:
        """The first call asks who has what; the next knows."""
        router = ClusterRouter([A])
        assert play(script(router), slots((0, 5, A), (6, 16383, B)), [["done"]]) == (
            ["done"],
            [f"{A} CLUSTER", f"{B} EVALSHA"],
        )
        assert play(script(router), [["done"]]) == (["done"], [f"{B} EVALSHA"])

    def test_moved(self) -> None:
        """The call goes to the new owner at once. The next call queries for the other slots, from another node than
        before.
        """
        router = knowing()
        did = play(script(router), MovedError(f"{SLOT} {C}"), [["done"]])
        assert did == (["done"], [f"{A} EVALSHA", f"{C} EVALSHA"])
        assert play(script(router), ALL_B, [["done"]])[1] == [f"{B} CLUSTER", f"{B} EVALSHA"]

    def test_moved_without_a_host(self) -> None:
        """A server that does not know its own name means the address by which it was reached."""
        router = knowing()
        assert play(script(router), MovedError(f"{SLOT} :7"), [["done"]])[1][1] == f"{A.host}:7 EVALSHA"
        router = ClusterRouter([B])
        assert play(script(router), [[[0, 16383, [None, 8, "id"]]]], [["done"]])[1][1] == f"{B.host}:8 EVALSHA"

    def test_ask(self) -> None:
        """For this once, and with leave to answer; the map stays as it was."""
        router = knowing()
        did = play(script(router), AskError(f"{SLOT} {B}"), ["OK", ["done"]])
        assert did == (["done"], [f"{A} EVALSHA", f"{B} ASKING EVALSHA"])
        assert play(script(router), [["done"]])[1] == [f"{A} EVALSHA"]

    def test_ask_of_a_server_that_does_not_know_the_script(self) -> None:
        """The text goes there, too, and with leave."""
        did = play(script(knowing()), AskError(f"{SLOT} {B}"), ["OK", NoScriptError("none")], ["OK", ["done"]])
        assert did == (["done"], [f"{A} EVALSHA", f"{B} ASKING EVALSHA", f"{B} ASKING EVAL"])

    def test_ask_for_several_commands(self) -> None:
        """Leave is for one command: each needs its own."""
        call = plain(knowing(), ("XTRIM",), ("XLEN",))
        did = play(call, [AskError(f"{SLOT} {B}"), 0], ["OK", 1, "OK", 2])
        assert did == ([1, 2], [f"{A} XTRIM XLEN", f"{B} ASKING XTRIM ASKING XLEN"])

    def test_two_nodes_that_name_each_other(self) -> None:
        """The first redirection is followed at once, the second after a pause; there is an end to it."""
        there, back = MovedError(f"{SLOT} {B}"), MovedError(f"{SLOT} {A}")
        outcome, did = play(script(knowing(), 4), there, back, ALL_A, there, back)
        assert isinstance(outcome, BackendUnavailable)
        calls = [f"{A} EVALSHA", f"{B} EVALSHA", "pause"]
        assert did == [*calls, f"{B} CLUSTER", *calls]

    def test_tryagain(self) -> None:
        """TRYAGAIN passes in a moment: the call is repeated without a query."""
        did = play(script(knowing()), TryAgainError("half moved"), TryAgainError("half moved"), [["done"]])
        assert did == (["done"], [f"{A} EVALSHA", "pause", f"{A} EVALSHA", "pause", f"{A} EVALSHA"])

    def test_clusterdown(self) -> None:
        """After a pause, the owner of the slot is queried again."""
        did = play(script(knowing()), ClusterDownError("The cluster is down"), ALL_B, [["done"]])
        assert did == (["done"], [f"{A} EVALSHA", "pause", f"{B} CLUSTER", f"{B} EVALSHA"])

    def test_a_refused_connection(self) -> None:
        """Other nodes are queried in turn until one answers, and the next time another one is first."""
        router = knowing(A, B, C)
        did = play(
            script(router), NotSent("refused"), NotSent("B, too"), ALL_A, NotSent("refused"), NotSent("A"), ALL_B, [[1]]
        )
        clusters = [f"{B} CLUSTER", f"{C} CLUSTER", f"{A} EVALSHA", "pause", f"{A} CLUSTER", f"{B} CLUSTER"]
        assert did == ([1], [f"{A} EVALSHA", "pause", *clusters, f"{B} EVALSHA"])

    def test_last_known_owner_is_tried_without_an_answer(self) -> None:
        """A failed question is no reason not to try the server that had the slot."""
        did = play(script(knowing()), ReplyLost("cut"), NotSent("refused"), BusyLoadingError("loading"), [["done"]])
        assert did == (["done"], [f"{A} EVALSHA", "pause", f"{B} CLUSTER", f"{A} CLUSTER", f"{A} EVALSHA"])

    def test_server_that_loads_when_its_functions_are_sent(self) -> None:
        """The next attempt, by text, meets the same answer and pauses."""
        loading, unknown = BusyLoadingError("loading"), ResponseError("Function not found")
        router = knowing()
        call = call_script(
            OFFICE_COMMANDS, KEYS, Header(), (), RetryPolicy(), router, ServerClocks(), writes=True, as_function=True
        )
        outcome, did = play(call, [unknown], loading, loading, ALL_A, [["done"]])
        assert outcome == ["done"]
        assert did == [f"{A} FCALL", f"{A} FUNCTION", f"{A} EVAL", "pause", f"{B} CLUSTER", f"{A} FCALL"]

    def test_slot_without_an_owner(self) -> None:
        """The router queries until an owner is known. Nothing was sent before that."""
        outcome, did = play(script(ClusterRouter([A]), 2), [[]], [[]])
        assert isinstance(outcome, BackendUnavailable)
        assert did == [f"{A} CLUSTER", "pause", f"{A} CLUSTER", "pause"]

    def test_node_without_cluster_support(self) -> None:
        """The server's message is in the error."""
        disabled = ResponseError("ERR This instance has cluster support disabled")
        outcome, _ = play(script(ClusterRouter([A]), 1), disabled)
        assert "cluster support disabled" in str(outcome)
        outcome, did = play(script(ClusterRouter([A])), NoPermissionError("no rights to run 'cluster|slots'"))
        assert "permissions that are needed" in str(outcome)
        assert did == [f"{A} CLUSTER"]

    def test_one_call_queries_at_a_time(self) -> None:
        """While one call queries, other calls use the last known owner: a failover causes no storm of queries."""
        router = knowing()
        router.invalidate()
        first = script(router)
        assert _words(next(first)) == f"{B} CLUSTER"
        router.invalidate()
        assert play(script(router), [["done"]])[1] == [f"{A} EVALSHA"]
        assert _words(first.send(slots((0, 16383, C)))) == f"{C} TIME"
        assert _words(first.send([["1000", "0"]])) == f"{C} EVALSHA"
        first.close()
        assert play(script(router), ALL_B, [["done"]])[1] == [f"{A} CLUSTER", f"{B} EVALSHA"]

    def test_interrupted_query_lets_another_call_query(self) -> None:
        """Another call may query then."""
        router = ClusterRouter([A])
        call = script(router)
        next(call)
        call.close()
        assert play(script(router), ALL_B, [["done"]])[0] == ["done"]

    def test_nodes_are_added_and_removed(self) -> None:
        """The nodes that the cluster names can be queried, besides those of the URL. Removed nodes are forgotten."""
        router = ClusterRouter([A])
        play(plain(router), slots((0, 99, B), (100, 16383, C)), ["PONG"])
        router.invalidate()
        assert play(plain(router), NotSent("A"), slots((0, 16383, C)), ["PONG"])[1][:2] == [
            f"{A} CLUSTER",
            f"{B} CLUSTER",
        ]
        router.invalidate()
        assert play(plain(router), NotSent("C"), NotSent("A"), ["PONG"])[1] == [
            f"{C} CLUSTER",
            f"{A} CLUSTER",
            f"{C} PING",
        ]


class TestSentinel:
    """Behind Sentinels."""

    def test_primary_is_queried_once(self) -> None:
        """The first Sentinel that answers decides."""
        router = SentinelRouter([S, T], "tickets")
        did = play(script(router), NotSent("refused"), [[A.host, str(A.port)]], [["done"]])
        assert did == (["done"], [f"{S} SENTINEL", f"{T} SENTINEL", f"{A} EVALSHA"])
        assert play(script(router), [["done"]])[1] == [f"{A} EVALSHA"]

    @pytest.mark.parametrize("trouble", [ReadOnlyError("a replica now"), NotSent("refused"), ReplyLost("cut")])
    def test_next_sentinel_is_queried_after_an_error(self, trouble: Exception) -> None:
        """A demoted primary answers READONLY and a dead one refuses: another Sentinel than before is queried for the
        primary.
        """
        router = SentinelRouter([S, T], "tickets")
        did = play(script(router), [[A.host, "1"]], trouble, [[B.host, "2"]], [["done"]])
        assert did == (["done"], [f"{S} SENTINEL", f"{A} EVALSHA", "pause", f"{T} SENTINEL", f"{B} EVALSHA"])

    def test_unknown_service_is_named(self) -> None:
        """The error names the service."""
        outcome, _ = play(script(SentinelRouter([S, T], "tickets"), 1), [None], [None])
        assert isinstance(outcome, BackendUnavailable)
        assert "'tickets'" in str(outcome)

    def test_lost_answer_is_unknown(self) -> None:
        """The old primary may have applied it, and the new one may have received it."""
        router = SentinelRouter([S], "tickets")
        outcome, _ = play(script(router, 2), [[A.host, "1"]], ReplyLost("cut"), NotSent("S"), NotSent("A"))
        assert isinstance(outcome, OutcomeUnknown)


def test_a_cluster_opened_as_one_server() -> None:
    """A single server cannot redirect: the error names the right URL."""
    outcome, did = play(script(Router()), MovedError(f"{SLOT} {A}"))
    assert isinstance(outcome, BackendUnavailable)
    assert "redis+cluster://" in str(outcome)
    assert did == ["EVALSHA"]
