// Makes the pages live. Without it they work as well: all of it is links, forms and <details>.
//
// The server sends no data, only hints that something has changed. The page then asks for its own
// address again, gets its parts as HTML, and changes what differs in what is there, so that focus,
// scroll and whatever is open stay.

const EVERY = 1000; // milliseconds between two fetches at least
const POLL = 5000; // ... where the stream of hints is not to be had
const TIMEOUT = 10000;

const badge = document.getElementById("badge");
const said = document.getElementById("said");

// Changing what is there into what has come

function morph(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !isKept(old, name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !isKept(old, name)) old.setAttribute(name, value);
  }
  if (old.dataset?.load && old.loaded === fresh.dataset.version) return;
  morphChildren(old, fresh);
  if (old.dataset?.load && old.closest("details").open) load(old);
}

// What the reader has changed by hand stays as it is.
function isKept(element, name) {
  return (name === "open" && element.localName === "details") || name === "aria-busy";
}

function morphChildren(old, fresh) {
  const ids = new Set(Array.from(fresh.children, (child) => child.id).filter(Boolean));
  for (const child of [...old.children]) {
    if (child.id && !ids.has(child.id)) child.remove();
  }
  const known = new Map(Array.from(old.children, (child) => [child.id, child]));
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const same = child.id ? known.get(child.id) : isLike(at, child) ? at : null;
    if (!same) {
      old.insertBefore(document.importNode(child, true), at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else old.insertBefore(same, at);
    if (same.nodeType === Node.ELEMENT_NODE) {
      if (!same.isEqualNode(child)) morph(same, child);
    } else if (same.nodeValue !== child.nodeValue) {
      same.nodeValue = child.nodeValue;
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function isLike(one, other) {
  return one && one.nodeName === other.nodeName && !one.id && !other.id;
}

function show(text) {
  const focused = document.activeElement;
  const around = focused.closest("section") ?? document.getElementById("main");
  const parts = new DOMParser().parseFromString(text, "text/html").body;
  for (const part of [...parts.children]) {
    const old = part.id && document.getElementById(part.id);
    // A message is there until the next one comes.
    if (old && (old !== said || part.childElementCount)) morph(old, part);
  }
  tick();
  if (focused !== document.body && !focused.isConnected) {
    (around.querySelector("h2[tabindex]") ?? around).focus();
  }
}

function tell(text) {
  const line = document.createElement("p");
  line.className = "bad";
  line.textContent = text;
  said.replaceChildren(line);
}

// Fetching

async function ask(url, options = {}) {
  const signal = AbortSignal.timeout(TIMEOUT);
  const answer = await fetch(url, { ...options, headers: { "X-Fragment": "1" }, signal });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer.text();
}

let fetching = false;
let isDue = false;
let acted = 0; // counts what the reader did, so that no older answer hides its effect

async function refresh() {
  isDue = true;
  if (fetching || document.hidden) return;
  fetching = true;
  while (isDue && !document.hidden) {
    isDue = false;
    const before = acted;
    try {
      const text = await ask(badge.dataset.here);
      if (before === acted) show(text);
      seenAt = new Date();
      mark(isOpen ? "live" : "polling");
    } catch {
      mark("stale");
    }
    await new Promise((resume) => setTimeout(resume, EVERY));
  }
  fetching = false;
}

async function load(element) {
  const { version } = element.dataset;
  try {
    const text = await ask(element.dataset.load);
    const body = new DOMParser().parseFromString(text, "text/html").getElementById("run-body");
    // The facts stand in the row already; the texts are what was missing.
    body.querySelector(".facts").remove();
    element.replaceChildren(...body.childNodes);
    element.loaded = version;
  } catch {
    // The link to the run's own page is still there.
  }
}

// Hints

let source = null;
let isOpen = false;
let seenAt = new Date();

function listen() {
  if (document.hidden || source) return;
  source = new EventSource("/events");
  source.addEventListener("changed", refresh);
  source.addEventListener("open", () => {
    isOpen = true;
    refresh();
  });
  source.addEventListener("error", () => {
    leave();
    refresh();
  });
}

function leave() {
  source?.close();
  source = null;
  isOpen = false;
}

const WORDS = {
  live: () => "Live",
  polling: () => "Every 5 s",
  stale: () => `Stale: as of ${seenAt.toLocaleTimeString()}`,
};

function mark(state) {
  const text = WORDS[state]();
  badge.className = `badge ${state}`;
  if (badge.textContent !== text) badge.textContent = text;
}

// Times that go on by themselves; the words are those of the server.

function away(instant) {
  const seconds = (instant - Date.now()) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  const distance = distanceOf(Math.floor(Math.abs(seconds)));
  return seconds > 0 ? `in ${distance}` : `${distance} ago`;
}

function distanceOf(whole) {
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) {
    const hours = Math.floor(whole / 3600);
    return hours < 6 ? `${hours} h ${Math.floor((whole % 3600) / 60)} min` : `${hours} h`;
  }
  const days = Math.floor(whole / 86400);
  return days === 1 ? "1 day" : `${days.toLocaleString("en")} days`;
}

function tick() {
  if (document.hidden) return;
  for (const time of document.querySelectorAll("time:not([data-fixed])")) {
    const text = away(Date.parse(time.dateTime));
    if (time.firstChild?.nodeValue !== text) time.firstChild.nodeValue = text;
  }
}

// Buttons act without leaving the page

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!("live" in form.dataset)) return;
  event.preventDefault();
  const button = event.submitter;
  if (button.getAttribute("aria-busy")) return;
  button.setAttribute("aria-busy", "true");
  const body = new URLSearchParams(new FormData(form));
  try {
    const text = await ask(form.action, { method: "POST", body });
    acted += 1;
    show(text);
  } catch (error) {
    tell(`That did not work: ${error.message}.`);
  }
  button.removeAttribute("aria-busy");
});

