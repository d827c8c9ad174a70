"use strict";
// Keeps the page up to date: asks for it anew every two seconds while somebody can see
// it, and changes in place what has changed, so that focus, scroll and open details stay.
(() => {
  const PERIOD = 2000;
  const LONGEST = 30000;
  const PATIENCE = 15000;
  const NOTICED = 8000;
  const controls = document.querySelector("[data-controls]");
  const main = document.querySelector("main");
  if (!controls || main.hasAttribute("data-still")) return;
  const state = controls.querySelector("[data-state]");
  const stateText = controls.querySelector("[data-state-text]");
  const toggle = controls.querySelector("[data-toggle]");
  const announcer = document.querySelector("[data-announce]");
  const saving = matchMedia("(prefers-reduced-data: reduce)");
  let paused = saving.matches || Boolean(navigator.connection?.saveData);
  let timer = 0;
  let pause = PERIOD;
  let underWay = false;

  function show(name, text) {
    if (state.dataset.state !== name) state.dataset.state = name;
    if (stateText.textContent !== text) stateText.textContent = text;
  }

  function showPaused() {
    toggle.textContent = paused ? "Resume" : "Pause";
    toggle.setAttribute("aria-pressed", String(paused));
    show(paused ? "off" : "on", paused ? "Paused" : "Live");
  }

  function plan(delay) {
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(look, delay);
  }

  async function look() {
    if (underWay) return;
    underWay = true;
    const asked = location.href;
    try {
      const response = await fetch(asked, {
        credentials: "same-origin",
        redirect: "error",
        signal: AbortSignal.timeout(PATIENCE),
      });
      const kind = response.headers.get("content-type") || "";
      if (!kind.startsWith("text/html")) throw new Error(String(response.status));
      const found = new DOMParser().parseFromString(await response.text(), "text/html");
      if (!found.querySelector("main[data-live]")) throw new Error("another page");
      if (!paused) {
        take(found);
        show("on", "Live");
      }
      pause = PERIOD;
    } catch {
      if (!paused) show("away", "No answer");
      pause = Math.min(pause * 2, LONGEST);
    } finally {
      underWay = false;
      plan(pause);
    }
  }

  function take(found) {
    const before = Number(main.dataset.kept ?? NaN);
    for (const old of document.querySelectorAll("[data-live]")) {
      const now = found.querySelector(`[data-live="${old.dataset.live}"]`);
      if (now) become(old, now);
    }
    if (document.title !== found.title) document.title = found.title;
    const more = Number(main.dataset.kept ?? NaN) - before;
    if (more > 0) announcer.textContent = `${more} new failure${more > 1 ? "s" : ""}`;
    else if (more < 0) announcer.textContent = "";
  }

  // What a reader has set himself is his: what is open, chosen or typed.
  const OWN = new Set(["open", "checked", "value", "selected"]);

  function key(node) {
    return node.nodeType === Node.ELEMENT_NODE ? node.dataset.key || node.id || "" : "";
  }

  function isSame(a, b) {
    return a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);
  }

  function become(old, now) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== now.nodeValue) old.nodeValue = now.nodeValue;
      return;
    }
    if (old.hasAttribute("data-leave")) return;
    const isInput = /^(INPUT|SELECT|OPTION|TEXTAREA)$/.test(old.nodeName);
    for (const { name } of [...old.attributes]) {
      if (!now.hasAttribute(name) && !OWN.has(name)) old.removeAttribute(name);
    }
    for (const { name, value } of now.attributes) {
      const mine = OWN.has(name) && (isInput ? old.type !== "hidden" : true);
      if (!mine && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    becomeChildren(old, now);
  }

  function becomeChildren(old, now) {
    const keyed = new Map();
    for (const child of old.children) if (key(child)) keyed.set(key(child), child);
    const wanted = new Set([...now.children].map(key).filter(Boolean));
    let place = old.firstChild;
    for (const want of [...now.childNodes]) {
      while (place && key(place) && !wanted.has(key(place))) place = drop(place);
      const known = key(want) ? keyed.get(key(want)) : place;
      if (known && isSame(known, want)) {
        if (known === place) place = place.nextSibling;
        else old.insertBefore(known, place);
        become(known, want);
      } else {
        const added = document.importNode(want, true);
        if (key(want)) added.classList.add("arrived");
        old.insertBefore(added, place);
        if (place && !key(place) && !key(want)) place = drop(place);
      }
    }
    while (place) place = drop(place);
  }

  function drop(node) {
    const next = node.nextSibling;
    if (node.contains(document.activeElement)) main.focus({ preventScroll: true });
    node.remove();
    return next;
  }

  // A notice of what was done has been read by then; the next look takes it away.
  const address = new URL(location.href);
  if (address.searchParams.has("notice")) {
    address.searchParams.delete("notice");
    setTimeout(() => history.replaceState(null, "", address), NOTICED);
  }

  toggle.addEventListener("click", () => {
    paused = !paused;
    showPaused();
    plan(0);
  });
  saving.addEventListener("change", () => {
    paused = saving.matches;
    showPaused();
    plan(0);
  });
  document.addEventListener("visibilitychange", () => plan(0));
  controls.hidden = false;
  showPaused();
  plan(PERIOD);
})();
