"""The remedy of each refusal, problem type and error: the next step of the program that received it."""

from __future__ import annotations

__all__ = ["ERROR_REMEDIES", "PROBLEM_REMEDIES", "STATUS_REMEDIES"]

from typing import Final

STATUS_REMEDIES: Final = {
    "OVERLOADED": "Wait a second and send the same call with the same key. If it persists, raise the store's limits.",
    "CONFLICT": "Use a new key for a new request. Send exactly the first request again to repeat it.",
    "RESERVATION_ENDED": "Reserve again with a new key.",
    "NOT_ADMITTED": "Get a pass from the waiting room, or show the `reason`. Do not retry without a new pass.",
    "THROTTLED": "Wait until `retry_at_ms`. Earlier attempts only cost the applicant time.",
    "COMMAND_EXPIRED": "Send the call again with a new last moment. Check the clock of the caller.",
    "MOVING": "Wait until `retry_at_ms`, then look the reservation up.",
    "NOT_FOUND": "Check the reference. A reservation is forgotten `retention_days` after its day.",
    "UNKNOWN_DAY": "Publish the day, or offer another one.",
    "UNKNOWN_QUOTA": "Read the quotas of the day with `availability`.",
    "NOT_OWNER": "Ask the applicant to enter the identity of the booking.",
    "NOT_IN_PARTY": "Read the reservation, and name one of its applicants.",
    "HOLD_EXPIRED": "Reserve again, or confirm with `reacquire=True` to take another free unit.",
    "STALE": "Read the record again, show the change, and repeat with the new version or revision.",
    "WRONG_STATE": "Read the reservation. The table of transitions has the steps of its state.",
    "DAY_CLOSED": "Offer another day.",
    "DAY_OVER": "Offer another day.",
    "SESSION_OVER": "Offer another session or another day.",
    "NOT_OPEN": "Show the time `retry_at_ms`, and try again from then on.",
    "TOO_EARLY": "Check in on the day of the visit.",
    "TOO_LATE": "Keep the reservation, or cancel it.",
    "MOVES_EXCEEDED": "Keep the reservation, or cancel it and book again.",
    "EXTENSIONS_EXCEEDED": "Confirm before the deadline.",
    "DECLINES_EXCEEDED": "Take the offer, or release the reservation.",
    "PARTY_TOO_LARGE": "Book in smaller parties.",
    "PARTY_TOO_SMALL": "Release or cancel the whole reservation.",
    "BLOCKED": "Show the time `retry_at_ms`. Retries do not shorten it.",
    "IDENTITY_LIMIT": "Show the applicant the existing reservation, and offer to reschedule it.",
    "SOLD_OUT": "Offer other days, or the wait list (`join_wait_list=True`).",
    "WAIT_LIST_FULL": "Offer other days.",
    "QUOTA_IN_USE": "Keep the quota, or name it in `renamed_from` of its successor.",
}
"""By status; every refusal has one."""

ERROR_REMEDIES: Final = {
    "InvalidRequest": "Correct the argument that `where` names. The call can never succeed as it is.",
    "UnknownName": "Use an id of the catalog, or publish the catalog that has it.",
    "WrongIdentityKey": "Start with the first key of this store. Another key needs an empty store or a namespace.",
    "CatalogError": "Correct each of the `issues`. `quota-engine catalog check FILE` lists them.",
    "BackendUnavailable": "Nothing was done. Retry after a pause, and answer the user with 503.",
    "OutcomeUnknown": "Send the same call with the same key. Its answer is certain.",
    "JobTimeout": "Some of the job was done. Run it again with more time, or with a smaller part.",
    "QuotaEngineError": "The base class. Catch it to log every error that the library raises on purpose.",
}
"""By class of error."""

PROBLEM_REMEDIES: Final = {
    "bad-request": "Correct the request; `detail` names the part that is malformed.",
    "unauthorized": "Send `Authorization: Bearer TOKEN`.",
    "forbidden": "Use a token with the role and the office of the call.",
    "unknown-path": "Compare the path with the list of calls.",
    "unknown-name": "Compare the id with `GET /v1/offices`, or with the rooms and draws of the service.",
    "method-not-allowed": "Use one of the methods in `Allow`.",
    "request-timeout": "Send the whole request within the time limits of the service.",
    "request-expired": "Send a new request with a later last moment. Check the caller's clock.",
    "too-large": "Send less than `limits.body_bytes_max`.",
    "unsupported-media-type": "Send `Content-Type: application/json`.",
    "misdirected-request": "Use a host of `public_origins`, or add it there.",
    "unprocessable": "Correct the fields that `errors` lists.",
    "headers-too-large": "Send fewer or shorter headers. Old cookies are a usual cause.",
    "draw-not-run": "Wait until the draw has been run.",
    "internal": "Report the response's request id with the log of the service.",
    "too-many-streams": "Poll instead, or raise `limits.streams_max`.",
    "unavailable": "Nothing was done. Retry after `Retry-After`.",
    "outcome-unknown": "Send the same request with the same key again.",
}
"""By problem type, for those that are no status of the engine, of a room or of a draw."""
