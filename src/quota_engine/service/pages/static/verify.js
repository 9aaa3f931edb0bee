// Verifies the record of a waiting room, or the three files of a draw, in this browser and from the files alone.
// It shares no code with the service. docs/waiting-room.md and docs/draw.md have the formulas.
"use strict";

// --- SHA-256 (FIPS 180-4), because the browser's own is missing on pages without TLS ---

const primes = (count) => {
  const found = [];
  for (let n = 2; found.length < count; n += 1) if (found.every((one) => n % one)) found.push(n);
  return found;
};
// The first 32 bits of the fractional part. The numbers are small, so that a double has them exactly.
const fraction = (number) => Math.floor((number - Math.floor(number)) * 4294967296) | 0;
const START = primes(8).map((one) => fraction(Math.sqrt(one)));
const ROUND = primes(64).map((one) => fraction(Math.cbrt(one)));

function sha256(bytes) {
  const length = bytes.length;
  const padded = new Uint8Array(((length + 72) >> 6) << 6);
  padded.set(bytes);
  padded[length] = 128;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(length / 536870912));
  view.setUint32(padded.length - 4, (length << 3) >>> 0);
  const state = Int32Array.from(START);
  const w = new Int32Array(64);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let offset = 0; offset < padded.length; offset += 64) {
    for (let i = 0; i < 16; i += 1) w[i] = view.getInt32(offset + 4 * i);
    for (let i = 16; i < 64; i += 1) {
      const a = w[i - 15];
      const b = w[i - 2];
      w[i] = (w[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ (a >>> 3)) + w[i - 7] + (turn(b, 17) ^ turn(b, 19) ^ (b >>> 10))) | 0;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i += 1) {
      const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUND[i] + w[i]) | 0;
      const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => (state[i] = (state[i] + value) | 0));
  }
  const result = new Uint8Array(32);
  state.forEach((value, i) => new DataView(result.buffer).setInt32(4 * i, value));
  return result;
}
const bytesOf = (text) => new TextEncoder().encode(text);
const hex = (bytes) => [...bytes].map((one) => one.toString(16).padStart(2, "0")).join("");
const hash = (text) => hex(sha256(bytesOf(text)));

// --- A waiting room: the permutation of waiting_room/permutation.py ---

function permutation(key, size) {
  const root = Math.ceil(Math.sqrt(size));
  const rows = root + (root % 2);
  const columns = Math.ceil(size / rows);
  const tables = [];
  for (let round = 0; round < 24; round += 1) {
    const [inputs, values] = round % 2 ? [rows, columns] : [columns, rows];
    const table = [];
    for (let block = 0; 4 * block < inputs; block += 1) {
      const input = new Uint8Array(37);
      input.set(key);
      input[32] = round;
      new DataView(input.buffer).setUint32(33, block);
      const digest = new DataView(sha256(input).buffer);
      for (let i = 0; i < 32; i += 8) {
        const high = digest.getUint32(i) % values;
        table.push((high * (4294967296 % values) + digest.getUint32(i + 4)) % values);
      }
    }
    tables.push(table);
  }
  return (number) => {
    do {
      let left = Math.floor(number / columns);
      let right = number % columns;
      for (let round = 0; round < 24; round += 2) {
        left = (left + tables[round][right]) % rows;
        right = (right + tables[round + 1][left]) % columns;
      }
      number = left * columns + right;
    } while (number >= size);
    return number;
  };
}

// Return the faults of a record as keys of texts, and the positions by ticket number; a position that is not known yet is missing.
function verifyRoom(record) {
  const faults = new Set();
  const positions = new Map();
  const commitment = (seed) => hash(`quota_engine room commitment 1\n${seed}\n`);
  if (record.seed && commitment(record.seed) !== record.commitment) faults.add("seed");
  const closing = record.closing_seed;
  if (closing && commitment(hash(`quota_engine room seed 1\n${closing}\n`)) !== record.commitment) faults.add("seed");
  const lines = ["quota_engine room transcript 1", record.room, record.commitment, record.entropy, record.seed, closing];
  for (const { window, first, tickets } of record.windows) lines.push(`${window} ${first} ${tickets}`);
  if (hash(lines.map((line) => line + "\n").join("")) !== record.digest) faults.add("digest");
  if (record.contradictions.length) faults.add("contradiction");
  let next = 1;
  let before = -1;
  for (const { window, first, tickets } of record.windows) {
    if (first !== next || window <= before || !(tickets > 0)) faults.add("windows");
    [next, before] = [first + tickets, window];
    const seed = window ? closing : record.seed;
    if (!seed || faults.size) continue;
    const key = ["quota_engine room order 1", record.room, record.commitment, window, tickets, record.entropy, seed];
    const order = permutation(sha256(bytesOf(key.map((line) => line + "\n").join(""))), tickets);
    for (let offset = 0; offset < tickets; offset += 1) positions.set(first + offset, first + order(offset));
  }
  if (new Set(positions.values()).size !== positions.size) faults.add("order");
  return { faults: [...faults], positions, all: next - 1 };
}

