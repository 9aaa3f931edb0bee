// Keeps pages up to date. A page without this script shows the same after a reload.
"use strict";

const randomBetween = (low, high) => low + Math.random() * (high - low);
// A request ends even if its connection is lost without an error, as in a tunnel, so that the page asks again.
const REQUEST_TIMEOUT_MS = 20000;
const send = (url, options) =>
  fetch(url, {
    credentials: "same-origin",
    signal: AbortSignal.timeout && AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    ...options,
  });
const get = (url) => send(url, { cache: "no-store" });

// The answer to a form that is being sent is newer than any other page, and replaces this one.
const isSending = () => document.querySelector("form[data-sending]") !== null;

// --- Connection: a note with a retry button while a part of the page cannot reach the service ---

const unreachable = new Map(); // element -> function that retries
function reportUnreachable(element, retry) {
  unreachable.set(element, retry);
  showConnection();
}
function reportReachable(element) {
  if (unreachable.delete(element)) showConnection();
}
function showConnection() {
  const note = document.querySelector("body:not(.wide) [data-connection]");
  if (!note) return;
  for (const element of unreachable.keys()) if (!element.isConnected) unreachable.delete(element);
  const isShown = note.querySelector("button") !== null;
  if (unreachable.size && !isShown) {
    note.replaceChildren(document.getElementById("connection-lost").content.cloneNode(true));
    note.querySelector("button").addEventListener("click", () => unreachable.forEach((retry) => retry()));
  } else if (!unreachable.size && isShown) {
    if (note.contains(document.activeElement)) document.querySelector("main").focus({ preventScroll: true });
    const restored = document.createElement("p");
    restored.textContent = note.dataset.connection;
    note.replaceChildren(restored);
    setTimeout(() => restored.remove(), 5000);
  }
}

// --- Replace only the nodes that differ, so that a focused or hovered element stays the same ---

