"use strict";
// The page's behaviour: theme, charts, the browser of rollouts, and, where `coevo view` serves it, its own reload.
// Texts of data and models reach the page by textContent alone.

const byId = (id) => document.getElementById(id);
const read = (id) => JSON.parse(byId(id).textContent);
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// --- what is kept between visits, where the browser lets a page keep something ---

function kept(storage, key, value) {
  try {
    if (value === undefined) return window[storage].getItem(key);
    window[storage].setItem(key, value);
  } catch { /* a page from a file may keep nothing */ }
  return null;
}

// --- theme ---

const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";

function showTheme() {
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  drawn.clear();
  drawVisible();
}

function startTheme() {
  const chosen = kept("localStorage", "coevo-theme");
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  byId("theme").hidden = false;
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    kept("localStorage", "coevo-theme", root.dataset.theme);
    showTheme();
  });
  dark.addEventListener("change", showTheme);
}

// --- charts: each is drawn when it is first seen, as a closed fold has no width ---

const drawn = new Set();
const specifications = read("charts-data");

function look() {
  const style = getComputedStyle(root);
  const colour = (name) => style.getPropertyValue(name).trim();
  const [text, soft, line] = ["--text", "--soft", "--line"].map(colour);
  const others = isDark() ? ["#2FC99A", "#E39CC6", "#F0E442", "#9FB0C0"] : ["#009E73", "#CC79A7", "#8A6D00", "#555555"];
  return {
    background: "transparent",
    font: style.fontFamily || "sans-serif",
    view: { stroke: null },
    axis: { labelColor: text, titleColor: soft, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12, titleFontWeight: "normal" },
    legend: { labelColor: text, titleColor: soft, labelFontSize: 12, titleFontWeight: "normal" },
    range: { category: [colour("--before"), colour("--after"), ...others] },
  };
}

function drawVisible() {
  if (!window.vegaEmbed) return;
  for (const box of document.querySelectorAll("[data-charts]")) {
    const place = box.dataset.charts;
    if (drawn.has(place) || box.closest("details:not([open])")) continue;
    drawn.add(place);
    const targets = box.querySelectorAll(".chart > div");
    (specifications[place] || []).forEach((spec, index) => {
      const options = { ast: true, renderer: "svg", actions: false, config: look() };
      window.vegaEmbed(targets[index], spec, options).catch((error) => { targets[index].textContent = String(error); });
    });
  }
}

// --- folds: a link opens what it leads to ---

function openTarget() {
  const target = /^#[\w-]+$/.test(location.hash) && byId(location.hash.slice(1));
  if (!target) return;
  if (target.tagName === "DETAILS") target.open = true;
  target.scrollIntoView();
}

// --- the browser of rollouts ---

const PAGE = 50;
const browser = { rows: [], contexts: [], found: [], shown: 0 };
const FIELDS = ["role", "phase", "iteration", "subset", "status"];
const form = document.querySelector(".filters");
const number = (value) => (value === null || value === undefined ? "n/a" : String(Number(value.toPrecision(4))));
const value = (row, part) => (part === "reward" ? row.reward : row.parts[part]) ?? null;

function fillSelects() {
  for (const name of FIELDS) {
    const counts = new Map();
    for (const row of browser.rows) counts.set(row[name], (counts.get(row[name]) || 0) + 1);
    const select = form.elements[name];
    select.append(new Option("all", ""));
    for (const [one, count] of counts) {
      if (one !== null && one !== "") select.append(new Option(`${one} (${count})`, one));
    }
  }
  const parts = new Set(browser.rows.flatMap((row) => Object.keys(row.parts)));
  for (const part of ["reward", ...parts]) form.elements.part.append(new Option(part, part));
}

function lowered(row) {
  row.lower ??= [row.text, row.answer, row.thought, row.reason, row.id].join("\n").toLowerCase();
  return row.lower;
}

function loweredContext(context) {
  context.lower ??= [context.persona, context.character, context.reference, context.prompt, ...(context.dialogue || []).map((turn) => turn[1])]
    .join("\n").toLowerCase();
  return context.lower;
}

function matches(row, wanted, words, part, most) {
  if (wanted.some(([name, one]) => String(row[name]) !== one)) return false;
  if (most !== null && !(value(row, part) !== null && value(row, part) <= most)) return false;
  return words.every((word) => lowered(row).includes(word) || loweredContext(browser.contexts[row.context]).includes(word));
}

