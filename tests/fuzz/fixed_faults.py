"""The faults that were found and fixed in this project, each with what fails if it comes back.

The evidence of a fault is the name of a planted bug, a test as ``path::name``, or a scenario of the conformance suite
as ``scenario: its name``. ``docs/planted-bugs.md`` shows the list, and a test checks that all of it exists.
"""

from __future__ import annotations

__all__ = ["FIXED_FAULTS", "SCENARIO", "FixedFault", "section_of_fixed_faults"]

from typing import Final, NamedTuple

SCENARIO: Final = "scenario: "
_SCENARIO_TEST: Final = "src/quota_engine/conformance/test_backend.py::test_scenario"


class FixedFault(NamedTuple):
    """A fault that was fixed.

    Attributes:
        area: the part of the system.
        what: what went wrong, in one line.
        evidence: planted bugs, tests and scenarios that fail if it comes back.
    """

    area: str
    what: str
    evidence: tuple[str, ...]


def _faults(area: str, *faults: tuple[str, ...]) -> tuple[FixedFault, ...]:
    return tuple(FixedFault(area, what, evidence) for what, *evidence in faults)  # type: ignore[arg-type]


_DOMAIN: Final = "tests/domain/"
_EDGES: Final = "tests/domain/test_edge_cases.py::"
_REDIS: Final = "tests/stores/redis/"
_SQL: Final = "tests/stores/sql/"
_POSTGRESQL: Final = "tests/stores/sql/postgresql/"
_PAGES: Final = "tests/service/pages/"

