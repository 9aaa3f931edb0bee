<?php
// Wait in a waiting room (if there is one), then reserve and confirm a place through the HTTP service:
//
//   QUOTA_ENGINE_TOKEN=... php booking_in_room.php http://127.0.0.1:8000 OFFICE DAY < file-with-the-NIK
//
// Identity and token never appear on the command line, where every user of the machine could read them.

declare(strict_types=1);

require __DIR__ . '/quota_service.php';

function stop(int $code, string $reason): never
{
    fwrite(STDERR, "$reason\n");
    exit($code);
}

/** Return the response of a call, or end the program with the refusal. */
function done(Response $response): Response
{
    return $response->ok() ? $response : stop(1, "{$response->problem()}: {$response->body['title']}");
}

/** Wait for a duration and up to a tenth more, so that clients do not come back in the same moment. */
function pause(int $duration_ms): void
{
    usleep($duration_ms * 1000 + random_int(0, $duration_ms * 100));
}

/** Return the id of the waiting room of a day's release (office and opening in UTC), or "" if there is none. */
function room_of(Service $service, string $office, string $day): string
{
    $found = $service->call('GET', "/v1/offices/$office/availability?first_day=$day");
    $opens_at_ms = $found->body['days'][0]['opens_at_ms'] ?? stop(1, "$day is not on offer");
    $room = $office . gmdate('-Ymd\THi', intdiv($opens_at_ms, 1000));
    $state = $service->call('GET', "/v1/rooms/$room");
    return $state->http === 200 && $state->body['phase'] !== 'CLOSED' ? $room : '';
}

/** Join a waiting room and return the ticket. The same identity gets the same ticket, after a new login as well. */
function join_room(Service $service, string $room, string $nik, ?string $replaces_ticket = null): string
{
    while (true) {
        $body = ['identity' => $nik, 'replaces_ticket' => $replaces_ticket];
        $joined = $service->call('POST', "/v1/rooms/$room/tickets", $body);
        if ($joined->ok() || $joined->problem() !== 'NOT_OPEN') {
            return done($joined)->body['ticket'];
        }
        pause(1000 * max(1, min((int) ($joined->headers['retry-after'] ?? 1), 30)));
    }
}

/** Wait for the turn in a room and return the admission pass. */
function wait_for_pass(Service $service, string $room, string $nik): string
{
    [$ticket, $etag, $status] = [join_room($service, $room, $nik), '', []];
    while (true) {
        $headers = $etag === '' ? [] : ["If-None-Match: $etag"];
        $poll = done($service->call('GET', "/v1/rooms/$room/tickets/$ticket", null, $headers));
        if ($poll->http === 200) {  // otherwise 304: nothing changed
            [$etag, $status] = [$poll->headers['etag'], $poll->body];
            echo "{$status['phase']}, ahead {$status['ahead']}, chance {$status['chance']}\n";
        }
        if ($status['phase'] === 'ROOM_CLOSED') {
            stop(1, 'ROOM_CLOSED: the room has closed');
        } elseif (in_array($status['phase'], ['TURN_MISSED', 'TICKET_LOST'], true)) {
            [$ticket, $etag] = [join_room($service, $room, $nik, $ticket), ''];
            continue;
        } elseif ($status['poll_after_ms'] === 0) {
            $entered = $service->call('POST', "/v1/rooms/$room/enter", ['ticket' => $ticket, 'identity' => $nik]);
            if ($entered->ok()) {
                return $entered->body['admission_pass'];
            }
            $etag = '';
        }
        pause(max(250, $status['poll_after_ms']));
    }
}

[, $url, $office, $day] = $argc === 4 ? $argv : stop(2, 'usage: php booking_in_room.php URL OFFICE DAY < NIK');
$nik = trim((string) fgets(STDIN));
$key = bin2hex(random_bytes(16));  // an application keeps key, ticket and reference in the visitor's session
try {
    $service = new Service($url, (string) getenv('QUOTA_ENGINE_TOKEN'));
    $room = room_of($service, $office, $day);
    $pass = $room === '' ? [] : ['admission_pass' => wait_for_pass($service, $room, $nik)];
    $body = ['applicants' => [$nik], 'service' => 'new', 'session' => 'morning', ...$pass];
    $held = done($service->call('POST', "/v1/offices/$office/days/$day/reservations", $body, ["Idempotency-Key: $key"]));
    ['reference' => $reference, 'deadline_at_ms' => $deadline_at_ms] = $held->body['reservation'];
    $until = gmdate('H:i:s', intdiv($deadline_at_ms, 1000));
    echo "held until $until UTC: $reference", $held->body['replayed'] ? ' (repeated request)' : '', "\n";
    // ... here the applicant fills in the form ...
    $confirmed = done($service->call('POST', "/v1/reservations/$reference/confirm", ['owner' => $nik]));
    echo 'queue number ', implode(', ', $confirmed->body['reservation']['queue_numbers']), "\n";
} catch (ServiceUnavailable | OutcomeUnknown $error) {
    stop(3, $error::class . ": {$error->getMessage()}");
}