function updateNode(current, fresh) {
  const isOther =
    current.nodeName !== fresh.nodeName || (current.nodeName === "INPUT" && current.value !== fresh.value);
  if (isOther) return current.replaceWith(fresh);
  if (current.nodeType !== Node.ELEMENT_NODE) {
    if (current.data !== fresh.data) current.data = fresh.data;
    return;
  }
  for (const { name } of [...current.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") current.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (current.getAttribute(name) !== value) current.setAttribute(name, value);
  }
  updateChildren(current, fresh);
}
function updateChildren(current, fresh) {
  const hasContent = (node) => node.nodeType !== Node.TEXT_NODE || node.data.trim() !== "";
  const kept = [...current.childNodes].filter(hasContent);
  const wanted = [...fresh.childNodes].filter(hasContent);
  kept.forEach((child, index) => (index < wanted.length ? updateNode(child, wanted[index]) : child.remove()));
  current.append(...wanted.slice(kept.length));
}

// Try an action until it succeeds: now, after pauses, when the retry button is pressed, and when the user returns.
function actWithRetries(element, act, pauseMinMs = 2000) {
  let pauseMs = pauseMinMs;
  let timer = 0;
  let isActing = false;
  async function attempt() {
    clearTimeout(timer);
    if (isActing || !element.isConnected) return;
    isActing = true;
    try {
      await act();
    } catch {
      reportUnreachable(element, attempt);
      pauseMs = Math.min(pauseMs * 1.5, 15000);
      timer = setTimeout(attempt, pauseMs * randomBetween(0.75, 1.25));
    }
    isActing = false;
  }
  onReturn(element, attempt);
  attempt();
}

// The service limits the number of streams, so the page closes those of parts that it no longer shows.
const streams = new Map(); // element -> EventSource
function openStream(element, url) {
  const source = new EventSource(url);
  streams.set(element, source);
  return source;
}
function closeStreams() {
  for (const [element, source] of streams) {
    if (element.isConnected) continue;
    source.close();
    streams.delete(element);
  }
}

// Call a function when the browser comes back online or the page becomes visible: browsers slow the timers of hidden
// pages down.
function onReturn(element, load) {
  function handle() {
    if (!element.isConnected) {
      removeEventListener("online", handle);
      document.removeEventListener("visibilitychange", handle);
    } else if (!document.hidden) {
      load();
    }
  }
  addEventListener("online", handle);
  document.addEventListener("visibilitychange", handle);
}

// --- Load a page in place: a new document would lose a form that is being sent, and its failure would lose the page ---

// Return the response and its text; null if a form has replaced the part meanwhile, or is about to do so.
async function loadPage(url, part) {
  const response = await get(url);
  if (response.status >= 500) throw response.status;
  const html = await response.text();
  reportReachable(part);
  return part.isConnected && !isSending() ? { response, html } : null;
}
// Replace a page that time or another tab has changed.
function renewPage(part) {
  actWithRetries(part, async () => {
    const loaded = await loadPage(location.href, part);
    if (!loaded) return;
    if (loaded.response.redirected) history.replaceState(null, "", loaded.response.url);
    showPage(loaded.html);
  });
}
// Show the main part of a page with what was typed. Neither the focus nor the scrolled position moves.
function showMain(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  const main = document.querySelector("main");
  const focused = document.activeElement && document.activeElement.id;
  main.replaceChildren(...page.querySelector("main").childNodes);
  document.title = page.title;
  start(main);
  if (focused && document.getElementById(focused)) document.getElementById(focused).focus({ preventScroll: true });
}
// Every browser learns of an opening at the same moment. The delay spreads their requests.
function followMain(part) {
  if (part.isFollowing) return;
  part.isFollowing = true;
  async function show() {
    const loaded = await loadPage(location.href, part);
    if (!loaded) return;
    showMain(loaded.html);
    const possible = document.querySelector("[data-possible]");
    if (possible && document.querySelector(".slot input:enabled")) {
      document.querySelector("[data-news]").textContent = possible.dataset.possible;
    }
  }
  setTimeout(() => actWithRetries(part, show), randomBetween(0, 1500));
}

// The day and session of a choice, whether or not it is a wait list at the moment.
const slotOf = (input) => input.value.replace(/\|wait$/, "");

// --- data-refresh: load a part of the page again while the page is visible ---

function refresh(part) {
  const url = part.dataset.refresh;
  const pauseMin = Number(part.dataset.pause) || 5000;
  const pauseMax = Number(part.dataset.pauseMax) || 60000;
  const stale = document.querySelector("[data-stale]");
  let pause = pauseMin;
  let shown = "";
  const offered = () => (part.querySelector("[data-offer]") || part).dataset.offer || "";
  const canChoose = (offer) => offer.startsWith("choose");
  let offer = offered();
  // An open form inside the part must not disappear while somebody uses it.
  const isInUse = () => part.querySelector("details[open] form") !== null;
  function show(html) {
    if (html === shown) return;
    shown = html;
    const chosen = part.querySelector("input:checked");
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const sameTag = () => [...part.querySelectorAll(focused.tagName)];
    const index = focused ? sameTag().indexOf(focused) : -1;
    const fresh = document.createElement(part.tagName);
    fresh.innerHTML = html;
    updateChildren(part, fresh);
    // Something has become possible: fields and buttons outside this part follow. A form that is there stays.
    if (offered() !== offer && !(canChoose(offer) && !canChoose(offered()))) followMain(part);
    offer = offered();
    for (const input of part.querySelectorAll("input")) {
      if (chosen && slotOf(input) === slotOf(chosen) && !input.disabled) input.checked = true;
    }
    if (focused && document.activeElement !== focused) {
      const isSame = (other) => focused.tagName === "INPUT" && other.value === focused.value && !other.disabled;
      (sameTag().find(isSame) || sameTag()[index] || document.querySelector("main")).focus({ preventScroll: true });
    }
  }
  async function load() {
    if (!part.isConnected || document.hidden || isInUse()) return;
    try {
      const response = await get(url);
      if (!response.ok) throw response.status;
      const html = await response.text();
      if (!isInUse()) show(html);
      pause = pauseMin;
      if (stale) stale.hidden = true;
      reportReachable(part);
    } catch {
      // The old content stays, with a note that it is stale.
      pause = Math.min(pause * 2, pauseMax);
      if (stale) stale.hidden = false;
      reportUnreachable(part, load);
    }
  }
  let source = null;
  function listen() {
    source = openStream(part, part.dataset.listen);
    source.addEventListener("changed", () => load());
  }
  async function poll() {
    if (!part.isConnected) return;
    await load();
    if (source && source.readyState === EventSource.CLOSED) listen();
    setTimeout(poll, pause * randomBetween(0.75, 1.25));
  }
  setTimeout(poll, pause);
  onReturn(part, load);
  if (part.dataset.listen && window.EventSource) listen();
}

// --- data-follow: show the state of a ticket or a reservation, by server-sent events or by polls ---

function follow(element) {
  const { follow: url, phase } = element.dataset;
  const language = "?lang=" + document.documentElement.lang;
  const announcement = document.querySelector("[data-announce]");
  const pauseUsual = 5000;
  let pause = pauseUsual;
  let failures = 0;
  let isUnavailable = false;
  let source = null;
  let announcedAt = performance.now();
  let isRenewing = false;
  function show(state) {
    failures = 0;
    if (!isUnavailable) reportReachable(element);
    if (isRenewing || !element.isConnected || isSending()) return;
    if (state.phase !== phase) {
      isRenewing = true;
      const button = document.querySelector("[data-call]");
      if (button && state.phase.startsWith(button.dataset.calledBy)) call(button.dataset.call);
      // Every browser learns of the opening at the same moment. The delay spreads their next requests.
      setTimeout(() => renewPage(element), phase === "NOT_OPEN" ? randomBetween(0, 1500) : 0);
      return;
    }
    for (const target of element.querySelectorAll("[data-text]")) {
      const text = state.texts[target.dataset.text];
      if (text !== undefined && target.textContent !== text) target.textContent = text;
    }
    for (const target of element.querySelectorAll("[data-value]")) {
      target.value = Number(state.texts[target.dataset.value]);
    }
    if (state.texts.title) document.title = state.texts.title;
    // Announce to screen readers every 30 seconds at most.
    if (announcement && state.texts.announce && performance.now() - announcedAt > 30000) {
      if (announcement.textContent !== state.texts.announce) announcement.textContent = state.texts.announce;
      announcedAt = performance.now();
    }
  }
  function listen() {
    source = openStream(element, url + "/stream" + language);
    source.addEventListener("state", (event) => {
      isUnavailable = false;
      show(JSON.parse(event.data));
    });
    // Polls can still be answered from a cached view for some seconds. Such an answer does not end the outage.
    source.addEventListener("unavailable", () => {
      isUnavailable = true;
      reportUnreachable(element, load);
    });
    source.addEventListener("error", () => (isUnavailable = false));
  }
  const isListening = () => source !== null && source.readyState === EventSource.OPEN;
  async function load() {
    if (!element.isConnected) return;
    try {
      const response = await get(url + "/state" + language);
      if (!response.ok) throw response.status;
      show(await response.json());
      pause = pauseUsual;
    } catch {
      // The first failure may be a worker that restarts, so it is retried without a note.
      failures += 1;
      pause = failures === 1 ? 1000 : Math.min(Math.max(pause, 2000) * 1.5, 30000);
      if (failures > 1) reportUnreachable(element, load);
    }
  }
  async function poll() {
    if (!element.isConnected) return;
    if (!isListening() || unreachable.has(element)) await load();
    if (source !== null && source.readyState === EventSource.CLOSED) listen();
    setTimeout(poll, pause * randomBetween(0.75, 1.25));
  }
  if (window.EventSource && "stream" in element.dataset) listen();
  setTimeout(poll, pause);
  onReturn(element, load);
  element.pollSoon = () => setTimeout(load, randomBetween(0, 2000));
}

// --- The end of a visit: no other person at this computer sees anything of it ---

// The Back button may show a page from the browser's memory. It is hidden there, and loaded again when it is shown.
addEventListener("pagehide", (event) => (document.documentElement.hidden = event.persisted));
addEventListener("pageshow", (event) => event.persisted && location.reload());

const visits =
  "BroadcastChannel" in window && document.querySelector("body:not(.wide)") ? new BroadcastChannel("visits") : null;
if (visits) {
  visits.addEventListener("message", () => {
    forgetTyped();
    location.replace("/");
  });
}

// Pages of the visit in other tabs end with it.
function endVisit() {
  forgetTyped();
  if (visits) visits.postMessage("ended");
}
function forgetDrafts(form) {
  form.addEventListener("submit", () => {
    forgetTyped();
    for (const key of Object.keys(localStorage)) if (key.startsWith("draft ")) localStorage.removeItem(key);
  });
}

// --- data-deadline: count down by the remaining time, because the clock of the device may be wrong ---

function countdown(element) {
  const remaining = Number(element.dataset.deadline) - Number(element.dataset.now);
  const end = performance.now() + remaining;
  const shown = element.querySelector("[data-countdown]");
  const twoDigits = (number) => String(number).padStart(2, "0");
  let previousSeconds = 0;
  function tick() {
    if (!element.isConnected) return;
    const seconds = Math.max(0, Math.ceil((end - performance.now()) / 1000));
    const days = Math.floor(seconds / 86400);
    const hours = Math.floor(seconds / 3600) % 24;
    const minutes = Math.floor(seconds / 60) % 60;
    let text = (hours || days ? hours + ":" + twoDigits(minutes) : minutes) + ":" + twoDigits(seconds % 60);
    if (days) text = (days === 1 ? element.dataset.day : element.dataset.days).replace("{count}", days) + " " + text;
    if (shown.textContent !== text) shown.textContent = text;
    if ("warns" in element.dataset) element.classList.toggle("urgent", seconds <= 60);
    // Announce to screen readers at five minutes and at one minute, or later if the browser was busy then.
    const announcement = document.querySelector("[data-announce]");
    if (announcement && [300, 60].some((limit) => seconds <= limit && limit < previousSeconds)) {
      announcement.textContent = element.querySelector(".label").textContent + ": " + text;
    }
    previousSeconds = seconds;
    if (seconds === 0) {
      const followed = element.closest("[data-follow]");
      if (element.dataset.atZero === "main") return followMain(element);
      if (element.dataset.atZero === "poll" && followed && followed.pollSoon) return followed.pollSoon();
      return setTimeout(() => renewPage(element), randomBetween(500, 2000));
    }
    setTimeout(tick, 250);
  }
  tick();
}

// --- data-draft, data-details: keep typed details in this browser, so that a closed tab does not lose them ---

function keepDraft(form) {
  const key = "draft " + form.dataset.draft;
  const fields = [...form.querySelectorAll("input[id]:not([type=checkbox])")];
  const draft = JSON.parse(localStorage.getItem(key) || "{}");
  for (const field of fields) {
    if (draft[field.id]) field.value = draft[field.id];
    field.addEventListener("input", () => {
      draft[field.id] = field.value;
      localStorage.setItem(key, JSON.stringify(draft));
    });
  }
}
function showDetails(element) {
  const draft = JSON.parse(localStorage.getItem("draft " + element.dataset.details) || "{}");
  const text = Object.values(draft).filter(Boolean).join(" · ");
  if (text) {
    element.textContent = text;
    element.hidden = false;
  }
}

// --- data-keep: what was typed survives a reload, another language and an opening, in this tab and for half an hour ---

const keptMs = 1800000;
function readTyped() {
  const typed = JSON.parse(sessionStorage.getItem("typed") || "{}");
  return Date.now() - typed.at < keptMs ? typed.fields : {};
}
function forgetTyped() {
  sessionStorage.removeItem("typed");
}
function keepTyped(form) {
  const fields = readTyped();
  for (const field of form.querySelectorAll("input[id]:not([type=hidden]), select[id]")) {
    if (!field.value && fields[field.id]) {
      field.value = fields[field.id];
      if (field.closest("details")) field.closest("details").open = true;
    }
  }
  const slots = [...form.querySelectorAll("input[name=slot]:enabled")];
  const chosen = fields.slot && slots.find((one) => slotOf(one) === slotOf({ value: fields.slot }));
  if (chosen && !slots.some((one) => one.checked)) chosen.checked = true;
  form.addEventListener("input", ({ target }) => {
    const name = target.name === "slot" ? "slot" : target.id;
    if (!name) return;
    sessionStorage.setItem("typed", JSON.stringify({ at: Date.now(), fields: { ...readTyped(), [name]: target.value } }));
  });
}

// --- data-retry: load the requested page until the service answers ---

function retry(element) {
  let pause = 4000;
  let timer = setTimeout(load, pause);
  async function load() {
    clearTimeout(timer);
    try {
      const response = await get(element.dataset.retry);
      if (response.status < 500) return location.replace(element.dataset.retry);
    } catch {
      // no answer at all: try again after the pause
    }
    pause = Math.min(pause * 1.5, 30000);
    clearTimeout(timer);
    timer = setTimeout(load, pause * randomBetween(0.75, 1.25));
  }
  onReturn(element, load);
}

// --- form.choice: load the page of another office, service or group without moving the focus ---

function loadChoice(form) {
  let timer = 0;
  let changes = 0;
  function load() {
    const change = changes;
    const url = form.action.split("?")[0] + "?" + new URLSearchParams(new FormData(form));
    actWithRetries(form, async () => {
      const loaded = change === changes && (await loadPage(url, form));
      if (!loaded || change !== changes) return; // the next choice is about to be loaded
      history.replaceState(null, "", url);
      showMain(loaded.html);
    });
  }
  for (const select of form.querySelectorAll("select")) {
    select.addEventListener("change", () => {
      // The forms below belong to the previous choice.
      for (const other of document.querySelectorAll("form[method=post]")) other.hidden = true;
      changes += 1;
      clearTimeout(timer);
      timer = setTimeout(load, 300);
    });
  }
  for (const button of form.querySelectorAll("[data-auto-submit]")) button.hidden = true;
}

// --- Forms ---

// Ignore a second press while the first one is being sent.
function submitOnce(form) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) return event.preventDefault();
    form.dataset.sent = "yes";
    setTimeout(() => delete form.dataset.sent, 5000);
  });
}