document.addEventListener(
  "toggle",
  (event) => {
    const element = event.target.querySelector?.(":scope > [data-load]");
    if (element && event.target.open && element.loaded !== element.dataset.version) load(element);
  },
  true,
);

// In a strip, the arrow keys go from run to run.
document.addEventListener("keydown", (event) => {
  const to = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
  if (to && event.target.parentElement?.className === "strip") event.target[to]?.focus();
});

// The form that adds a job

const form = document.querySelector("#add form");
if (form) {
  const { cron_expression: cron, timezone, job_type: type, parameters } = form.elements;
  const words = document.getElementById("cron-words");

  let typed = 0;
  const explain = async () => {
    const turn = ++typed;
    await new Promise((resume) => setTimeout(resume, 200));
    if (turn !== typed) return;
    const query = new URLSearchParams({ cron_expression: cron.value, timezone: timezone.value });
    try {
      const text = await ask(`/ui/preview?${query}`);
      const { body } = new DOMParser().parseFromString(text, "text/html");
      if (turn === typed) words.replaceChildren(...body.childNodes);
    } catch {
      if (turn === typed) words.replaceChildren();
    }
  };
  cron.addEventListener("input", explain);
  timezone.addEventListener("input", explain);

  let example = type.selectedOptions[0]?.dataset.example;
  type.addEventListener("change", () => {
    const next = type.selectedOptions[0].dataset.example;
    if (parameters.value.trim() === "" || parameters.value === example) parameters.value = next;
    example = next;
  });

  const zones = document.getElementById("timezones");
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const all = new Set([own, "UTC", ...(Intl.supportedValuesOf?.("timeZone") ?? [])]);
  zones.replaceChildren(...Array.from(all, (zone) => new Option("", zone)));
}

document.documentElement.classList.add("scripted");
document.addEventListener("click", async ({ target }) => {
  if (!target.matches(".copied button")) return;
  await navigator.clipboard.writeText(target.previousElementSibling.textContent);
  target.textContent = "Copied";
});

if (badge) {
  listen();
  setInterval(tick, 1000);
  setInterval(() => {
    if (isOpen) return;
    refresh();
    listen();
  }, POLL);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      leave();
    } else {
      listen();
      refresh();
    }
  });
}
