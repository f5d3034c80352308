"use strict";
// Charts that answer to pointer and keyboard, other axes, values as a table, and enlarging.
// Without it the page shows everything but these. What a run's files contain becomes text only.
(() => {
  const NAMESPACE = "http://www.w3.org/2000/svg";
  const LABEL_HEIGHT = 13;
  const view = { x: "step", log: false };
  const known = new WeakMap(); // by plot: its data, where it is read, how it is drawn

  const plots = () => document.querySelectorAll(".plot");
  const format = (value) => Number(value.toPrecision(5)).toLocaleString("en", { maximumSignificantDigits: 5 });
  const whole = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });

  function stateOf(plot) {
    if (!known.has(plot)) {
      const svg = plot.querySelector("svg");
      const box = svg.dataset.box.split(" ").map(Number);
      known.set(plot, { data: JSON.parse(plot.dataset.chart), svg, box, at: null, frame: null });
      frame(known.get(plot));
    }
    return known.get(plot);
  }

  // --- axes
  const xsOf = (curve) => (view.x === "samples_seen" && curve.seen ? curve.seen : curve.steps);

  function frame(state) {
    const curves = state.data.curves;
    const xs = curves.flatMap(xsOf);
    const ys = curves.flatMap((curve) => [...curve.lows, ...curve.highs]);
    const shown = curves.flatMap((curve) => curve.values);
    const log = view.log && Math.min(...ys) > 0;
    state.frame = { x: [Math.min(...xs), Math.max(...xs)], log,
      y: [Math.min(...shown), Math.max(...shown)] };
    state.places = [...new Set(xs)].sort((one, other) => one - other);
  }

  function scale(value, [low, high], start, end) {
    return low === high ? (start + end) / 2 : start + ((value - low) / (high - low)) * (end - start);
  }

  const placeX = (state, x) => scale(x, state.frame.x, state.box[0], state.box[1]);

  function placeY(state, y) {
    const [, , top, bottom] = state.box;
    const { y: range, log } = state.frame;
    const at = log ? scale(Math.log(y), range.map(Math.log), bottom, top) : scale(y, range, bottom, top);
    return Math.max(top, Math.min(bottom, at));
  }

  function ticks([low, high], log) {
    const rounding = Math.max(1e-12 * Math.max(Math.abs(low), Math.abs(high)), 2.3e-308);
    if (high - low <= rounding) return [low];
    if (log) {
      const decades = Math.log10(high / low);
      const parts = decades > 3 ? [1] : decades > 1 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1)
        for (const part of parts) found.push(part * 10 ** power);
      const inside = found.filter((tick) => tick >= low * 0.999999 && tick <= high * 1.000001);
      const every = Math.ceil(inside.length / 6);
      return inside.filter((_, index) => index % every === 0);
    }
    const rough = (high - low) / 4;
    const size = 10 ** Math.floor(Math.log10(rough));
    const spacing = [1, 2, 2.5, 5, 10].map((part) => part * size).find((part) => part >= rough);
    const found = [];
    for (let index = Math.ceil(low / spacing - 1e-9); index * spacing <= high + 1e-9 * spacing; index += 1)
      found.push(index * spacing);
    return found;
  }

  function short(value) {
    const size = Math.abs(value);
    if (size && (size >= 1e9 || size < 1e-3)) return Number(value.toPrecision(3)).toExponential();
    if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
    if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
    return String(Number(value.toPrecision(4)));
  }

  // --- drawing on other axes
  function element(parent, name, attributes, text = "") {
    const made = document.createElementNS(NAMESPACE, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    parent.append(made);
    return made;
  }

  function path(state, xs, ys) {
    return `M${xs.map((x, index) => `${placeX(state, x).toFixed(1)} ${placeY(state, ys[index]).toFixed(1)}`).join("L")}`;
  }

  function redraw(plot) {
    const state = stateOf(plot);
    const { svg, box: [left, right, , bottom] } = state;
    frame(state);
    svg.querySelectorAll(".grid, .tick, .curve, .last, .cursor").forEach((old) => old.remove());
    for (const tick of ticks(state.frame.y, state.frame.log)) {
      const y = placeY(state, tick);
      element(svg, "path", { class: "grid", d: `M${left} ${y}H${right}` });
      element(svg, "text", { class: "tick", x: left - 6, y: y + 4 }, short(tick));
    }
    for (const tick of ticks(state.frame.x, false))
      if (Number.isInteger(tick))
        element(svg, "text", { class: "tick step", x: placeX(state, tick), y: bottom + 16 }, short(tick));
    state.data.curves.forEach((curve) => drawCurve(state, curve));
    drawLastValues(state);
    svg.querySelector(".axis").textContent = xName(state);
    hide(plot);
  }

  function drawCurve(state, curve) {
    const xs = xsOf(curve);
    const group = element(state.svg, "g", { class: `curve ${curve.style}` });
    if (curve.thinned) {
      const edge = path(state, [...xs, ...[...xs].reverse()], [...curve.highs, ...[...curve.lows].reverse()]);
      element(group, "path", { class: "band", d: `${edge}Z` });
    }
    element(group, "path", { class: "line", d: path(state, xs, curve.values) });
    xs.forEach((x, index) => {
      if (curve.dots || index === xs.length - 1)
        element(group, "circle", { class: "dot", r: 2.5, cx: placeX(state, x), cy: placeY(state, curve.values[index]) });
    });
  }

  // Moved apart until none overlaps, in their order and above the plot's bottom, as chart.py does.
  function spread(heights, bottom) {
    const order = heights.map((_, index) => index).sort((one, other) => heights[one] - heights[other]);
    const placed = [...heights];
    order.forEach((at, rank) => {
      if (rank) placed[at] = Math.max(placed[at], placed[order[rank - 1]] + LABEL_HEIGHT);
    });
    let limit = bottom;
    for (const at of order.reverse()) {
      placed[at] = Math.min(placed[at], limit);
      limit = placed[at] - LABEL_HEIGHT;
    }
    return placed;
  }

  function drawLastValues(state) {
    const { curves } = state.data;
    const heights = curves.map((curve) => placeY(state, curve.values.at(-1)));
    spread(heights, state.box[3]).forEach((y, index) => {
      const { style, values } = curves[index];
      const x = placeX(state, xsOf(curves[index]).at(-1)) + 7;
      element(state.svg, "text", { class: `last ${style}`, x, y: y + 4 }, short(values.at(-1)));
    });
  }

  const xName = (state) =>
    view.x === "samples_seen" && state.data.curves.some((curve) => curve.seen) ? "images seen" : state.data.x;

  // --- readout
  function nearest(values, value) {
    let best = 0;
    values.forEach((each, index) => {
      if (Math.abs(each - value) < Math.abs(values[best] - value)) best = index;
    });
    return best;
  }

  function show(plot, at) {
    const state = stateOf(plot);
    const { svg, places, box: [, , top, bottom] } = state;
    state.at = Math.max(0, Math.min(places.length - 1, at));
    const x = places[state.at];
    svg.querySelectorAll(".cursor").forEach((old) => old.remove());
    const cursor = element(svg, "g", { class: "cursor" });
    element(cursor, "path", { d: `M${placeX(state, x)} ${top}V${bottom}` });
    const readout = plot.querySelector(".readout");
    readout.replaceChildren(part("b", `${xName(state)} ${whole(x)}`));
    for (const curve of state.data.curves) {
      const xs = xsOf(curve);
      if (x < xs[0] || x > xs.at(-1)) continue;
      const index = nearest(xs, x);
      const isOther = xs[index] === x ? "" : ` at ${whole(xs[index])}`;
      const value = curve.values[index];
      element(cursor, "circle", { class: `dot ${curve.style}`, r: 4, cx: placeX(state, xs[index]), cy: placeY(state, value) });
      const unit = state.data.unit ? ` ${state.data.unit}` : "";
      readout.append(part("span", `${curve.label} ${format(value)}${unit}${isOther}`));
    }
  }

  function part(name, text) {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  }

  function hide(plot) {
    const state = stateOf(plot);
    state.at = null;
    state.svg.querySelectorAll(".cursor").forEach((old) => old.remove());
    const readout = plot.querySelector(".readout");
    readout.style.minHeight = `${readout.offsetHeight}px`; // nothing moves under the pointer
    readout.replaceChildren();
  }

  function point(event) {
    const plot = event.target.closest?.(".plot");
    if (!plot || !event.target.closest("svg")) return;
    const state = stateOf(plot);
    const edges = state.svg.getBoundingClientRect();
    const units = ((event.clientX - edges.left) / edges.width) * state.svg.viewBox.baseVal.width;
    const [left, right] = state.box;
    const x = scale(units, [left, right], ...state.frame.x);
    show(plot, nearest(state.places, x));
  }

  function key(event) {
    if (!event.target.matches?.(".plot")) return;
    const state = stateOf(event.target);
    const last = state.places.length - 1;
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -last, End: last };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const from = state.at ?? (moves[event.key] > 0 ? -1 : last + 1);
    const start = event.key === "Home" ? last : event.key === "End" ? 0 : from;
    show(event.target, start + moves[event.key]);
  }

  // --- values as a table
  function fill(details) {
    const plot = details.closest("figure").querySelector(".plot");
    const state = stateOf(plot);
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    const unit = state.data.unit ? ` (${state.data.unit})` : "";
    for (const text of [xName(state), ...state.data.curves.map((curve) => curve.label + unit)]) {
      const cell = part("th", text);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    for (const x of state.places) {
      const row = body.insertRow();
      row.append(part("th", whole(x)));
      row.firstChild.scope = "row";
      for (const curve of state.data.curves) {
        const index = xsOf(curve).indexOf(x);
        row.append(part("td", index < 0 ? "" : format(curve.values[index])));
      }
    }
    details.querySelector(".scroll").replaceChildren(table);
  }

  // --- enlarging: the figure itself moves into the dialog, and back
  const dialog = document.querySelector("dialog");
  let place = null;

  function enlarge(button) {
    const figure = button.closest("figure");
    place = document.createComment("");
    figure.replaceWith(place);
    dialog.querySelector(".held").append(figure);
    dialog.setAttribute("aria-label", figure.dataset.title);
    dialog.showModal();
    dialog.querySelector(".close").focus();
  }

  function putBack() {
    const figure = dialog.querySelector(".held").firstElementChild;
    if (!figure) return;
    place.replaceWith(figure);
    figure.querySelector("button.enlarge").focus();
  }

  // --- what starts it
  function choose(button) {
    const [name, value] = button.dataset.choose.split(":");
    view[name] = name === "log" ? value === "true" : value;
    for (const other of document.querySelectorAll("[data-choose]"))
      if (other.dataset.choose.startsWith(`${name}:`))
        other.setAttribute("aria-pressed", String(other === button));
    plots().forEach(redraw);
    document.querySelectorAll("details.values[open]").forEach(fill);
  }

  document.addEventListener("pointermove", point);
  document.addEventListener("pointerdown", point);
  document.addEventListener("keydown", key);
  document.addEventListener("pointerout", (event) => {
    const plot = event.target.closest?.(".plot");
    if (plot && event.pointerType === "mouse" && !plot.contains(event.relatedTarget)) hide(plot);
  });
  document.addEventListener("focusout", (event) => {
    if (event.target.matches?.(".plot")) hide(event.target);
  });
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("details.values[open]")) fill(event.target);
  }, true);
  document.addEventListener("click", (event) => {
    const chosen = event.target.closest("[data-choose]");
    const enlarging = event.target.closest(".enlarge");
    if (chosen) choose(chosen);
    else if (enlarging && !enlarging.closest("dialog")) enlarge(enlarging);
    else if (event.target === dialog || event.target.closest(".close")) dialog.close();
  });
  dialog.addEventListener("close", putBack);
  document.documentElement.classList.add("scripted");
})();
