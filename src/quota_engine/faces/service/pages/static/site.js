// Keeps pages up to date. Everything here is a convenience: without it, reloading does the same.
"use strict";

const anyOf = (low, high) => low + Math.random() * (high - low);
const ask = (url) => fetch(url, { credentials: "same-origin", cache: "no-store" });

// A part of a page that is fetched again now and then, as long as somebody looks at it.
function refresh(part) {
  const url = part.dataset.refresh;
  const usual = Number(part.dataset.pause) || 5000;
  let pause = usual;
  let shown = "";
  // Nothing is taken away from under somebody's hands.
  const inUse = () => part.querySelector("details[open] form") !== null;
  function put(text) {
    if (text === shown) return;
    const chosen = part.querySelector("input:checked");
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const open = [...part.querySelectorAll("details[open][id]")].map((one) => one.id);
    part.innerHTML = shown = text;
    for (const id of open) {
      const details = document.getElementById(id);
      if (details) details.open = true;
    }
    for (const input of part.querySelectorAll("input")) {
      if (chosen && input.value === chosen.value && !input.disabled) input.checked = true;
      if (focused && focused.value !== undefined && input.value === focused.value) input.focus();
    }
  }
  async function load() {
    if (!document.hidden && !inUse()) {
      try {
        const answer = await ask(url);
        if (!answer.ok) throw answer.status;
        const text = await answer.text();
        if (!inUse()) put(text);
        pause = usual;
      } catch {
        pause = Math.min(pause * 2, 60000);
      }
    }
  }
  async function again() {
    if (!part.isConnected) return;
    await load();
    setTimeout(again, pause * anyOf(0.75, 1.25));
  }
  setTimeout(again, pause);
  // Whoever can be told that there is something new looks at once.
  if (part.dataset.live && window.EventSource) {
    new EventSource(part.dataset.live).addEventListener("board", () => load());
  }
}

// A place whose page is loaded anew when its state has changed.
function watch(element) {
  const version = Number(element.dataset.version);
  let pause = 5000;
  async function look() {
    try {
      const answer = await ask(element.dataset.state);
      if (!answer.ok) throw answer.status;
      if ((await answer.json()).version !== version) return location.reload();
      pause = 5000;
    } catch {
      pause = Math.min(pause * 2, 60000);
    }
    setTimeout(look, pause * anyOf(0.75, 1.25));
  }
  setTimeout(look, pause);
  seen(look);
}

// A waiting room: the server says what to show, by a stream of events, or by polls as long as there is none.
function live(element) {
  const phase = element.dataset.phase;
  const language = "?lang=" + document.documentElement.lang;
  const announced = document.querySelector("[data-announce]");
  let pause = 5000;
  let source = null;
  let toldAt = performance.now();
  let leaving = false;
  function show(state) {
    if (leaving) return;
    if (state.phase !== phase) {
      leaving = true;
      // All are told in the same moment that it has opened; they need not all ask for the next page in it.
      setTimeout(() => location.reload(), phase === "NOT_OPEN" ? anyOf(0, 1500) : 0);
      return;
    }
    for (const one of element.querySelectorAll("[data-text]")) {
      const text = state.texts[one.dataset.text];
      if (text !== undefined && one.textContent !== text) one.textContent = text;
    }
    for (const one of element.querySelectorAll("[data-value]")) one.value = Number(state.texts[one.dataset.value]);
    document.title = state.texts.title;
    // A screen reader is told now and then, not each time.
    if (announced && state.texts.announce && performance.now() - toldAt > 30000) {
      if (announced.textContent !== state.texts.announce) announced.textContent = state.texts.announce;
      toldAt = performance.now();
    }
  }
  function listen() {
    source = new EventSource(element.dataset.live + "/stream" + language);
    source.addEventListener("standing", (event) => show(JSON.parse(event.data)));
  }
  const isListening = () => source !== null && source.readyState === 1;
  async function look() {
    const answer = await ask(element.dataset.live + "/state" + language);
    if (!answer.ok) throw answer.status;
    show(await answer.json());
  }
  async function poll() {
    try {
      if (!isListening()) await look();
      pause = 5000;
    } catch {
      pause = Math.min(pause * 2, 60000);
    }
    if (source !== null && source.readyState === 2) listen();
    setTimeout(poll, pause * anyOf(0.75, 1.25));
  }
  if (window.EventSource) listen();
  setTimeout(poll, pause);
  seen(() => look().catch(() => {}));
  element.look = () => setTimeout(() => look().catch(() => {}), anyOf(0, 2000));
}

