<?php
// Book from a page in PHP, through the HTTP service. Several workers answer at the same time:
//
//   PHP_CLI_SERVER_WORKERS=4 php -S 127.0.0.1:8080 examples/booking.php
//
// QUOTA_ENGINE_URL and QUOTA_ENGINE_TOKEN are the address of the service and a token for it.

declare(strict_types=1);

require __DIR__ . '/quota_service.php';

const OFFICE = 'clinic';
const SERVICE = 'vaccine';

/** Send status and body of the page's answer. A refusal is an answer, not an error of the server. */
function answer(int $http, array $body): void
{
    http_response_code($http);
    header('Content-Type: application/json');
    echo json_encode($body, JSON_THROW_ON_ERROR), "\n";
}

/** Take a place and keep it. The same key has one effect, however often the form is sent. */
function book(Service $service, array $form): void
{
    $held = $service->call(
        'POST',
        '/v1/offices/' . OFFICE . '/days/' . rawurlencode($form['day']) . '/reservations',
        ['applicants' => [$form['identity']], 'service' => SERVICE],
        ["Idempotency-Key: {$form['key']}"],
    );
    if ($held->ok()) {
        $reference = $held->body['reservation']['reference'];
        $held = $service->call('POST', "/v1/reservations/$reference/confirm", ['owner' => $form['identity']]);
    }
    if (!$held->ok()) {
        answer($held->http, ['status' => $held->problem(), 'retry_at_ms' => $held->body['retry_at_ms'] ?? null]);
        return;
    }
    $reservation = $held->body['reservation'];
    answer(200, [
        'status' => $held->body['status'],
        'reference' => $reservation['reference'],
        'queue_numbers' => $reservation['queue_numbers'],
    ]);
}

/** Return the fields of the form, or null if one is missing. A key goes into a header, so it has no line break. */
function read_form(): ?array
{
    $form = json_decode((string) file_get_contents('php://input'), true);
    foreach (['identity', 'day', 'key'] as $name) {
        if (!is_string($form[$name] ?? null) || preg_match('/[\x00-\x1f\x7f]/', $form[$name])) {
            return null;
        }
    }
    return $form;
}

$form = read_form();
if ($_SERVER['REQUEST_METHOD'] !== 'POST' || $_SERVER['REQUEST_URI'] !== '/book' || $form === null) {
    answer(400, ['status' => 'POST /book takes JSON with identity, day and key']);
    return;
}
try {
    book(new Service((string) getenv('QUOTA_ENGINE_URL'), (string) getenv('QUOTA_ENGINE_TOKEN')), $form);
} catch (ServiceUnavailable | OutcomeUnknown $error) {
    header('Retry-After: 1');  // with the same key: nothing was done, or the next answer is certain
    answer(503, ['status' => $error::class]);
}