FIXED_FAULTS: Final = (
    *_faults(
        "machine",
        (
            "a refused reschedule showed the record of a stranger",
            _EDGES + "TestForeignRecords::test_a_reschedule_to_an_unknown_day_shows_no_foreign_record",
        ),
        (
            "a refusal advanced a due time, which a clock that jumped back then lost",
            _EDGES + "TestReallocation::test_a_refusal_does_not_advance_the_due_times",
        ),
        (
            "cancellations did not count if the limit was set later",
            _EDGES + "TestBlocks::test_the_present_rules_count_earlier_cancellations",
        ),
        (
            "a capacity set after the reallocation time was given away, again with each repetition",
            "capacity-after-reallocation",
        ),
        (
            "an entry on a wait list counted as a place after its day",
            "wait-list-entry-counts-forever",
            SCENARIO + "a wait-list entry stops counting when its day is over",
        ),
        (
            "new rules did not apply within their batch",
            _REDIS + "test_differential.py::test_new_rules_apply_within_their_batch",
        ),
        (
            "a view expired overdue holds in another order than the ledger",
            _EDGES + "TestOverbooking::test_overdue_holds_reduce_an_overbooking_in_order_of_their_quota_sets",
        ),
        (
            "an overbooking hid units that were free",
            _DOMAIN + "test_backlogs.py::test_overdue_units_reduce_an_overbooking_first",
        ),
        (
            "an applicant could have places without end",
            _DOMAIN + "test_backlogs.py::test_an_applicant_has_at_most_a_hundred_places_without_any_limit",
        ),
        ("a session could be booked until the end of its day", "session-over-sells"),
        (
            "a hold released in its last second and taken again kept a place forever",
            "src/quota_engine/conformance/test_backend.py::test_a_recycled_hold_ends_in_a_block",
        ),
        ("overdue holds on other days did not count as abandoned", "abandoned-holds-of-other-days"),
        ("two operators undid each other in silence", "operators-undo-each-other"),
        (
            "people of a closed day were blocked for leaving it, and kept from another place",
            SCENARIO + "a cancellation or an absence on a closed day blocks no applicant",
            SCENARIO + "claims on a closed day do not count until it opens again",
        ),
        (
            "nobody could know which people stayed on a closed day",
            "tests/workflows/test_relocation.py::test_each_party_leaves_an_event_moved_or_not",
        ),
        (
            "behind 64 parties that did not fit, a newcomer took what a waiting party could use",
            "move-overtakes-the-wait-list",
            _DOMAIN + "test_offers.py::test_a_single_behind_many_couples_gets_the_place_before_a_newcomer",
        ),
        (
            "while more offers were due than one command makes, a newcomer took a unit",
            SCENARIO + "a newcomer gets nothing while more offers are due than one command makes",
        ),
        (
            "a family was never served while singles waited",
            _DOMAIN + "test_offers.py::test_a_family_is_served_although_singles_wait",
        ),
        ("a guard that was added later counted from 0", "guard-starts-at-zero"),
        ("a quota with people vanished, or went on selling", "quota-with-people-vanishes"),
        (
            "a waiting party whose quota was renamed got lost",
            "lua-renamed-wait-list",
        ),
        (
            "a check-in or no-show of the wrong party could not be taken back",
            "undo-without-end",
            SCENARIO + "the undo of one no-show leaves the block of another",
        ),
        (
            "one time that leapt made an office forget all its days",
            _DOMAIN + "test_clock_check.py::test_ledger_written_at_a_wrong_time_forgets_nothing",
            _REDIS + "test_clock_leaps.py::test_command_at_a_wrong_time_is_refused_and_destroys_nothing",
        ),
        (
            "a party could have one person twice",
            "tests/engine/test_identities.py::test_commands_refuse_a_party_with_a_hash_twice",
        ),
        (
            "nine spellings of one number got nine places",
            "tests/service/api/test_identities.py::test_nine_spellings_of_one_number_get_one_place",
        ),
        (
            "a process with another identity key gave one person two places",
            "tests/engine/test_store_discovery.py::test_every_class_that_has_a_key_checks_it",
            _REDIS + "test_identity_key.py::test_of_several_first_openings_one_key_wins",
        ),
        (
            "a repair lost records of ended reservations that named a removed quota",
            _DOMAIN + "test_reconcile.py::test_ended_records_may_name_quotas_that_the_day_no_longer_has",
        ),
    ),
    *_faults(
        "Lua",
        (
            "a cooling entry of an unknown quota made a damaged office unreadable",
            _REDIS + "test_reconciliation.py::test_damage_is_repaired_from_the_events",
        ),
        (
            "a record lost a former applicant named zero, or the leading dots of a text",
            "tests/input_fuzzing/test_corpora.py::test_target_holds_its_properties",
        ),
        (
            "keys of rules, offices and choices stayed forever",
            _REDIS + "test_retention.py::test_rules_alone_leave_no_permanent_key",
            _REDIS + "test_retention.py::test_choices_are_deleted_with_their_days",
            _REDIS + "test_retention.py::test_names_of_offices_expire",
        ),
    ),
    *_faults(
        "passes",
        (
            "a hold of a day without a room was rescheduled into a release with one, past the pass",
            "reschedule-needs-no-pass",
            "tests/engine/test_entries.py::test_held_dull_days_get_no_place_of_a_release_with_a_room",
        ),
        (
            "a move from another office needed no pass",
            "tests/engine/test_entries.py::test_a_move_from_another_office_needs_the_pass",
        ),
        (
            "a late confirm needed no pass",
            "late-confirm-needs-no-pass",
            "tests/engine/test_entries.py::test_a_late_confirm_needs_a_new_pass",
        ),
        (
            "a policy of one's own and token buckets did not see changes",
            "tests/engine/test_entries.py::test_a_policy_of_ones_own_decides_about_a_change",
            "tests/engine/test_entries.py::test_a_change_is_charged_like_a_reserve",
        ),
    ),
    *_faults(
        "registry and workflows",
        (
            "a move that another one overtook was said to be made, and took a claim",
            "tests/workflows/test_office_moves.py::test_a_move_that_was_overtaken_comes_to_nothing",
        ),
        (
            "a move that its client had started again was finished by another call",
            "tests/workflows/test_office_moves.py::TestACallerWhoDies::test_a_restarted_move_is_left_to_its_client",
        ),
        (
            "a conflict over a key took the claim that stood before",
            "tests/workflows/test_office_moves.py::"
            "test_a_conflict_over_a_key_does_not_take_the_claim_of_a_move_that_came_to_nothing",
        ),
        (
            "a change of a party dropped the claim of a call in flight (seeds 140 and 466)",
            "claim-of-another-reservation",
            "tests/workflows/test_national_claims.py::TestPartyChanges::test_a_replacement_in_flight_keeps_its_claim",
        ),
        (
            "days off of a changed catalog stayed published",
            "tests/catalog/test_changes.py::test_a_correction_closes_days_off_once",
        ),
        (
            "an office that was unavailable, or had an error, stopped the publication of the others",
            "tests/service/background/test_day_publisher.py::test_an_unavailable_office_stops_no_other",
            "tests/service/background/test_day_publisher.py::test_one_offices_mistake_stops_no_start",
        ),
    ),
    *_faults(
        "rooms and draws",
        (
            "after a failover two applicants had tickets with one number, and both were called",
            "tests/engine/test_room_failover.py::test_unnoticed_loss_gives_no_pass",
        ),
        (
            "the used pass of a lost ticket refused another applicant",
            "tests/engine/test_room_failover.py::test_pass_of_a_lost_ticket_does_not_refuse_another",
        ),
        (
            "after a failover workers disagreed on positions",
            "tests/engine/test_room_failover.py::test_workers_agree_on_positions_after_a_failover",
            _REDIS + "test_failover_with_lag.py::test_workers_agree_on_a_room_that_lost_joins",
        ),
        (
            "a room that an opening had lost could be opened with another text",
            "tests/service/api/test_rooms.py::test_lost_opening_is_not_repeated_with_another_text",
            _PAGES + "operator/test_waiting_room.py::test_lost_opening_is_explained_and_repeated",
        ),
        (
            "an applicant whose application was lost looked like a loser",
            "tests/engine/test_draw_failover.py::test_receipt_of_a_lost_application_is_lost",
        ),
        (
            "a draw was run or closed again with other entropy in silence",
            "tests/engine/test_draw_failover.py::test_second_run_is_not_silent",
            "tests/engine/test_draw_failover.py::test_second_close_is_not_silent",
            "tests/engine/test_draw_failover.py::test_unnoticed_loss_of_a_run_allows_no_other_text",
        ),
        (
            "a second run replaced the published files",
            "tests/service/api/test_draws.py::test_second_run_does_not_replace_the_published_one",
        ),
        (
            "a transcript with impossible times was accepted",
            "tests/waiting_room/test_transcript.py::test_impossible_times_are_found",
        ),
        (
            "a result with other bytes of its files was accepted",
            "tests/draws/test_verify.py::test_any_change_of_the_result_is_found",
        ),
        (
            "a room whose time was brought back took calls of tickets back",
            "src/quota_engine/conformance/clock_corrections.py::test_tickets_called_by_a_wrong_clock_stay_called",
        ),
        (
            "lookups of unknown rooms evicted real ones",
            "tests/service/api/test_rooms.py::test_unknown_rooms_do_not_evict_known_ones",
        ),
    ),
    *_faults(
        "batching and calls",
        (
            "a server that loads its data and has lost its functions gave the callers a foreign error",
            _REDIS + "test_routing.py::TestCluster::test_server_that_loads_when_its_functions_are_sent",
        ),
        (
            "an attempt took effect after its caller had another answer",
            "lua-late-copies-run",
            "call-does-not-wait",
            "retry-before-the-last-moment",
            _REDIS + "test_late_copies.py::test_sold_out_stays_sold_out",
        ),
        (
            "a call blocked for 42 seconds",
            _REDIS + "test_call_timeouts.py::test_a_stopped_server_ends_each_call_in_time",
        ),
        (
            "a call of several steps had no end",
            "tests/client/test_job_timeouts.py::test_the_response_says_how_far_the_call_came",
        ),
        (
            "an error named the last attempt only, as if nothing had been done",
            "unknown-called-unavailable",
            _REDIS + "test_error_messages.py::test_refused_connection_after_a_lost_answer_is_not_all_that_is_said",
        ),
        (
            "calls behind a rejected request were said to be refused",
            _REDIS + "test_rejected_writes.py::test_calls_behind_a_rejected_one_are_not_said_to_be_refused",
        ),
        (
            "an invalid command failed the other calls of its batch",
            _REDIS + "test_batching.py::test_invalid_command_fails_only_its_caller",
        ),
        (
            "an interrupted sender left the other threads waiting",
            _REDIS + "test_batching_failures.py::test_interrupted_sender_leaves_no_thread_waiting",
        ),
        (
            "callers of an interrupted sender did not wait for its attempt",
            _REDIS + "test_late_copies.py::test_callers_of_an_interrupted_sender_wait",
        ),
        (
            "a command of a caller that had given up was sent again",
            _REDIS + "test_late_copies.py::test_cancelled_call_is_not_sent_again",
        ),
        (
            "an error in one write kept the attempts behind it waiting",
            _REDIS + "test_node_channel.py::test_a_cut_write_loses_no_call",
        ),
        (
            "a sold-out answer was remembered for too long",
            "sold-out-flag-stays",
            _REDIS + "test_sold_out_cache.py::test_place_released_elsewhere_is_seen_within_the_bound",
        ),
        (
            "a forked child hung on a lock of its parent, or sold the places of memory twice",
            "tests/test_forks.py::test_children_of_a_busy_parent_reserve",
            "tests/test_forks.py::test_memory_store_refuses_in_a_child",
        ),
    ),
    *_faults(
        "failover",
        (
            "a question showed a state that no replica had",
            _REDIS + "test_replicated_reads.py::test_lookup_never_shows_a_confirmation_that_a_failover_loses",
        ),
        (
            "rooms, draws and buckets had no fence, and reads of a wiped store said that nothing was there",
            _REDIS + "test_fencing_kinds.py::test_old_primary_is_refused_after_a_failover_with_lag",
            _REDIS + "test_fencing_kinds.py::test_wiped_store_is_reported_by_questions_as_by_commands",
        ),
        (
            "an audit of a lost office found nothing wrong",
            _REDIS + "test_fencing_kinds.py::test_wiped_office_is_reported_by_every_request",
        ),
        (
            "a room or draw that had ended was taken for a lost one",
            _REDIS + "test_fencing_kinds.py::test_ended_room_is_not_a_lost_one",
            _REDIS + "test_fencing_kinds.py::test_ended_draw_is_not_a_lost_one",
        ),
        (
            "the reconciliation of a large office kept the server so busy that it was taken for dead",
            _REDIS + "test_reconciliation.py::test_office_is_read_in_parts",
        ),
        (
            "an embedded server that had ended was not started again",
            _REDIS + "test_embedded_restart.py::test_calls_survive_kills_of_the_server",
        ),
    ),
    *_faults(
        "SQL",
        (
            "a process that had replayed a decline offered no place at the end of the pause",
            "sql-pause-forgotten",
            _SQL + "test_ledger_state.py::test_a_process_that_replays_a_decline_offers_the_place_when_the_pause_ends",
        ),
        (
            "a call of a SQL store had no end",
            _POSTGRESQL + "test_call_timeouts.py::test_stopped_server_ends_each_call_in_time",
            _SQL + "test_call_timeouts.py::test_file_that_another_process_locks_ends_the_call_in_time",
        ),
        (
            "a commit that the network held took effect after its call",
            _POSTGRESQL + "test_call_timeouts.py::test_commit_that_arrives_after_the_end_is_undone",
            _POSTGRESQL + "test_call_timeouts.py::test_wait_for_a_lock_shortens_the_wait_for_a_commit",
        ),
        (
            "the time of one call ended the others of its batch",
            _SQL + "test_transactions.py::test_a_call_with_little_time_spares_the_others_of_its_batch",
        ),
        (
            "two snapshots written at once lost entries",
            _SQL + "test_snapshots.py::test_a_snapshot_survives_another_one_that_is_written_meanwhile",
        ),
        (
            "an entry or snapshot lacked a count, or the guards",
            "sql-entry-drops-a-count",
            _SQL + "test_ledger_state.py::test_a_snapshot_has_every_field_of_an_office",
        ),
        (
            "a URL that led to two databases sold a place at both",
            _POSTGRESQL + "test_errors.py::test_url_that_leads_to_two_databases_is_refused",
        ),
        (
            "a pooler that mixed two primaries sold a place at both",
            _POSTGRESQL + "test_errors.py::test_transactions_that_alternate_between_two_servers_are_refused",
        ),
        (
            "a second process could not open behind a pooler",
            _POSTGRESQL + "test_pooler.py::test_threads_share_the_sessions_of_a_pooler",
        ),
        (
            "a certificate that was not trusted was tried until the call ended",
            _POSTGRESQL + "test_tls.py::test_another_authority_is_refused",
        ),
        (
            "a part of a shared transaction was refused after a cut connection",
            _SQL + "test_shared_transactions.py::test_refusals_outlive_a_connection_that_is_cut",
        ),
        (
            "a snapshot of entries that a failover had lost was used",
            _SQL + "test_snapshots.py::test_the_snapshot_of_a_lost_history_is_not_used",
        ),
    ),
    *_faults(
        "service and pages",
        (
            "a stranger who knew a NIK could cancel its place",
            _PAGES + "citizen/test_find.py::test_a_stranger_who_knows_the_nik_cannot_give_the_place_up",
        ),
        (
            "a request took effect after its client had given it up",
            "tests/client/test_late_copies.py",
            "tests/service/http/test_last_moment.py::test_request_timeout_bounds_reads_and_changes",
        ),
        (
            "a worker that hung kept its share of the connections",
            "tests/service/test_runner.py::test_hanging_worker_is_replaced",
        ),
        (
            "a worker replaced while the store was away took the others with it",
            "tests/service/test_kills.py::test_worker_killed_during_store_outage_is_replaced",
        ),
        (
            "workers that could not start were started again and again",
            "tests/service/test_runner.py::test_workers_that_cannot_start_are_not_restarted",
        ),
        (
            "the operators' log kept an identity typed in groups, or into a field's name",
            "tests/service/observability/test_audit_log.py::test_identity_in_groups_is_left_out",
            "tests/service/observability/test_audit_log.py::test_fields_with_other_names_are_left_out",
        ),
        (
            "an error for an unknown room repeated the name, which may be an identity",
            "tests/service/test_secrets.py::test_run_on_valkey_keeps_secrets_in_their_places",
        ),
        (
            "a turn led to no place that its applicant had already",
            _PAGES + "citizen/test_waiting_room.py::test_a_turn_leads_a_second_form_to_the_existing_place",
        ),
        (
            "a refused limit led nowhere",
            _PAGES + "citizen/test_booking.py::test_a_limit_is_no_dead_end",
        ),
        (
            "a wrong date emptied the other fields of the catalog page",
            _PAGES + "operator/test_catalog_changes.py::test_a_wrong_form_keeps_what_was_typed",
        ),
        (
            "a closed pipe ended a command with a traceback",
            "tests/cli/test_main.py::test_a_closed_pipe_exits_without_a_traceback",
        ),
    ),
    *_faults(
        "checks",
        (
            "the history checker gave an event of equal calls to the wrong one",
            "tests/history/test_checker.py::test_equal_calls_at_the_same_time_get_an_event_each",
        ),
        (
            "the history checker objected to a check-in that was undone and repeated",
            "tests/history/test_checker.py::test_undone_and_repeated_check_in_has_no_findings",
        ),
        (
            "the simulation misread some seeds",
            "tests/fuzz/test_runner.py::test_seeds_that_were_hard_to_judge",
        ),
        (
            "no seed saw that a client remembers a sold-out answer for too long, or that turns never end",
            "sold-out-flag-stays",
            "room-jams",
        ),
    ),
)


def section_of_fixed_faults() -> str:
    """Return the section of ``docs/planted-bugs.md`` with all of them."""
    lines = [
        "## Faults that were fixed",
        "",
        "Each fault below was found in this project and fixed.",
        "The last column names what fails if it comes back: a planted bug, a test, or a scenario for stores.",
        "",
        "| part | fault | shown by |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {one.area} | {one.what} | {'; '.join(map(_shown, one.evidence))} |" for one in FIXED_FAULTS]
    return "\n".join(lines) + "\n"


def _shown(evidence: str) -> str:
    if evidence.startswith(SCENARIO):
        return f"`{_SCENARIO_TEST}` (*{evidence.removeprefix(SCENARIO)}*)"
    return f"`{evidence}`" if "/" in evidence else evidence