// Whoever comes back to a page that the browser had put aside wants to see how things are now.
function seen(look) {
  addEventListener("pageshow", (event) => event.persisted && look());
}

// The clock counts by this machine's clock, from what the server said was left: its own time of day may be wrong.
function clock(element) {
  const left = Number(element.dataset.deadline) - Number(element.dataset.now);
  const end = performance.now() + left;
  const shown = element.querySelector("[data-clock]");
  const two = (number) => String(number).padStart(2, "0");
  function tick() {
    if (!element.isConnected) return;
    const seconds = Math.max(0, Math.ceil((end - performance.now()) / 1000));
    const days = Math.floor(seconds / 86400);
    const hours = Math.floor(seconds / 3600) % 24;
    const minutes = Math.floor(seconds / 60) % 60;
    let text = (hours || days ? hours + ":" + two(minutes) : minutes) + ":" + two(seconds % 60);
    if (days) text = (days === 1 ? element.dataset.day : element.dataset.days).replace("{count}", days) + " " + text;
    if (shown.textContent !== text) shown.textContent = text;
    if (seconds === 0) {
      const part = element.closest("[data-live]");
      if (element.dataset.zero === "look" && part && part.look) return part.look();
      return setTimeout(() => location.reload(), anyOf(500, 2000));
    }
    setTimeout(tick, 250);
  }
  tick();
}

// What is typed stays in this browser, so that neither a closed tab nor a crash loses it.
function draft(form) {
  const key = "draft " + form.dataset.draft;
  const fields = [...form.querySelectorAll("input[id]:not([type=checkbox])")];
  const kept = JSON.parse(localStorage.getItem(key) || "{}");
  for (const field of fields) {
    if (kept[field.id]) field.value = kept[field.id];
    field.addEventListener("input", () => {
      kept[field.id] = field.value;
      localStorage.setItem(key, JSON.stringify(kept));
    });
  }
}

function details(element) {
  const kept = JSON.parse(localStorage.getItem("draft " + element.dataset.details) || "{}");
  const text = Object.values(kept).filter(Boolean).join(" · ");
  if (text) {
    element.textContent = text;
    element.hidden = false;
  }
}

// The store is away: the page that was asked for is tried again until it comes.
function again(element) {
  let pause = 4000;
  async function look() {
    try {
      const answer = await ask(element.dataset.again);
      if (answer.status < 500) return location.replace(element.dataset.again);
    } catch {
      // nobody answers at all: later
    }
    pause = Math.min(pause * 1.5, 30000);
    setTimeout(look, pause * anyOf(0.75, 1.25));
  }
  setTimeout(look, pause);
}

// Another office, service or group: the rest of the page is fetched for it, and nobody is moved from where they are.
function choice(form) {
  let timer = 0;
  async function load() {
    const url = form.action.split("?")[0] + "?" + new URLSearchParams(new FormData(form));
    const main = document.querySelector("main");
    try {
      const answer = await ask(url);
      if (!answer.ok) throw answer.status;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const focused = document.activeElement && document.activeElement.id;
      main.replaceChildren(...page.querySelector("main").childNodes);
      history.replaceState(null, "", url);
      start(main);
      if (focused && document.getElementById(focused)) document.getElementById(focused).focus();
    } catch {
      form.submit();
    }
  }
  for (const select of form.querySelectorAll("select")) {
    select.addEventListener("change", () => {
      // What is below is for another choice now.
      for (const other of document.querySelectorAll("form[method=post]")) other.hidden = true;
      clearTimeout(timer);
      timer = setTimeout(load, 300);
    });
  }
  for (const button of form.querySelectorAll("[data-auto]")) button.hidden = true;
}

// One press is enough: a second one, while the first is on its way, does nothing.
function once(form) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) return event.preventDefault();
    form.dataset.sent = "yes";
    setTimeout(() => delete form.dataset.sent, 5000);
  });
}

function start(root) {
  const each = (selector, begin) => root.querySelectorAll(selector).forEach(begin);
  each("[data-refresh]", refresh);
  each("[data-state]", watch);
  each("[data-live]", live);
  each("[data-deadline]", clock);
  each("[data-draft]", draft);
  each("[data-details]", details);
  each("[data-again]", again);
  each("form.choice:has([data-auto])", choice);
  each("form[method=post]", once);
  each("[data-print]", (button) => {
    button.hidden = false;
    button.addEventListener("click", () => print());
  });
}
start(document);
