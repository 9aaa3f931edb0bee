// Keeps pages up to date. Everything here is a convenience: without it, reloading does the same.
"use strict";

const anyOf = (low, high) => low + Math.random() * (high - low);
const ask = (url) => fetch(url, { credentials: "same-origin", cache: "no-store" });

// What does not answer is said on the page, with a button to try again; and that it is back. It is tried again anyway.
const missing = new Map();
function lost(who, retry) {
  missing.set(who, retry);
  tell();
}
function reached(who) {
  if (missing.delete(who)) tell();
}
function tell() {
  const place = document.querySelector("body:not(.wide) [data-lost]");
  if (!place) return;
  for (const who of missing.keys()) if (!who.isConnected) missing.delete(who);
  const isShown = place.querySelector("button") !== null;
  if (missing.size && !isShown) {
    place.replaceChildren(document.getElementById("lost").content.cloneNode(true));
    place.querySelector("button").addEventListener("click", () => missing.forEach((retry) => retry()));
  } else if (!missing.size && isShown) {
    if (place.contains(document.activeElement)) document.querySelector("main").focus({ preventScroll: true });
    const back = document.createElement("p");
    back.textContent = place.dataset.lost;
    place.replaceChildren(back);
    setTimeout(() => back.remove(), 5000);
  }
}

// Only what is new is changed: what somebody is about to press, or has the focus, stays the same element.
function renew(old, fresh) {
  const isOther = old.nodeName !== fresh.nodeName || (old.nodeName === "INPUT" && old.value !== fresh.value);
  if (isOther) return old.replaceWith(fresh);
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  children(old, fresh);
}
function children(old, fresh) {
  const isSaid = (node) => node.nodeType !== Node.TEXT_NODE || node.data.trim() !== "";
  const kept = [...old.childNodes].filter(isSaid);
  const wanted = [...fresh.childNodes].filter(isSaid);
  kept.forEach((child, index) => (index < wanted.length ? renew(child, wanted[index]) : child.remove()));
  old.append(...wanted.slice(kept.length));
}

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
    shown = text;
    const chosen = part.querySelector("input:checked");
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const alike = () => [...part.querySelectorAll(focused.tagName)];
    const place = focused ? alike().indexOf(focused) : -1;
    const fresh = document.createElement(part.tagName);
    fresh.innerHTML = text;
    children(part, fresh);
    for (const input of part.querySelectorAll("input")) {
      if (chosen && input.value === chosen.value && !input.disabled) input.checked = true;
    }
    if (focused && document.activeElement !== focused) {
      const same = (one) => focused.tagName === "INPUT" && one.value === focused.value && !one.disabled;
      (alike().find(same) || alike()[place] || document.querySelector("main")).focus({ preventScroll: true });
    }
  }
  const pauseMax = Number(part.dataset.pauseMax) || 60000;
  const stale = document.querySelector("[data-stale]");
  async function load() {
    if (!document.hidden && !inUse()) {
      try {
        const answer = await ask(url);
        if (!answer.ok) throw answer.status;
        const text = await answer.text();
        if (!inUse()) put(text);
        pause = usual;
        if (stale) stale.hidden = true;
        reached(part);
      } catch {
        // What is shown stays, and is said to be old.
        pause = Math.min(pause * 2, pauseMax);
        if (stale) stale.hidden = false;
        lost(part, load);
      }
    }
  }
  let source = null;
  const listened = part.dataset.listen || part.dataset.live;
  // Whoever can be told that there is something new looks at once.
  function listen() {
    source = new EventSource(listened);
    source.addEventListener("board", () => load());
  }
  async function again() {
    if (!part.isConnected) return source && source.close();
    await load();
    if (source && source.readyState === 2) listen();
    setTimeout(again, pause * anyOf(0.75, 1.25));
  }
  setTimeout(again, pause);
  seen(load);
  if (listened && window.EventSource) listen();
}

