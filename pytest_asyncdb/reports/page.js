"use strict";
// The filter is the address: #show=failed&backend=sqlite&cause=values&q=text. Chips, causes and
// totals are links to addresses, so going back works, and an address can be sent to others.

const byId = id => document.getElementById(id);
const report = JSON.parse(byId("data").textContent);
const KIND = { passed: "passed", xpassed: "passed", failed: "failed", error: "failed",
  skipped: "skipped", xfailed: "skipped" };
const SIGN = { passed: "✓", failed: "✗", skipped: "–" };
const CHIPS = [
  ["", "All", "All tests"],
  ["failed", "Failed", "Failed on at least one backend"],
  ["differs", "Differs", "Passed on one backend and failed on another"],
  ["passed", "Passed", "Passed, and failed on no backend"],
  ["skipped", "Skipped", "Skipped or failed as expected on at least one backend"],
];
const TITLES = { hint: "Hint", locks: "Locks", "changed rows": "Changed rows", asyncdb: "Note" };

/** An element; strings among its children become text. */
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function duration(seconds) {
  if (seconds >= 60) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds >= 1) return `${seconds.toFixed(2)} s`;
  return `${(seconds * 1000).toFixed(seconds >= 0.01 ? 0 : 2)} ms`;
}
const number = n => n.toLocaleString("en");
const counted = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;
const total = cell => Object.values(cell.seconds).reduce((sum, one) => sum + one, 0);
const has = (cells, kind) => cells.some(cell => KIND[cell.outcome] === kind);
const causes = Object.entries(report.differences).map(([cause, tests]) => [cause, tests.length]);
const differing = causes.reduce((sum, [, n]) => sum + n, 0);

// --- the filter ---------------------------------------------------------------------------------

const filter = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

/** The address of the filter with these changes; empty: without that part. */
function address(changes) {
  const all = Object.entries({ ...filter(), ...changes }).filter(([, value]) => value);
  return `#${new URLSearchParams(all)}`;
}

function cellsOf(test, backend) {
  if (!backend) return Object.values(test.on);
  return Object.hasOwn(test.on, backend) ? [test.on[backend]] : [];
}

function isOfChip(test, cells, chip) {
  if (!chip) return cells.length > 0;
  if (chip === "differs") return test.cause !== null && cells.length > 0;
  return has(cells, chip) && !(chip === "passed" && has(cells, "failed"));
}

/** What the search looks at. */
function textOf(test) {
  const errors = Object.values(test.on).map(({ error, reason }) =>
    error ? `${error.type} ${error.message} ${error.statement ?? ""}` : reason ?? "");
  return [test.test, test.cause ?? "", ...errors].join("\n").toLowerCase();
}

// --- the head -----------------------------------------------------------------------------------

function headline() {
  const every = counted(report.tests.length, "test");
  const failed = report.tests.filter(test => isOfChip(test, cellsOf(test), "failed")).length;
  if (!report.tests.length) return "No database test ran";
  if (differing) {
    const verb = differing === 1 ? "differs" : "differ";
    return `${number(differing)} of ${every} ${verb} between backends`;
  }
  return failed ? `${number(failed)} of ${every} failed` : `${every}, none failed`;
}

function totalsOf(backend) {
  const cells = report.tests.flatMap(test => cellsOf(test, backend));
  const bar = make("span", { class: "share", "aria-hidden": "true" });
  const counts = make("p", { class: "counts" });
  for (const kind of ["failed", "passed", "skipped"]) {
    const n = cells.filter(cell => KIND[cell.outcome] === kind).length;
    if (!n) continue;
    bar.append(make("i", { class: kind }));
    bar.lastChild.style.flexGrow = n;
    const href = `#${new URLSearchParams({ show: kind, backend })}`;
    counts.append(make("a", { class: kind, href }, `${SIGN[kind]} ${number(n)}`,
      make("span", { class: "kind" }, ` ${kind}`)), " ");
  }
  if (report.left_out.includes(backend)) counts.append("not compared: no test was set up");
  if (!cells.length) counts.append("no test");
  const time = duration(cells.reduce((sum, cell) => sum + total(cell), 0));
  return make("section", { class: "backend" },
    make("h2", {}, backend, make("small", {}, time)), bar, counts,
    make("p", { class: "server" }, report.servers[backend]));
}

