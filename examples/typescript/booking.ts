// Book places through the service with calls that the compiler checks against the service's OpenAPI document.
//
//   QUOTA_ENGINE_TOKEN=... node build/booking.js URL OFFICE DAY SERVICE < people
//
// Each line of the input has a person and an idempotency key. Each line of the output has the answer for one of them.
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { components, paths } from "./service.js";

type Method = "get" | "post";
type Json<T> = T extends { content: { "application/json": infer Content } } ? Content : never;
type Success<Call> = Call extends { responses: infer All } ? Json<All[keyof All & (200 | 201 | 202)]> : never;
type RequestBody<Call> = Call extends { requestBody?: infer Content } ? Json<NonNullable<Content>> : undefined;
type Parameters<Call> = Call extends { parameters: { path: infer Path } } ? Path : Record<string, never>;
type Problem = components["schemas"]["ProblemBody"];
export type Answer<Content> = { ok: true; content: Content } | { ok: false; problem: Problem };

const ATTEMPTS_MAX = 5;
const TIMEOUT_MS = 10_000;
const RETRYABLE = [502, 503, 504];

export class Service {
  constructor(private readonly url: string, private readonly token: string) {}

  /** Send a call, again while no answer comes. A reserve with the same key has one effect; other calls may repeat. */
  async call<Path extends keyof paths, M extends Method & keyof paths[Path]>(
    method: M,
    path: Path,
    parameters: Parameters<paths[Path][M]>,
    body: RequestBody<paths[Path][M]>,
    headers: Record<string, string> = {},
  ): Promise<Answer<Success<paths[Path][M]>>> {
    const values = parameters as Record<string, string>;
    const address = path.replace(/{(\w+)}/g, (_, name: string) => encodeURIComponent(values[name] ?? ""));
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await fetch(this.url + address, {
          method: method.toUpperCase(),
          headers: { authorization: `Bearer ${this.token}`, "content-type": "application/json", ...headers },
          body: body === undefined ? null : JSON.stringify(body),
          signal: AbortSignal.timeout(TIMEOUT_MS),
        });
        if (!RETRYABLE.includes(response.status) || attempt === ATTEMPTS_MAX) {
          const content: unknown = await response.json();
          if (response.ok) return { ok: true, content: content as Success<paths[Path][M]> };
          return { ok: false, problem: content as Problem };
        }
      } catch (error) {
        if (attempt === ATTEMPTS_MAX) throw error;
      }
      await sleep(100 * 2 ** attempt + 50 * Math.random());
    }
  }

  /** Reserve and confirm a place for one person. Returns the queue number, or the name of the refusal. */
  async book(office: string, day: string, service: string, person: string, key: string): Promise<string> {
    const held = await this.call(
      "post",
      "/v1/offices/{office}/days/{day}/reservations",
      { office, day },
      { applicants: [person], service },
      { "idempotency-key": key },
    );
    if (!held.ok) return held.problem.outcome ?? held.problem.title;
    const reference = held.content.reservation?.reference ?? "";
    const confirmed = await this.call("post", "/v1/reservations/{reference}/confirm", { reference }, { owner: person });
    if (!confirmed.ok) return confirmed.problem.outcome ?? confirmed.problem.title;
    return `queue number ${confirmed.content.reservation?.queue_numbers[0]}`;
  }
}

async function main([url, office, day, service]: string[]): Promise<void> {
  if (!url || !office || !day || !service) throw new Error("usage: node booking.js URL OFFICE DAY SERVICE < people");
  const client = new Service(url, process.env["QUOTA_ENGINE_TOKEN"] ?? "");
  const answers: Promise<string>[] = [];
  for await (const line of createInterface({ input: process.stdin })) {
    const [person = "", key = ""] = line.split(" ");
    answers.push(client.book(office, day, service, person, key));
  }
  for (const answer of await Promise.all(answers)) console.log(answer);
}

if (process.argv[1]?.endsWith("booking.js")) await main(process.argv.slice(2));
