<?php
// The part that the PHP recipes share: calls of the HTTP service with curl alone, and their retries.

declare(strict_types=1);

const ATTEMPTS_MAX = 5;
const TIMEOUT_S = 10;
const RETRY_AFTER_S_MAX = 5;

/** Nothing was done: the service did not take the request. */
final class ServiceUnavailable extends RuntimeException
{
}

/** The request may have had its effect. The same request, with the same key, finds out. */
final class OutcomeUnknown extends RuntimeException
{
}

final class Response
{
    /** @param array<string, string> $headers values by name in lower case */
    public function __construct(public int $http, public array $headers, public array $body)
    {
    }

    public function ok(): bool
    {
        return $this->http < 400;
    }

    /** Return the stable name of a refusal: "outcome" is the engine's status, "type" the service's problem type. */
    public function problem(): string
    {
        return $this->body['outcome'] ?? substr(strrchr($this->body['type'] ?? ':unknown', ':'), 1);
    }
}

final class Service
{
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
        $is_unknown = false;
        for ($attempt = 1; ; $attempt++) {
            $response = $this->once($method, $path, $body, $headers);
            if ($response !== null && !in_array($response->http, [502, 503, 504], true)) {
                return $response;
            }
            $is_unknown = $is_unknown || $response?->http !== 503;
            $after_s = (int) ($response?->headers['retry-after'] ?? 0);
            if ($attempt === ATTEMPTS_MAX || $after_s > RETRY_AFTER_S_MAX) {
                $reason = 'no response; try again later with the same key';
                throw $is_unknown ? new OutcomeUnknown($reason) : new ServiceUnavailable($reason);
            }
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
        return $content === false ? null : new Response($http, $found, json_decode($content, true) ?? []);
    }
}