function showHead() {
  document.title = headline();
  const started = new Date(report.started);
  const when = started.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  const versions = Object.entries(report.versions).map(pair => pair.join(" ")).join(" · ");
  byId("head").replaceChildren(
    make("h1", {}, headline()),
    make("p", { class: "about" },
      make("time", { datetime: report.started, title: report.started }, when),
      ` · ${duration(report.seconds)} · ${versions}`),
    make("div", { class: "totals" }, ...report.backends.map(totalsOf)));
  if (!causes.length) return;
  const links = causes.flatMap(([cause, n]) => [causeLink(cause, ` ${number(n)}`), " "]);
  byId("head").append(make("p", { class: "cause" }, "Causes of the differences: ", ...links));
}

// --- the tests ----------------------------------------------------------------------------------

/** A test's name: the path in the background, parts where a line may end. */
function nameOf(id) {
  const start = id.split("[")[0].lastIndexOf("::");
  return make("span", { class: "name" },
    make("span", { class: "path" }, id.slice(0, start + 2)), make("wbr", {}), id.slice(start + 2));
}

/** One element, since thousands of tests have many. Style sheets add the sign and the backend. */
function cellOf(backend, cell) {
  if (cell === undefined) return make("span", { class: "cell", "aria-hidden": "true" });
  const { outcome } = cell, text = outcome === "passed" ? duration(total(cell)) : outcome;
  return make("span", { class: `cell ${KIND[outcome]} ${outcome}`, "data-on": backend,
    "aria-label": `${backend} ${outcome}` }, text);
}

function rowOf(test) {
  const cause = make("span", { class: "cause" });
  if (test.cause !== null) cause.append(causeLink(test.cause));
  return make("details", { class: "test" }, make("summary", {}, nameOf(test.test), cause,
    ...report.backends.map(backend => cellOf(backend, test.on[backend]))));
}

const causeLink = (cause, count = "") => make("a", {
  href: `#${new URLSearchParams({ show: "differs", cause })}`,
  title: `Tests that differ for this cause: ${cause}`,
}, cause, make("small", {}, count));

/** A backend's word, which may break before its driver. */
const wordOf = backend => backend.split(/(?=\+)/).flatMap(part => [make("wbr", {}), part]);

function blockOf([backend, cell]) {
  const { error, reason, outcome, seconds } = cell, kind = KIND[outcome];
  const times = Object.entries(seconds).map(([when, s]) => `${when} ${duration(s)}`).join(", ");
  const block = make("section", { class: `block ${kind}` }, make("h3", {},
    backend, make("span", { class: "outcome" }, `${SIGN[kind]} ${outcome}`),
    make("small", {}, times)));
  if (reason) block.append(make("p", { class: "reason" }, reason));
  if (!error) return block;
  const type = error.type.split(".").pop(), code = error.code ? `, code ${error.code}` : "";
  block.append(make("pre", { class: "error", tabindex: "0" },
    type === "AssertionError" ? error.message : `${type}: ${error.message}`));
  block.append(make("p", { class: "about" }, `${error.type} in ${error.when}${code}`));
  const sections = error.sections ?? [];
  const hints = sections.filter(([title]) => title === "hint");
  for (const [, text] of hints) block.append(hintOf(text));
  if (error.statement && !sections.some(([title]) => title === "SQL"))
    block.append(...sectionOf("SQL", error.statement));
  for (const [title, text] of sections)
    if (title !== "hint") block.append(...sectionOf(TITLES[title] ?? title, text));
  if (error.traceback) {
    // An error that explains itself comes without a traceback.
    const title = error.traceback.startsWith(error.message) ? "Message" : "Traceback";
    block.append(make("details", { class: "traceback" }, make("summary", {}, title),
      make("pre", { tabindex: "0" }, ...error.traceback.split("\n").map(lineOf))));
  }
  return block;
}

/** A line of a traceback: pytest marks those of the error, and where it was raised. */
const lineOf = line => make(
  "span", /^E( |$)/.test(line) ? { class: "raised" } : line[0] === ">" ? { class: "at" } : {},
  `${line}\n`);

const sectionOf = (title, text) => [make("h4", {}, title), make("pre", { tabindex: "0" }, text)];

/** A hint without the ends of lines that the terminal needs; its lines begin with a title. */
function hintOf(text) {
  const lines = text.replace(/\n +/g, " ").split("\n").flatMap(line => {
    const [title, ...rest] = line.split(": ");
    return rest.length ? [make("b", {}, `${title}: `), rest.join(": "), "\n"] : [line, "\n"];
  });
  return make("p", { class: "hint" }, ...lines.slice(0, -1));
}

