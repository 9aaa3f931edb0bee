<?php
// Book a place through the service with curl alone: waiting room (if there is one), reserve, confirm.
//
//   QUOTA_ENGINE_TOKEN=... php booking.php http://127.0.0.1:8000 OFFICE DAY < file-with-the-NIK
//
// Identity and token never appear on the command line, where every user of the machine could read them.

declare(strict_types=1);

const ATTEMPTS_MAX = 5;
const TIMEOUT_S = 10;
const RETRY_AFTER_S_MAX = 5;

final class Response
{
    /** @param array<string, string> $headers values by name in lower case */
    public function __construct(public int $http, public array $headers, public array $body)
    {
    }

    /** Return the stable name of a refusal: "outcome" is the engine's status, "type" the service's problem type. */
    public function problem(): string
    {
        return $this->body['outcome'] ?? substr(strrchr($this->body['type'] ?? ':unknown', ':'), 1);
    }
}

final class Service
{
    public int $retries = 0;

    public function __construct(private string $url, private string $token)
    {
    }

    /**
     * Send a request, again if no response came or the service is unavailable. With the same key a reserve has one
     * effect, however often it is sent; all other calls are safe to repeat.
     */
    public function call(string $method, string $path, ?array $body = null, array $headers = []): Response
    {
        $headers[] = "Authorization: Bearer {$this->token}";
        if ($body !== null) {
            $headers[] = 'Content-Type: application/json';
        }
        for ($attempt = 1; ; $attempt++) {
            $response = $this->once($method, $path, $body, $headers);
            $is_final = $response !== null && !in_array($response->http, [502, 503, 504], true);
            if ($is_final) {
                return $response;
            }
            $after_s = (int) ($response?->headers['retry-after'] ?? 0);
            if ($attempt === ATTEMPTS_MAX || $after_s > RETRY_AFTER_S_MAX) {
                stop(3, 'no response; try again later with the same key');
            }
            $this->retries++;
            usleep(max($after_s * 1_000_000, 100_000 * 2 ** $attempt) + random_int(0, 50_000));
        }
    }

    private function once(string $method, string $path, ?array $body, array $headers): ?Response
    {
        $found = [];
        $curl = curl_init($this->url . $path);
        curl_setopt_array($curl, [
            CURLOPT_CUSTOMREQUEST => $method,
            CURLOPT_HTTPHEADER => $headers,
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT => TIMEOUT_S,
            CURLOPT_HEADERFUNCTION => function ($curl, string $line) use (&$found): int {
                [$name, $value] = explode(':', $line, 2) + [1 => ''];
                $found[strtolower($name)] = trim($value);
                return strlen($line);
            },
        ]);
        if ($body !== null) {
            curl_setopt($curl, CURLOPT_POSTFIELDS, json_encode((object) $body, JSON_THROW_ON_ERROR));
        }
        $content = curl_exec($curl);
        $http = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
        curl_close($curl);
        return $content === false ? null : new Response($http, $found, json_decode($content, true) ?? []);
    }
}

function stop(int $code, string $reason): never
{
    fwrite(STDERR, "$reason\n");
    exit($code);
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
        if ($joined->http < 400) {
            return $joined->body['ticket'];
        }
        if ($joined->problem() !== 'NOT_OPEN') {
            stop(1, $joined->problem() . ": {$joined->body['title']}");
        }
        pause(1000 * max(1, min((int) ($joined->headers['retry-after'] ?? 1), 30)));
    }
}

/** Wait for the turn in a room and return the admission pass. */
function wait_for_pass(Service $service, string $room, string $nik): string
{
    $ticket = join_room($service, $room, $nik);
    $etag = '';
    $status = [];
    while (true) {
        $headers = $etag === '' ? [] : ["If-None-Match: $etag"];
        $poll = $service->call('GET', "/v1/rooms/$room/tickets/$ticket", null, $headers);
        if ($poll->http === 200) {  // otherwise 304: nothing changed
            [$etag, $status] = [$poll->headers['etag'], $poll->body];
            echo "{$status['phase']}, ahead {$status['ahead']}, chance {$status['chance']}\n";
        }
        if ($status['phase'] === 'ROOM_CLOSED') {
            stop(1, 'ROOM_CLOSED: the room has closed');
        }
        if (in_array($status['phase'], ['TURN_MISSED', 'TICKET_LOST'], true)) {
            [$ticket, $etag] = [join_room($service, $room, $nik, $ticket), ''];
            continue;
        }
        if ($status['poll_after_ms'] === 0) {
            $entered = $service->call('POST', "/v1/rooms/$room/enter", ['ticket' => $ticket, 'identity' => $nik]);
            if ($entered->http === 200) {
                return $entered->body['admission_pass'];
            }
            $etag = '';
        }
        pause(max(250, $status['poll_after_ms']));
    }
}

if ($argc !== 4) {
    stop(2, 'usage: QUOTA_ENGINE_TOKEN=... php booking.php URL OFFICE DAY < file-with-the-NIK');
}
[, $url, $office, $day] = $argv;
$nik = trim((string) fgets(STDIN));
$service = new Service($url, (string) getenv('QUOTA_ENGINE_TOKEN'));

// A real application keeps the key, the ticket and the reference in the visitor's session.
$key = bin2hex(random_bytes(16));

$selection = ['applicants' => [$nik], 'service' => 'new', 'session' => 'morning'];
$room = room_of($service, $office, $day);
if ($room !== '') {
    $selection['admission_pass'] = wait_for_pass($service, $room, $nik);
}
$held = $service->call('POST', "/v1/offices/$office/days/$day/reservations", $selection, ["Idempotency-Key: $key"]);
if ($held->http >= 400) {
    stop(1, $held->problem() . ": {$held->body['title']}");
}
$reference = $held->body['reservation']['reference'];
$until = gmdate('H:i:s', intdiv($held->body['reservation']['deadline_at_ms'], 1000));
echo "held until $until UTC: $reference", $held->body['replayed'] ? ' (repeated request)' : '', "\n";

// ... here the applicant fills in the form ...

$confirmed = $service->call('POST', "/v1/reservations/$reference/confirm", ['owner' => $nik]);
if ($confirmed->http >= 400) {
    stop(1, $confirmed->problem() . ": {$confirmed->body['title']}");
}
echo 'queue number ', implode(', ', $confirmed->body['reservation']['queue_numbers']), "\n";
