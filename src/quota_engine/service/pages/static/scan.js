// Scans a registration code with the camera, where the browser has a detector. Without it, the field is for typing.
"use strict";

(() => {
  const button = document.querySelector("[data-scan]");
  const field = button && document.getElementById(button.dataset.scan);
  if (!button || !("BarcodeDetector" in window) || !navigator.mediaDevices) return;
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.hidden = true;
  video.setAttribute("aria-label", button.dataset.label);
  button.after(video);
  button.hidden = false;
  const start = button.textContent;
  let stream = null;
  function stop() {
    if (stream) stream.getTracks().forEach((track) => track.stop());
    stream = null;
    video.hidden = true;
    button.textContent = start;
    button.setAttribute("aria-pressed", "false");
  }
  async function look(detector) {
    if (!stream) return;
    try {
      const found = await detector.detect(video);
      const text = found.map((one) => one.rawValue).find(Boolean);
      // The code of the person who was just checked in is still before the camera.
      if (text && text !== sessionStorage.getItem("scanned")) {
        sessionStorage.setItem("scanned", text);
        field.value = text.slice(0, field.maxLength);
        stop();
        return field.form.requestSubmit();
      }
    } catch {
      // The video has no picture yet.
    }
    setTimeout(look, 250, detector);
  }
  async function scan() {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      // No camera, or no permission: the field remains.
      sessionStorage.removeItem("scans");
      button.hidden = true;
      return field.focus();
    }
    sessionStorage.setItem("scans", "yes");
    video.srcObject = stream;
    video.hidden = false;
    button.textContent = button.dataset.stop;
    button.setAttribute("aria-pressed", "true");
    await video.play();
    look(new BarcodeDetector({ formats: ["qr_code"] }));
  }
  button.addEventListener("click", () => {
    if (!stream) return scan();
    sessionStorage.removeItem("scans");
    sessionStorage.removeItem("scanned");
    stop();
  });
  addEventListener("pagehide", stop);
  // After a check-in the page loads again, and the camera continues.
  if (sessionStorage.getItem("scans")) scan();
})();
