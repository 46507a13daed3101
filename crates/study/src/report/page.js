// The report's page: draws the charts and tables of the data that stands before it. Texts of records become text nodes, never markup.
"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const off = new Set();
const chosen = { subject: "", dtype: "" };
const $ = (id) => document.getElementById(id);

// An element with attributes and children; strings become text.
function el(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "rect", "line", "circle", "path", "text"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}
const colour = (key) => (key.colour < D.palette.length ? D.palette[key.colour] : "var(--published)");
const seriesColour = (place) => D.palette[place % D.palette.length];
const showsSeries = (s) =>
  s === null || (!off.has(s) && (!chosen.dtype || D.series[s].variant.dtype === chosen.dtype));
const showsSubject = (s) => s === null || !chosen.subject || s === chosen.subject;
const showsKey = (key) => showsSeries(key.series) && showsSubject(key.subject);

// Text widths as the page's own font has them.
const pen = document.createElement("canvas").getContext("2d");
function textWidth(text, weight = 400, size = 11) {
  pen.font = `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}
function place(axis, value) {
  const scale = axis.log ? Math.log : (v) => v;
  const part = (scale(value) - scale(axis.from)) / (scale(axis.to) - scale(axis.from));
  return Math.min(1, Math.max(0, part));
}

// What is said of the mark under the pointer, or of the one reached with the arrow keys.
const tip = $("tip");
function showTip(title, detail, x, y) {
  tip.replaceChildren(el("b", {}, title), detail);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(8, y - box.height - 12) : y + 18}px`;
}
const hideTip = () => { tip.hidden = true; };
function mark(node, title, detail) {
  node.classList.add("mark");
  node.tipText = [title, detail];
  node.addEventListener("pointermove", (event) => showTip(title, detail, event.clientX, event.clientY));
  node.addEventListener("pointerleave", hideTip);
  return node;
}
// With a figure focused, left and right go from mark to mark.
function stepper(figure) {
  let at = -1;
  figure.addEventListener("keydown", (event) => {
    const marks = [...figure.querySelectorAll(".mark")];
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") { hideTip(); return; }
    if (event.target !== figure || !step || !marks.length) return;
    event.preventDefault();
    at = at < 0 && step < 0 ? marks.length - 1 : (at + step + marks.length) % marks.length;
    marks.forEach((other, i) => other.classList.toggle("on", i === at));
    const box = marks[at].getBoundingClientRect();
    showTip(...marks[at].tipText, box.right, box.top + box.height / 2);
  });
  figure.addEventListener("blur", () => {
    hideTip();
    at = -1;
    figure.querySelectorAll(".on").forEach((node) => node.classList.remove("on"));
  });
}