function filter() {
  const data = new FormData(form);
  const wanted = FIELDS.map((name) => [name, data.get(name)]).filter(([, one]) => one);
  const words = data.get("q").toLowerCase().split(/\s+/).filter(Boolean);
  const [part, order] = [data.get("part"), data.get("order")];
  const most = data.get("most") === "" ? null : Number(data.get("most"));
  browser.found = browser.rows.filter((row) => matches(row, wanted, words, part, most));
  if (order === "new") browser.found.reverse();
  else {
    const sign = order === "best" ? -1 : 1;
    // what has no score is neither good nor bad, and stands last
    const key = (row) => (value(row, part) === null ? Infinity : sign * value(row, part));
    browser.found.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
  }
  browser.shown = 0;
  byId("list").replaceChildren();
  const [found, all] = [browser.found.length, browser.rows.length].map((count) => count.toLocaleString("en"));
  byId("count").textContent = `${found} of ${all} rollouts`;
  showMore();
}

function showMore() {
  const part = form.elements.part.value;
  const next = browser.found.slice(browser.shown, browser.shown + PAGE);
  byId("list").append(...next.map((row) => rowElement(row, part)));
  browser.shown += next.length;
  const left = browser.found.length - browser.shown;
  byId("more").hidden = left === 0;
  byId("more").textContent = `Show ${Math.min(PAGE, left)} more of ${left.toLocaleString("en")}`;
}

function rowElement(row, part) {
  const card = make("details", "card row");
  const head = make("summary");
  const text = make("span", "text", row.text || "(no text)");
  text.dir = "auto";
  const status = row.status && row.status !== "ok" ? ` · ${row.status}` : "";
  head.append(make("span", "reward", number(value(row, part))), text);
  head.append(make("span", "meta", `${row.role} · ${row.subset} · ${row.phase} · step ${row.step ?? "n/a"} · ${row.id}${status}`));
  card.append(head);
  card.addEventListener("toggle", () => { if (card.childElementCount === 1) card.append(...rowBody(row)); }, { once: true });
  return card;
}

function rowBody(row) {
  const context = browser.contexts[row.context];
  const list = make("dl");
  const add = (name, text) => {
    if (!text) return;
    const body = make("dd", "", text);
    body.dir = "auto";
    list.append(make("dt", "", name), body);
  };
  add("persona", context.persona);
  add("character", context.character);
  for (const [role, text] of context.dialogue || []) add(role, text);
  add("thought", row.thought);
  add(row.role === "simulator" ? "turn" : "response", row.text || "(no text)");
  add("answer", row.answer);
  add("reason", row.reason);
  add("reference", context.reference);
  add("prompt", context.prompt);
  const parts = make("div", "parts");
  const named = [["reward", row.reward], ...Object.entries(row.parts)];
  parts.append(...named.map(([name, one]) => make("span", "", `${name} ${number(one)}`)), make("span", "", `status ${row.status || "n/a"}`));
  return [parts, list];
}

function remember() {
  const filled = [...new FormData(form)].filter(([name, one]) => one && !(name === "part" && one === "reward") && !(name === "order" && one === "worst"));
  history.replaceState(null, "", filled.length ? `#${new URLSearchParams(filled)}` : location.pathname + location.search);
}

function recall() {
  if (!location.hash.includes("=")) return;
  for (const [name, one] of new URLSearchParams(location.hash.slice(1))) {
    const field = form.elements.namedItem(name);
    if (field) field.value = one;
    // a choice that there is no more
    if (field && field.selectedIndex === -1) field.selectedIndex = 0;
  }
}

function startBrowser() {
  Object.assign(browser, read("rollouts-data"));
  byId("browser").hidden = false;
  fillSelects();
  recall();
  filter();
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { filter(); remember(); });
  byId("more").addEventListener("click", showMore);
}

// --- a page that `coevo view` serves comes again when the run has moved on, but not under a reader's hands ---

function startFollowing() {
  let touched = 0;
  for (const kind of ["keydown", "pointerdown", "wheel", "touchmove"]) addEventListener(kind, () => { touched = Date.now(); }, { passive: true });
  const folds = () => [...document.querySelectorAll("details[id]")].filter((one) => one.open).map((one) => one.id);
  const before = JSON.parse(kept("sessionStorage", "coevo-folds") || "[]");
  before.forEach((id) => { if (byId(id)) byId(id).open = true; });
  setInterval(async () => {
    try {
      const answer = await fetch("/version", { cache: "no-store" });
      if (!answer.ok || (await answer.text()) === document.body.dataset.live || Date.now() - touched < 5000) return;
      kept("sessionStorage", "coevo-folds", JSON.stringify(folds()));
      location.reload();
    } catch { /* the server has ended: the page stays as it is */ }
  }, 2000);
}

startTheme();
if (document.body.dataset.live) startFollowing();
document.addEventListener("toggle", drawVisible, true);
addEventListener("hashchange", openTarget);
showTheme();
startBrowser();
openTarget();