const rows = report.tests.map(test => {
  const element = rowOf(test), row = { test, element, text: null };
  const fill = () => {
    if (!element.open || element.children.length > 1) return;
    const worst = { failed: 0, skipped: 1, passed: 2 };
    const cells = Object.entries(test.on);
    cells.sort(([, a], [, b]) => worst[KIND[a.outcome]] - worst[KIND[b.outcome]]);
    element.append(make("div", { class: "blocks" }, ...cells.map(blockOf)));
    const first = element.querySelector(".traceback");
    if (first) first.open = true;
  };
  element.addEventListener("toggle", fill);
  return row;
});
const rank = ({ test }) =>
  test.cause !== null ? 0 : isOfChip(test, cellsOf(test), "failed") ? 1 : 2;
rows.sort((a, b) => rank(a) - rank(b));

const shownRows = () => rows.filter(row => !row.element.hidden);

function showFilter() {
  const { show = "", backend = "", cause = "", q = "" } = filter();
  const words = q.toLowerCase();
  const counts = Object.fromEntries(CHIPS.map(([chip]) => [chip, 0]));
  let shown = 0;
  for (const row of rows) {
    const { test, element } = row, cells = cellsOf(test, backend);
    const found = (!cause || test.cause === cause)
      && (!words || (row.text ??= textOf(test)).includes(words));
    for (const [chip] of CHIPS) counts[chip] += found && isOfChip(test, cells, chip);
    element.hidden = !(found && isOfChip(test, cells, show));
    shown += !element.hidden;
  }
  const compared = CHIPS.filter(([chip]) => chip !== "differs" || report.backends.length > 1);
  const chips = compared.map(([chip, label, title]) => chipOf(
    chip || "all", address({ show: chip }), chip === show, label, number(counts[chip]), title));
  const more = Object.entries({ backend, cause }).filter(([, value]) => value).map(
    ([key, value]) => chipOf(key, address({ [key]: "" }), true, value, "×", `Any ${key}`));
  byId("chips").replaceChildren(...chips, ...more);
  byId("shown").textContent = `${number(shown)} of ${counted(rows.length, "test")}`;
  byId("none").hidden = shown > 0 || rows.length === 0;
  if (byId("search").value !== q) byId("search").value = q;
  showOpen();
  measure();
}

function chipOf(kind, href, chosen, label, count, title) {
  const chip = make("a", { class: `chip ${kind}`, href, title }, `${label} `, make("b", {}, count));
  if (chosen) chip.setAttribute("aria-current", "true");
  return chip;
}

// --- keys, buttons, widths ----------------------------------------------------------------------

function showOpen() {
  const shown = shownRows();
  const all = shown.length > 0 && shown.every(row => row.element.open);
  byId("open").textContent = all ? "Close all" : "Open all";
}

function openAll() {
  const open = byId("open").textContent === "Open all";
  for (const row of shownRows()) row.element.open = open;
  showOpen();
}

function search() {
  history.replaceState(null, "", address({ q: byId("search").value }));
  showFilter();
}

/** Moves to another of the shown tests. */
function move(step) {
  const shown = shownRows().map(row => row.element.firstChild);
  const now = shown.indexOf(document.activeElement.closest(".test")?.firstChild);
  const last = shown.length - 1;
  const next = { up: now < 0 ? last : now - 1, down: now + 1, first: 0, last }[step];
  shown[Math.max(0, Math.min(last, next))]?.focus();
}

const STEPS = { ArrowUp: "up", ArrowDown: "down", Home: "first", End: "last" };

function pressed(event) {
  const input = event.target === byId("search");
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "PRE") return;
  if (event.key === "Escape" && input) {
    byId("search").value = "";
    search();
  } else if (event.key === "/" && !input) {
    byId("search").focus();
  } else if (event.key in STEPS && !(input && event.key !== "ArrowDown")) {
    move(STEPS[event.key]);
  } else {
    return;
  }
  event.preventDefault();
}

/** Wide enough for a column for each backend? The rows begin below the bar, which stays. */
function measure() {
  const wide = innerWidth >= 400 + report.backends.length * 110;
  document.body.classList.toggle("wide", wide);
  document.documentElement.style.scrollPaddingTop = `${byId("bar").offsetHeight}px`;
}

document.body.style.setProperty("--backends", report.backends.length);
showHead();
byId("columns").append(make("span", {}, "Test"), make("span", {}, "Cause"),
  ...report.backends.map(backend => make("span", {}, ...wordOf(backend))));
byId("tests").append(...rows.map(row => row.element));
byId("bar").hidden = byId("keys").hidden = report.tests.length === 0;
byId("search").addEventListener("input", search);
byId("open").addEventListener("click", openAll);
let due = 0; // once for all tests that are opened together
byId("tests").addEventListener("toggle", () => {
  cancelAnimationFrame(due);
  due = requestAnimationFrame(showOpen);
}, true);
addEventListener("keydown", pressed);
addEventListener("hashchange", showFilter);
addEventListener("resize", measure);
showFilter();