// Answer a press at once, and say what to do if the service takes long.
function showSending(form, button) {
  const main = document.querySelector("main");
  const before = button && button.textContent;
  const slow = document.createElement("p");
  slow.className = "note";
  slow.setAttribute("role", "status");
  form.append(slow);
  form.dataset.sending = "yes";
  if (button) {
    button.textContent = main.dataset.sending;
    button.setAttribute("aria-disabled", "true");
  }
  const timer = setTimeout(() => (slow.textContent = main.dataset.slow), 5000);
  return () => {
    clearTimeout(timer);
    slow.remove();
    delete form.dataset.sending;
    if (!button) return;
    button.textContent = before;
    button.removeAttribute("aria-disabled");
  };
}

// Submit without leaving the page, and repeat until the service answers. The citizens' forms are idempotent.
function submitWithRetries(form) {
  let isSent = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (isSent) return;
    isSent = true;
    const body = new URLSearchParams(new FormData(form));
    const done = showSending(form, event.submitter || form.querySelector("button"));
    async function attempt() {
      const response = await send(form.action, { method: "POST", body });
      if (response.status >= 500) throw response.status;
      const html = await response.text();
      reportReachable(form);
      if (response.redirected) forgetTyped(); // the form has done its work
      // The end of a visit is a new document, so that the Back button has nothing of this one.
      if (new URL(response.url).pathname === "/finished") return location.assign(response.url);
      done();
      if (response.redirected) history.pushState(null, "", response.url);
      showPage(html);
    }
    actWithRetries(form, attempt, 1000);
  });
}

