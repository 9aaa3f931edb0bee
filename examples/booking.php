<?php
// Books a place through the service with nothing but curl: the waiting room, if there is one; reserve; confirm.
//
//   QUOTA_ENGINE_TOKEN=... php booking.php http://127.0.0.1:8000 OFFICE DAY < file-with-the-NIK
//
// The identity and the token are on no command line, where everybody on the machine could read them.

declare(strict_types=1);

const ATTEMPTS_MAX = 5;
const TIMEOUT_S = 10;
const RETRY_AFTER_S_MAX = 5;

final class Answer
{
    /** @param array<string, string> $headers by their names in lower case */
    public function __construct(public int $http, public array $headers, public array $body)
    {
    }

    /** A refusal is a problem document: "outcome" is the engine's word, "type" that of the service; neither changes. */
    public function word(): string
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
     * One call. It is sent again, as it was, when no answer came, or the service says that it can not be used: with the
     * same key a reserve has one effect however often it comes, and all other calls can be repeated as they are.
     */
    public function call(string $method, string $path, ?array $body = null, array $headers = []): Answer
    {
        $headers[] = "Authorization: Bearer {$this->token}";
        if ($body !== null) {
            $headers[] = 'Content-Type: application/json';
        }
        for ($attempt = 1; ; $attempt++) {
            $answer = $this->once($method, $path, $body, $headers);
            $is_final = $answer !== null && !in_array($answer->http, [502, 503, 504], true);
            if ($is_final) {
                return $answer;
            }
            $after_s = (int) ($answer?->headers['retry-after'] ?? 0);
            if ($attempt === ATTEMPTS_MAX || $after_s > RETRY_AFTER_S_MAX) {
                stop(3, 'no answer; ask again later, with the same key');
            }
            $this->retries++;
            usleep(max($after_s * 1_000_000, 100_000 * 2 ** $attempt) + random_int(0, 50_000));
        }
    }

    private function once(string $method, string $path, ?array $body, array $headers): ?Answer
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
        return $content === false ? null : new Answer($http, $found, json_decode($content, true) ?? []);
    }
}

function stop(int $code, string $why): never
{
    fwrite(STDERR, "$why\n");
    exit($code);
}

/** Waits for so many milliseconds and up to a tenth more, so that not all who wait come back in the same moment. */
function pause(int $duration_ms): void
{
    usleep($duration_ms * 1000 + random_int(0, $duration_ms * 100));
}

/** The room of the release that a day belongs to is called by the office and the opening, in UTC; "" if there is none. */
function room_of(Service $service, string $office, string $day): string
{
    $found = $service->call('GET', "/v1/offices/$office/availability?first_day=$day");
    $opens_at_ms = $found->body['days'][0]['opens_at_ms'] ?? stop(1, "$day is not on offer");
    $room = $office . gmdate('-Ymd\THi', intdiv($opens_at_ms, 1000));
    $state = $service->call('GET', "/v1/rooms/$room");
    return $state->http === 200 && $state->body['phase'] !== 'CLOSED' ? $room : '';
}

/** Takes a ticket. Whoever has one already gets it again: a new login or another browser changes nothing. */
function join_room(Service $service, string $room, string $nik, ?string $replaces_ticket = null): string
{
    while (true) {
        $joined = $service->call('POST', "/v1/rooms/$room/tickets", ['identity' => $nik, 'replaces_ticket' => $replaces_ticket]);
        if ($joined->http < 400) {
            return $joined->body['ticket'];
        }
        if ($joined->word() !== 'NOT_OPEN') {
            stop(1, $joined->word() . ": {$joined->body['title']}");
        }
        pause(1000 * max(1, min((int) ($joined->headers['retry-after'] ?? 1), 30)));
    }
}

/** Waits for one's turn, and comes back with the pass to reserve with. */
function wait_in(Service $service, string $room, string $nik): string
{
    $ticket = join_room($service, $room, $nik);
    $tag = '';
    $standing = [];
    while (true) {
        $headers = $tag === '' ? [] : ["If-None-Match: $tag"];
        $poll = $service->call('GET', "/v1/rooms/$room/tickets/$ticket", null, $headers);
        if ($poll->http === 200) {  // otherwise 304: nothing is new, and nothing was sent
            [$tag, $standing] = [$poll->headers['etag'], $poll->body];
            echo "{$standing['phase']}, ahead {$standing['ahead']}, chance {$standing['chance']}\n";
        }
        if ($standing['phase'] === 'ROOM_CLOSED') {
            stop(1, 'ROOM_CLOSED: the room has closed');
        }
        if ($standing['phase'] === 'TURN_MISSED') {
            [$ticket, $tag] = [join_room($service, $room, $nik, $ticket), ''];
            continue;
        }
        if ($standing['poll_after_ms'] === 0) {
            $entered = $service->call('POST', "/v1/rooms/$room/enter", ['ticket' => $ticket, 'identity' => $nik]);
            if ($entered->http === 200) {
                return $entered->body['admission_pass'];
            }
            $tag = '';
        }
        pause(max(250, $standing['poll_after_ms']));
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

$wish = ['applicants' => [$nik], 'service' => 'new', 'session' => 'morning'];
$room = room_of($service, $office, $day);
if ($room !== '') {
    $wish['admission_pass'] = wait_in($service, $room, $nik);
}
$held = $service->call('POST', "/v1/offices/$office/days/$day/reservations", $wish, ["Idempotency-Key: $key"]);
if ($held->http >= 400) {
    stop(1, $held->word() . ": {$held->body['title']}");
}
$reference = $held->body['reservation']['reference'];
$until = gmdate('H:i:s', intdiv($held->body['reservation']['deadline_at_ms'], 1000));
echo "held until $until UTC: $reference", $held->body['replayed'] ? ' (answered again)' : '', "\n";

// ... here the applicant fills in the form ...

$confirmed = $service->call('POST', "/v1/reservations/$reference/confirm", ['owner' => $nik]);
if ($confirmed->http >= 400) {
    stop(1, $confirmed->word() . ": {$confirmed->body['title']}");
}
echo 'queue number ', implode(', ', $confirmed->body['reservation']['queue_numbers']), "\n";
