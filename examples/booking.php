<?php
// Books a place through the service with nothing but curl: reserve, confirm, show the queue number.
//
//   php booking.php http://127.0.0.1:8000 TOKEN OFFICE DAY NIK
//
// The key is made once for each wish and sent again whenever an answer did not come: it has one effect, however often it is sent.

declare(strict_types=1);

const ATTEMPTS_MAX = 4;

/** One call; asked again, with the same key, when no answer came or the service asks for it. */
function call(string $method, string $url, string $token, ?array $body, ?string $key = null): array
{
    $headers = ["Authorization: Bearer $token"];
    if ($body !== null) {
        $headers[] = 'Content-Type: application/json';
    }
    if ($key !== null) {
        $headers[] = "Idempotency-Key: $key";
    }
    for ($attempt = 1; ; $attempt++) {
        $curl = curl_init($url);
        curl_setopt_array($curl, [
            CURLOPT_CUSTOMREQUEST => $method,
            CURLOPT_HTTPHEADER => $headers,
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT => 10,
        ]);
        if ($body !== null) {
            curl_setopt($curl, CURLOPT_POSTFIELDS, json_encode((object) $body));
        }
        $answer = curl_exec($curl);
        $status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
        curl_close($curl);
        $is_final = $answer !== false && !in_array($status, [502, 503, 504], true);
        if ($is_final) {
            return [$status, json_decode($answer, true)];
        }
        if ($attempt === ATTEMPTS_MAX) {
            fwrite(STDERR, "no answer; ask again later with the key $key\n");
            exit(3);
        }
        usleep(100_000 * 2 ** $attempt);
    }
}

if ($argc !== 6) {
    fwrite(STDERR, "usage: php booking.php URL TOKEN OFFICE DAY NIK\n");
    exit(2);
}
[, $service, $token, $office, $day, $nik] = $argv;

$key = bin2hex(random_bytes(16));
$wish = ['applicants' => [$nik], 'service' => 'new', 'session' => 'morning'];
[$status, $held] = call('POST', "$service/v1/offices/$office/days/$day/reservations", $token, $wish, $key);
if ($status >= 400) {
    // A problem document: "outcome" is the engine's word, and never changes.
    fwrite(STDERR, ($held['outcome'] ?? $held['type']) . ": {$held['title']}\n");
    exit(1);
}
$reference = $held['reservation']['reference'];
echo "held until ", gmdate('H:i:s', intdiv($held['reservation']['deadline_at_ms'], 1000)), " UTC: $reference\n";

// ... here the applicant fills in the form ...

[$status, $confirmed] = call('POST', "$service/v1/reservations/$reference/confirm", $token, ['applicant' => $nik]);
if ($status >= 400) {
    fwrite(STDERR, ($confirmed['outcome'] ?? $confirmed['type']) . ": {$confirmed['title']}\n");
    exit(1);
}
echo "queue number ", implode(', ', $confirmed['reservation']['queue_numbers']), "\n";