// Replace the content of this page by that of another one.
function showPage(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  const main = document.querySelector("main");
  const fresh = page.querySelector("main");
  if (!fresh) return location.assign("/"); // the response is no page: the form was malformed or too large
  document.title = page.title;
  main.replaceChildren(...fresh.childNodes);
  document.querySelector("header").replaceWith(page.querySelector("header")); // its links name the page
  start(main);
  scrollTo(0, 0);
  (main.querySelector("[autofocus]") || main).focus();
}

// The button says what it does for the choice made: take a place, or join the wait list.
function nameButton(button) {
  const form = button.closest("form");
  function show() {
    const chosen = form.querySelector("input[name=slot]:checked");
    if (chosen) button.textContent = chosen.value.endsWith("|wait") ? button.dataset.wait : button.dataset.reserve;
  }
  form.addEventListener("input", show);
  show();
}

// A page that a form has shown without a new document is loaded when the Back or Forward button leads to it.
addEventListener("popstate", () => location.reload());

// --- data-call: sound, vibration and a notification when the turn or a place comes, if the visitor asks for them ---

let audio = null;
let isCallWanted = false; // stays for the next pages of the same wait
function offerCall(button) {
  button.hidden = false;
  button.setAttribute("aria-pressed", String(isCallWanted));
  button.addEventListener("click", () => {
    isCallWanted = !isCallWanted;
    button.setAttribute("aria-pressed", String(isCallWanted));
    if (!isCallWanted) return;
    if (window.AudioContext) audio = audio || new AudioContext(); // a press must allow the sound
    if (window.Notification && Notification.permission === "default") Notification.requestPermission();
    beep(0.05);
  });
}
function beep(volume) {
  if (!audio) return;
  const tone = audio.createOscillator();
  const gain = audio.createGain();
  gain.gain.value = volume;
  tone.connect(gain).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + 0.4);
}
function call(text) {
  if (!isCallWanted) return;
  beep(0.5);
  if (navigator.vibrate) navigator.vibrate([400, 200, 400]);
  try {
    if (window.Notification && Notification.permission === "granted") new Notification(text);
  } catch {
    // some phones allow notifications to service workers only
  }
}

function start(root) {
  closeStreams();
  const each = (selector, begin) => root.querySelectorAll(selector).forEach(begin);
  each("[data-refresh]", refresh);
  each("[data-follow]", follow);
  each("[data-deadline]", countdown);
  each("[data-draft]", keepDraft);
  each("[data-keep]", keepTyped);
  each("[data-details]", showDetails);
  each("[data-retry]", retry);
  each("[data-visit-ended]", endVisit);
  each("form[action='/finish']", forgetDrafts);
  each("form.choice:has([data-auto-submit])", loadChoice);
  each("form[method=post]", document.querySelector("body:not(.wide)") ? submitWithRetries : submitOnce);
  each("button[data-wait]", nameButton);
  each("[data-call]", offerCall);
  each("[data-print]", (button) => {
    button.hidden = false;
    button.addEventListener("click", () => print());
  });
}
start(document);