// What the server says of a room, a wait list or a place: by a stream of events where there is one, and by polls as long
// as it does not come. Another phase is another page.
function follow(element) {
  const { follow: address, phase } = element.dataset;
  const language = "?lang=" + document.documentElement.lang;
  const announced = document.querySelector("[data-announce]");
  const usual = 5000;
  let pause = usual;
  let failures = 0;
  let isAway = false;
  let source = null;
  let toldAt = performance.now();
  let leaving = false;
  function show(state) {
    failures = 0;
    if (!isAway) reached(element);
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
    if (state.texts.title) document.title = state.texts.title;
    // A screen reader is told now and then, not each time.
    if (announced && state.texts.announce && performance.now() - toldAt > 30000) {
      if (announced.textContent !== state.texts.announce) announced.textContent = state.texts.announce;
      toldAt = performance.now();
    }
  }
  function listen() {
    source = new EventSource(address + "/stream" + language);
    source.addEventListener("standing", (event) => {
      isAway = false;
      show(JSON.parse(event.data));
    });
    // The store is away. Polls may still be answered for some seconds, from what was seen last: that is no way back.
    source.addEventListener("away", () => {
      isAway = true;
      lost(element, look);
    });
    source.addEventListener("error", () => (isAway = false));
  }
  const isListening = () => source !== null && source.readyState === 1;
  async function look() {
    try {
      const answer = await ask(address + "/state" + language);
      if (!answer.ok) throw answer.status;
      show(await answer.json());
      pause = usual;
    } catch {
      // Once may be a worker that is being replaced.
      failures += 1;
      pause = failures === 1 ? 1000 : Math.min(Math.max(pause, 2000) * 1.5, 30000);
      if (failures > 1) lost(element, look);
    }
  }
  async function poll() {
    if (!element.isConnected) return source && source.close();
    if (!isListening() || missing.has(element)) await look();
    if (source !== null && source.readyState === 2) listen();
    setTimeout(poll, pause * anyOf(0.75, 1.25));
  }
  if (window.EventSource && "stream" in element.dataset) listen();
  setTimeout(poll, pause);
  seen(look);
  element.look = () => setTimeout(look, anyOf(0, 2000));
}

// Whoever comes back to a page that the browser had put aside wants to see how things are now.
function seen(look) {
  addEventListener("pageshow", (event) => event.persisted && look());
  addEventListener("online", look);
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
    if ("soon" in element.dataset) element.classList.toggle("soon", seconds <= 60);
    // A screen reader says what is left when it is time to hurry, and not each second.
    const announced = document.querySelector("[data-announce]");
    const left = element.querySelector(".label").textContent + ": " + text;
    if (announced && (seconds === 300 || seconds === 60) && announced.textContent !== left) announced.textContent = left;
    if (seconds === 0) {
      const part = element.closest("[data-follow]");
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
      reached(form);
    } catch {
      lost(form, load);
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

// The same without leaving the page. What was typed stays there if nobody answers, and is sent again until somebody does:
// each of these forms does the same however often it comes.
function send(form) {
  let isSent = false;
  addEventListener("pageshow", (event) => event.persisted && (isSent = false));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (isSent) return;
    isSent = true;
    const body = new URLSearchParams(new FormData(form));
    let pause = 1000;
    let isTrying = false;
    let timer = 0;
    async function attempt() {
      if (isTrying || !form.isConnected) return;
      isTrying = true;
      clearTimeout(timer);
      try {
        const answer = await fetch(form.action, { method: "POST", body, credentials: "same-origin" });
        if (answer.status >= 500) throw answer.status;
        const text = await answer.text();
        reached(form);
        if (answer.redirected) location.assign(answer.url);
        else show(text);
      } catch {
        lost(form, attempt);
        pause = Math.min(pause * 1.5, 15000);
        timer = setTimeout(attempt, pause * anyOf(0.75, 1.25));
      }
      isTrying = false;
    }
    attempt();
  });
}

// A page instead of this one, from its beginning.
function show(text) {
  const page = new DOMParser().parseFromString(text, "text/html");
  const main = document.querySelector("main");
  const fresh = page.querySelector("main");
  if (!fresh) return location.assign("/"); // no page of ours: the form was none, or too large
  document.title = page.title;
  main.replaceChildren(...fresh.childNodes);
  start(main);
  scrollTo(0, 0);
  (main.querySelector("[autofocus]") || main).focus();
}

function start(root) {
  const each = (selector, begin) => root.querySelectorAll(selector).forEach(begin);
  each("[data-refresh]", refresh);
  each("[data-follow]", follow);
  each("[data-deadline]", clock);
  each("[data-draft]", draft);
  each("[data-details]", details);
  each("[data-again]", again);
  each("form.choice:has([data-auto])", choice);
  each("form[method=post]", document.querySelector("body:not(.wide)") ? send : once);
  each("[data-print]", (button) => {
    button.hidden = false;
    button.addEventListener("click", () => print());
  });
}
start(document);
