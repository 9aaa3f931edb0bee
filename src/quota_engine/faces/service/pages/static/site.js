// Keeps pages up to date. Everything here is a convenience: without it, reloading does the same.
"use strict";

// A part of a page that is fetched again now and then, as long as somebody looks at it.
function refresh(part) {
  const url = part.dataset.refresh;
  const usual = Number(part.dataset.pause) || 5000;
  let pause = usual;
  // Nothing is taken away from under somebody's hands.
  const inUse = () => part.querySelector("details[open]") !== null;
  async function again() {
    if (!document.hidden && !inUse()) {
      try {
        const answer = await fetch(url, { credentials: "same-origin" });
        if (answer.ok) {
          const chosen = part.querySelector("input:checked");
          const focused = part.contains(document.activeElement) ? document.activeElement.value : null;
          part.innerHTML = await answer.text();
          for (const input of part.querySelectorAll("input")) {
            if (chosen && input.value === chosen.value && !input.disabled) input.checked = true;
            if (focused !== null && input.value === focused) input.focus();
          }
          pause = usual;
        } else {
          pause = Math.min(pause * 2, 60000);
        }
      } catch {
        pause = Math.min(pause * 2, 60000);
      }
    }
    setTimeout(again, pause * (0.75 + Math.random() / 2));
  }
  setTimeout(again, pause);
}

// A place whose page is loaded anew when its state has changed.
function watch(element) {
  const version = Number(element.dataset.version);
  let pause = 5000;
  async function look() {
    try {
      const answer = await fetch(element.dataset.state, { credentials: "same-origin" });
      const place = await answer.json();
      if (place.version !== version) return location.reload();
      pause = 5000;
    } catch {
      pause = Math.min(pause * 2, 60000);
    }
    setTimeout(look, pause);
  }
  setTimeout(look, pause);
}

// The clock counts by this machine's clock, from what the server said was left: its own time of day may be wrong.
function clock(element) {
  const left = Number(element.dataset.deadline) - Number(element.dataset.now);
  const end = performance.now() + left;
  const shown = element.querySelector("#clock");
  function tick() {
    const seconds = Math.max(0, Math.ceil((end - performance.now()) / 1000));
    shown.textContent = Math.floor(seconds / 60) + ":" + String(seconds % 60).padStart(2, "0");
    if (seconds === 0) return location.reload();
    setTimeout(tick, 250);
  }
  tick();
}

// What is typed stays in this browser, so that neither a closed tab nor a crash loses it.
function draft(form) {
  const key = "draft " + form.dataset.draft;
  const fields = [...form.querySelectorAll("input[id]")];
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

for (const part of document.querySelectorAll("[data-refresh]")) refresh(part);
for (const element of document.querySelectorAll("[data-state]")) watch(element);
for (const element of document.querySelectorAll("[data-deadline]")) clock(element);
for (const form of document.querySelectorAll("[data-draft]")) draft(form);
for (const element of document.querySelectorAll("[data-details]")) details(element);
for (const button of document.querySelectorAll("[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => print());
}
for (const select of document.querySelectorAll(".choice select")) {
  select.addEventListener("change", () => select.form.submit());
}