// --- A draw: the lottery of draws/lottery.py ---

// Return the faults as keys of texts, and the line of each application by its number.
function verifyDraw(resultText, capacitiesText, applicationsText) {
  const faults = new Set();
  const linesOf = (text) => text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  const [head, ...listed] = linesOf(resultText);
  const lines = new Map(listed.map((line) => [line.number, line]));
  const applications = linesOf(applicationsText);
  const capacities = JSON.parse(capacitiesText);
  if (hash(`${head.draw} ${head.seed}`) !== head.commitment) faults.add("seed");
  if (hash(capacitiesText) !== head.capacities_digest || hash(applicationsText) !== head.applications_digest) faults.add("digest");
  if ((head.contradictions || []).length) faults.add("contradiction");
  const people = applications.flatMap((one) => one.applicants);
  if (new Set(people).size !== people.length || listed.length !== applications.length || lines.size !== listed.length) {
    faults.add("order");
  }
  const left = new Map();
  for (const { office, day, quotas } of capacities.days) {
    for (const [quota, units] of Object.entries(quotas)) left.set([office, day, quota].join(" "), units);
  }
  const choices = new Map(capacities.choices.map((one) => [one.name, one]));
  const key = hash(`${head.draw} ${head.seed} ${head.entropy}`);
  const order = applications.map((one) => ({ ...one, lot: hash(`${key} ${one.number}`) }));
  order.sort((a, b) => (a.lot < b.lot ? -1 : a.lot > b.lot ? 1 : a.number - b.number));
  order.forEach((application, index) => {
    const line = lines.get(application.number) || {};
    if (line.rank !== index + 1) faults.add("order");
    const units = application.applicants.length;
    let best = [0, "", 0];
    application.choices.some((name, rank) => {
      const { office, day, options } = choices.get(name);
      const quotas = options.map((option) => option.map((quota) => [office, day, quota].join(" ")));
      const option = quotas.findIndex((names) => names.every((one) => left.get(one) >= units));
      if (option < 0) return false;
      for (const one of quotas[option]) left.set(one, left.get(one) - units);
      best = [rank + 1, name, option + 1];
      return true;
    });
    const [preference, name, option] = best;
    const isSame = (line.preference || 0) === preference && (line.choice || "") === name && (line.option || 0) === option;
    if (!isSame) faults.add("choice");
  });
  return { faults: [...faults], lines, head };
}

// --- The page ---

async function verifyFiles(form) {
  const texts = form.dataset;
  const result = document.getElementById("result");
  const number = Number(form.querySelector("#number").value);
  const noted = form.querySelector("#noted").value.trim().toLowerCase();
  const say = (key, gaps = {}) => texts[key].replace(/\{(\w+)\}/g, (_, name) => gaps[name]);
  let sentences = [];
  let isRight = false;
  try {
    const files = await Promise.all([...form.querySelector("#files").files].map((file) => file.text()));
    const named = (format) => files.find((text) => text.slice(0, 200).includes(`"${format}"`));
    const [room, head, capacities] = ["quota_engine room 1", "quota-engine draw result 1", "quota-engine draw capacities 1"].map(named);
    let found;
    if (room) {
      const record = JSON.parse(room);
      found = { ...verifyRoom(record), commitment: record.commitment };
      sentences.push(say("checked", { count: found.positions.size, of: found.all }));
      if (number) {
        const position = found.positions.get(number);
        sentences.push(position ? say("position", { number, position }) : say("unknown", { number }));
      }
    } else {
      const applications = files.find((text) => text !== head && text !== capacities);
      found = verifyDraw(head, capacities, applications);
      found.commitment = found.head.commitment;
      sentences.push(say("checked", { count: found.lines.size, of: found.lines.size }));
      const line = found.lines.get(number);
      if (number) sentences.push(line ? say(line.choice ? "won" : "lost", { number, ...line }) : say("unknown", { number }));
    }
    const faults = found.faults;
    if (noted && noted !== found.commitment) faults.push("noted");
    isRight = faults.length === 0;
    sentences = isRight ? [say("right"), ...sentences] : [say("wrong"), ...faults.map((fault) => say("fault_" + fault))];
  } catch {
    sentences = [say("unreadable")];
  }
  result.className = isRight ? "note good" : "errors";
  result.replaceChildren(...sentences.map((text) => Object.assign(document.createElement("p"), { textContent: text })));
}

for (const form of document.querySelectorAll("form[data-verify]")) {
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    verifyFiles(form);
  });
}