function drawRows(chart, width) {
  const { axis, groups, dots, reference } = chart.body;
  const shown = groups.filter((group) => showsSubject(group.subject))
    .map((group) => ({ label: group.label, bars: group.bars.filter((bar) => showsKey(chart.keys[bar.key])) }))
    .filter((group) => group.bars.length);
  if (!shown.length) return null;
  const measured = shown.flatMap((group) => group.bars).filter((bar) => chart.keys[bar.key].series !== null);
  const names = Math.min(width * 0.32, Math.max(60, ...shown.map((group) => textWidth(group.label, 600, 12.5))));
  const room = Math.max(30, ...measured.map((bar) => textWidth(bar.text)));
  const many = shown.reduce((sum, group) => sum + group.bars.length, 0) > 60;
  const [left, right, thick, pad, top] = [names + 14, width - room - 12, many ? 11 : 14, 6, 22];
  const at = (value) => left + place(axis, value) * (right - left);
  const high = (group) => group.bars.length * thick + 2 * pad;
  const bottom = top + shown.reduce((sum, group) => sum + high(group), 0);
  const svg = el("svg", { viewBox: `0 0 ${width} ${bottom + 40}`, "aria-hidden": "true" });
  let y = top;
  shown.forEach((group, i) => {
    if (i % 2 === 0) svg.append(el("rect", { class: "band", x: -6, y, width: width + 12, height: high(group), rx: 4 }));
    y += high(group);
  });
  for (const tick of axis.ticks) {
    const x = at(tick.at);
    svg.append(
      el("line", { class: "grid", x1: x, x2: x, y1: top, y2: bottom }),
      el("text", { class: "muted", x, y: top - 7, "text-anchor": "middle" }, tick.text),
      el("text", { class: "muted", x, y: bottom + 15, "text-anchor": "middle" }, tick.text));
  }
  if (reference !== null) svg.append(el("line", { class: "reference", x1: at(reference), x2: at(reference), y1: top, y2: bottom }));
  y = top;
  for (const group of shown) {
    svg.append(el("text", { class: "name", x: 0, y: y + high(group) / 2 + 4 }, group.label));
    group.bars.forEach((bar, i) => {
      const key = chart.keys[bar.key];
      const [middle, title] = [y + pad + (i + 0.5) * thick, `${group.label} · ${key.label}`];
      if (bar.value === null) {
        svg.append(mark(el("text", { class: "muted", x: left + 4, y: middle + 4 }, bar.text), title, bar.detail));
        return;
      }
      let end = at(bar.value);
      const shape = dots
        ? el("circle", { cx: end, cy: middle, r: 4.5, fill: colour(key) })
        : el("rect", { x: left, y: middle - thick / 2 + 0.75, width: Math.max(1, end - left), height: thick - 1.5, rx: 2, fill: colour(key) });
      svg.append(mark(shape, title, bar.detail));
      if (bar.interval) {
        const [low, up] = [at(bar.interval.low), at(bar.interval.high)];
        const whisker = el("line", { class: "whisker", x1: low, x2: up, y1: middle, y2: middle });
        if (dots) whisker.style.stroke = colour(key);
        svg.append(whisker);
        end = Math.max(end, up);
      }
      svg.append(el("text", { x: end + (dots ? 8 : 5), y: middle + 4 }, bar.text));
    });
    y += high(group);
  }
  svg.append(el("text", { class: "muted", x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle" }, axis.title));
  return svg;
}

function drawPanels(chart, width) {
  const { x, y, panels, reference } = chart.body;
  const shown = panels.filter((panel) => showsSeries(panel.series)).map((panel) => ({
    ...panel,
    traces: panel.traces.filter((trace) => showsKey(chart.keys[trace.key]))
      .map((trace) => ({ ...trace, points: trace.points.filter((point) => showsSubject(point.subject)) }))
      .filter((trace) => trace.points.length),
  })).filter((panel) => panel.traces.length);
  if (!shown.length) return null;
  const columns = Math.max(1, Math.min(shown.length === 4 ? 2 : 3, shown.length, Math.floor(width / 260)));
  const ticks = Math.max(12, ...y.ticks.map((tick) => textWidth(tick.text))) + 8;
  const [wide, high, top] = [width / columns, columns === 1 ? 400 : 250, 22];
  const bottom = top + Math.ceil(shown.length / columns) * high;
  const svg = el("svg", { viewBox: `0 0 ${width} ${bottom + 22}`, "aria-hidden": "true" });
  svg.append(el("text", { class: "muted", x: 0, y: 10 }, `${y.title} (upwards)`));
  shown.forEach((panel, i) => {
    const [ox, oy] = [(i % columns) * wide, top + Math.floor(i / columns) * high];
    const [x1, x2, y1, y2] = [ox + ticks, ox + wide - 14, oy + 26, oy + high - 30];
    const px = (value) => x1 + place(x, value) * (x2 - x1);
    const py = (value) => y2 - place(y, value) * (y2 - y1);
    svg.append(el("text", { class: "name", x: x1, y: oy + 14 }, panel.title));
    for (const tick of y.ticks) {
      svg.append(el("line", { class: "grid", x1, x2, y1: py(tick.at), y2: py(tick.at) }),
        el("text", { class: "muted", x: x1 - 6, y: py(tick.at) + 4, "text-anchor": "end" }, tick.text));
    }
    for (const tick of x.ticks) {
      svg.append(el("line", { class: "grid", x1: px(tick.at), x2: px(tick.at), y1, y2 }),
        el("text", { class: "muted", x: px(tick.at), y: y2 + 15, "text-anchor": "middle" }, tick.text));
    }
    if (reference !== null) svg.append(el("line", { class: "reference", x1, x2, y1: py(reference), y2: py(reference) }));
    const labels = [];
    for (const trace of panel.traces) {
      const key = chart.keys[trace.key];
      const path = trace.points.map((point, n) => `${n ? "L" : "M"}${px(point.x)} ${py(point.y)}`).join("");
      if (trace.joined) svg.append(el("path", { class: "trace", d: path, stroke: colour(key) }));
      for (const point of trace.points) {
        const dot = el("circle", { cx: px(point.x), cy: py(point.y), r: trace.joined ? 4 : 4.5, fill: colour(key), "fill-opacity": trace.joined || trace.label ? 1 : 0.7 });
        svg.append(mark(dot, panel.title || key.label, point.detail));
      }
      const last = trace.points[trace.points.length - 1];
      if (trace.label) labels.push([px(last.x), py(last.y), trace.label]);
    }
    // From the top down, none on another.
    const taken = [];
    for (const [lx, ly, text] of labels.sort((a, b) => a[1] - b[1])) {
      const long = textWidth(text);
      const from = lx + 9 + long > x2 ? lx - 9 - long : lx + 9;
      let at = ly;
      while (at < y2 && taken.some(([l, r, t]) => l < from + long && from < r && Math.abs(t - at) < 13)) at += 1;
      taken.push([from, from + long, at]);
      svg.append(el("text", { x: from, y: at + 4 }, text));
    }
  });
  svg.append(el("text", { class: "muted", x: width / 2, y: bottom + 10, "text-anchor": "middle" }, x.title));
  return svg;
}

function figures() {
  const links = D.charts.map((chart) => el("a", { href: `#figure-${chart.id}` }, chart.title));
  $("figures").append(el("nav", { "aria-label": "Figures" }, ...links));
  for (const chart of D.charts) {
    const panels = chart.body.panels || [];
    // Panels that say whose they are, and points that are labelled, need no legend.
    const labelled = panels.length > 0 && panels.every((panel) =>
      panel.traces.every((trace) => trace.label !== null || (panel.series !== null && !trace.joined)));
    const canvas = el("div", { class: "canvas" });
    const legend = el("ul", { class: "legend" });
    const figure = el("figure", { id: `figure-${chart.id}`, tabindex: 0, "aria-label": `${chart.title}. Arrow keys go from value to value.` },
      el("h3", {}, chart.title), el("p", { class: "sub" }, chart.subtitle), legend, canvas, el("figcaption", {}, chart.note));
    figure.redraw = () => {
      const width = Math.max(300, Math.floor(canvas.clientWidth));
      legend.replaceChildren(...(labelled ? [] : chart.keys.filter(showsKey).map((key) => {
        const swatch = el("i");
        swatch.style.background = colour(key);
        return el("li", {}, swatch, key.label);
      })));
      const svg = chart.body.kind === "rows" ? drawRows(chart, width) : drawPanels(chart, width);
      canvas.replaceChildren(svg || el("p", { class: "empty" }, "Nothing of this is chosen above."));
    };
    stepper(figure);
    $("figures").append(figure);
  }
}

const fieldText = (field) => (typeof field === "string" ? field : field.text ?? field.why);
const fieldValue = (field) => (typeof field === "string" ? field : field.value ?? null);
// Numbers, then words, then what is missing, whichever way they are sorted.
function compareFields(a, b, down) {
  const rank = (value) => (value === null ? 2 : typeof value === "string" ? 1 : 0);
  const [x, y] = [fieldValue(a), fieldValue(b)];
  if (rank(x) !== rank(y)) return rank(x) - rank(y);
  if (x === null) return 0;
  const order = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
  return down ? -order : order;
}

// Where the best numbers of a line stand: one among the columns of each type, which alone are of the same work.
function bestOf(table, line, places) {
  const types = new Map();
  for (const place of table.best === "none" ? [] : places) {
    const [series, value] = [table.columns[place].series, fieldValue(line.fields[place])];
    if (series === null || typeof value !== "number") continue;
    const type = D.series[series].variant.dtype;
    types.set(type, [...(types.get(type) || []), [table.best === "least" ? value : -value, place]]);
  }
  const several = [...types.values()].filter((values) => values.length > 1);
  return new Set(several.map((values) => values.reduce((a, b) => (b[0] < a[0] ? b : a))[1]));
}

function tables() {
  for (const table of D.tables) {
    const scroll = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": table.title });
    const counter = el("span");
    const search = el("input", { type: "search", placeholder: "Filter lines", "aria-label": `Filter ${table.title}` });
    const sort = { column: null, down: false };
    const details = el("details", { id: `table-${table.id}`, open: !table.long && table.lines.length <= 120 },
      el("summary", {}, el("h3", {}, table.title), counter),
      el("div", { class: "body" }, el("p", { class: "note" }, table.note), search, scroll));
    const cell = (line, place, best) => {
      const field = line.fields[place];
      const number = table.columns[place].numeric;
      const value = fieldValue(field);
      const classes = [number ? "number" : fieldText(field).length > 48 ? "words" : ""];
      if (value === null) classes.push("missing", field.why.startsWith("failed") ? "failed" : "");
      if (best) classes.push("best");
      const node = el("td", { class: classes.join(" ").trim() || null }, fieldText(field));
      if (field.detail) {
        node.setAttribute("data-detail", field.detail);
        node.title = field.detail;
      }
      return node;
    };
    details.redraw = () => {
      if (!details.open) {
        counter.textContent = `${table.lines.length} lines`;
        return;
      }
      const places = table.columns.map((_, place) => place).filter((place) => showsSeries(table.columns[place].series));
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const lines = table.lines.filter((line) => {
        if (!showsSeries(line.series) || !showsSubject(line.subject)) return false;
        const text = line.fields.map(fieldText).join(" ").toLowerCase();
        return words.every((word) => text.includes(word));
      });
      if (sort.column !== null) lines.sort((a, b) => compareFields(a.fields[sort.column], b.fields[sort.column], sort.down));
      counter.textContent = lines.length === table.lines.length ? `${lines.length} lines` : `${lines.length} of ${table.lines.length} lines`;
      const head = el("tr", {}, ...places.map((place) => {
        const column = table.columns[place];
        const swatch = column.series === null ? null : el("i");
        if (swatch) swatch.style.background = seriesColour(column.series);
        const order = sort.column !== place ? "none" : sort.down ? "descending" : "ascending";
        const button = el("button", { type: "button", "data-column": place, onclick: () => {
          sort.down = sort.column === place && !sort.down;
          sort.column = place;
          details.redraw();
          scroll.querySelector(`button[data-column="${place}"]`).focus();
        } }, ...(swatch ? [swatch] : []), column.title || " ");
        return el("th", { scope: "col", "aria-sort": order, class: column.numeric ? "number" : null }, button);
      }));
      const body = lines.map((line) => {
        const best = bestOf(table, line, places);
        return el("tr", { class: line.total ? "total" : null }, ...places.map((place) => cell(line, place, best.has(place))));
      });
      scroll.replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)));
    };
    search.addEventListener("input", () => details.redraw());
    details.addEventListener("toggle", () => details.redraw());
    $("tables").append(details);
  }
}

