// Each call is wrong. The compiler fails if it accepts one of them. A test compiles the file beside booking.ts.
import { Service } from "./booking.js";

const service = new Service("", "");
const day = { office: "clinic", day: "2026-12-07" };
const reserve = "/v1/offices/{office}/days/{day}/reservations";
// @ts-expect-error no such call
await service.call("post", "/v1/offices/{office}/days/{day}/reservation", day, { applicants: ["a"] });
// @ts-expect-error no such method of the call
await service.call("get", "/v1/reservations/{reference}/confirm", { reference: "a~b" }, undefined);
// @ts-expect-error a parameter of the path is missing
await service.call("post", reserve, { office: "clinic" }, { applicants: ["a"] });
// @ts-expect-error a required field of the body is missing
await service.call("post", reserve, day, { service: "vaccine" });
// @ts-expect-error an unknown field of the body
await service.call("post", reserve, day, { applicants: ["a"], vaccine: true });
const answer = await service.call("post", reserve, day, { applicants: ["a"] });
// @ts-expect-error a refusal has no content
answer.content;