function redraw() {
  hideTip();
  document.querySelectorAll("figure, details").forEach((node) => node.redraw());
}

function filters() {
  const form = $("filters");
  const chips = D.series.map((series, place) => {
    const swatch = el("i");
    swatch.style.background = seriesColour(place);
    const chip = el("button", { type: "button", class: "chip", "aria-pressed": "true", "data-series": place, onclick: () => {
      if (!off.delete(place)) off.add(place);
      chip.setAttribute("aria-pressed", String(!off.has(place)));
      redraw();
    } }, swatch, series.label);
    return chip;
  });
  const select = (name, label, values) => {
    const node = el("select", { name, onchange: () => { chosen[name] = node.value; redraw(); } },
      el("option", { value: "" }, "all"), ...values.map((value) => el("option", { value }, value)));
    return values.length > 1 ? el("label", {}, label, node) : null;
  };
  const unique = (values) => [...new Set(values)];
  const subjects = unique(D.tables.flatMap((table) => table.lines.map((line) => line.subject)).filter(Boolean));
  form.append(...chips, ...[
    select("subject", "model or operation", subjects),
    select("dtype", "type", unique(D.series.map((series) => series.variant.dtype))),
  ].filter(Boolean));
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let own = null;
  const apply = () => {
    const now = own ?? (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now;
    $("theme").textContent = now === "dark" ? "Light colours" : "Dark colours";
    return now;
  };
  dark.addEventListener("change", apply);
  $("theme").addEventListener("click", () => { own = apply() === "dark" ? "light" : "dark"; apply(); });
  apply();
}

function words() {
  $("machines").textContent = D.machines.join("; ");
  const counts = [["cells", D.cells], ["engines and types", D.series.length], ["samples, all kept", D.samples], ["failed processes", D.failures]];
  $("counts").append(...counts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value.toLocaleString("en")))));
  const links = [["figures", "Figures"], ["tables", "Tables"], ["table-failures", "Failures"], ["table-environment", "Environment"], ["method", "Method"], ["defects", "Defects"]];
  $("contents").append(...links.filter(([id]) => $(id)).map(([id, name]) => el("a", { href: `#${id}` }, name)));
  $("method").append(el("ul", { class: "rules" }, ...D.method.map(([rule, why]) => el("li", {}, el("strong", {}, rule), ` ${why}`))));
  $("defects").append(el("dl", { class: "defects" }, ...D.defects.map((defect) =>
    el("div", {}, el("dt", {}, defect.id), el("dd", {}, defect.what), el("dd", {}, defect.here)))));
  document.querySelector("main").append(el("p", { class: "foot" }, "Made from records alone; report.json and the CSV files beside this page have every number in full."));
}

theme();
filters();
figures();
tables();
words();
redraw();
let waiting = 0;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(redraw, 120); });
addEventListener("scroll", hideTip, { passive: true });
