"use strict";
// Draws the curves and runs the timeline. All text is inserted as text, never as markup.
const data = JSON.parse(document.getElementById("page-data").textContent);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const grouped = (n) => Math.round(n).toLocaleString("en-GB");
const short = (v) => v === null || v === undefined ? "–" : Math.abs(v) >= 10000 ? grouped(v) : String(Number(v.toPrecision(4))).replace("-", "−");

function element(name, attributes = {}, text = "") {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

const svgSpace = document.querySelector(".mark svg").namespaceURI;
function shape(name, attributes, parent, text = "") {
  const node = document.createElementNS(svgSpace, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  parent.append(node);
  return node;
}

// ---- the curves -------------------------------------------------------------------------------------------------

const nearest = (xs, x) => {  // index of the value of sorted xs that is nearest to x
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle; else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
};

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * power >= rough * 0.999) * power;
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) out.push(Number((i * step).toPrecision(12)));
  return out;
}

function logTicks(low, high) {  // low and high are log10
  const decades = [];
  for (let e = Math.ceil(low - 1e-9); e <= high + 1e-9; e++) decades.push(e);
  if (decades.length < 2) return ticks(10 ** low, 10 ** high, 4).filter((v) => v > 0);
  const every = Math.ceil(decades.length / 5);
  return decades.filter((_, i) => i % every === 0).map((e) => 10 ** e);
}

function compact(n) {
  const size = Math.abs(n);
  if (size >= 1e6) return Number((n / 1e6).toPrecision(3)) + "M";
  if (size >= 1e4) return Number((n / 1e3).toPrecision(3)) + "k";
  if (size > 0 && size < 1e-3) return n.toExponential(0).replace("e-", "e−");
  return String(Number(n.toPrecision(4))).replace("-", "−");
}

class Chart {
  constructor(host) {
    this.host = host;
    this.spec = data.charts[Number(host.dataset.chart)];
    this.curves = this.spec.curves.map((curve, i) => ({ ...curve, colour: "k" + (i % 8), on: true }));
    this.log = host.querySelector(".log input");
    this.at = host.querySelector(".at");
    this.moment = this.here = null;
    const positive = this.curves.some((c) => c.y.some((v) => v !== null && v > 0));
    this.log.closest("label").hidden = !positive;
    this.log.addEventListener("change", () => this.draw());
    this.legend();
    const plot = host.querySelector(".plot");
    this.svg = shape("svg", { role: "img", tabindex: "0", "aria-label": this.summary() }, plot);
    this.svg.addEventListener("pointermove", (e) => Chart.each((c) => c.read(this.imagesAt(e))));
    this.svg.addEventListener("pointerleave", () => Chart.each((c) => c.read(null)));
    this.svg.addEventListener("blur", () => Chart.each((c) => c.read(null)));
    this.svg.addEventListener("keydown", (e) => this.key(e));
    new ResizeObserver(() => this.draw()).observe(plot);
    this.draw();
  }

  static each(action) { Chart.charts.forEach(action); }

  summary() {
    const last = this.curves.map((c) => c.name + " " + short(c.y.findLast((v) => v !== null)));
    return this.spec.title + " against images seen. Last values: " + last.join(", ");
  }

  legend() {
    const box = this.host.querySelector(".legend");
    for (const curve of this.curves) {
      const button = element("button", { type: "button", class: curve.colour, "aria-pressed": "true" });
      curve.value = element("b");
      button.append(element("i"), element("span", {}, curve.name), curve.value);
      if (curve.gaps) button.title = curve.gaps + " logged values were not finite";
      button.addEventListener("click", () => {
        curve.on = !curve.on;
        button.setAttribute("aria-pressed", String(curve.on));
        this.draw();
      });
      box.append(button);
    }
  }

  draw() {
    const width = Math.max(this.svg.clientWidth, 200), height = Math.max(this.svg.clientHeight, 120);
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const shown = this.curves.filter((c) => c.on), isLog = this.log.checked;
    const scaled = (v) => v === null || (isLog && v <= 0) ? null : isLog ? Math.log10(v) : v;
    const range = [Infinity, -Infinity], span = [Infinity, -Infinity];
    const widen = (pair, v) => { if (v < pair[0]) pair[0] = v; if (v > pair[1]) pair[1] = v; };
    for (const c of shown) c.y.forEach((v, i) => { const u = scaled(v); if (u !== null) { widen(range, u); widen(span, c.x[i]); } });
    this.x = null;
    if (range[0] > range[1]) {
      shape("text", { x: width / 2, y: height / 2, class: "empty" }, this.svg, "nothing to draw");
      return;
    }
    if (range[1] - range[0] < 1e-9 * Math.max(1, Math.abs(range[0]))) { range[0] -= 0.5; range[1] += 0.5; }
    if (span[0] === span[1]) { span[0] -= 1; span[1] += 1; }
    const pad = (range[1] - range[0]) * 0.05;
    const [low, high] = [range[0] - pad, range[1] + pad];
    const [left, right, top, bottom] = [46, width - 8, 8, height - 22];
    this.x = (v) => left + (v - span[0]) / (span[1] - span[0]) * (right - left);
    this.y = (v) => bottom - (scaled(v) - low) / (high - low) * (bottom - top);
    this.span = span; this.left = left; this.right = right;

    for (const v of isLog ? logTicks(low, high) : ticks(low, high, 5)) {
      const y = this.y(v);
      shape("line", { x1: left, x2: right, y1: y, y2: y, class: "grid" }, this.svg);
      shape("text", { x: left - 8, y: y + 3.5, "text-anchor": "end" }, this.svg, compact(v));
    }
    for (const v of ticks(span[0], span[1], Math.max(3, Math.floor(width / 85)))) {
      shape("text", { x: this.x(v), y: height - 4, "text-anchor": "middle" }, this.svg, compact(v));
    }
    const path = (c, values) => {
      let d = "", pen = false;
      values.forEach((v, i) => {
        if (scaled(v) === null) { pen = false; return; }
        d += (pen ? "L" : "M") + this.x(c.x[i]).toFixed(1) + " " + this.y(v).toFixed(1);
        pen = true;
      });
      return d;
    };
    for (const c of shown) shape("path", { d: path(c, c.y), class: "raw " + c.colour }, this.svg);
    for (const c of shown) shape("path", { d: path(c, c.s), class: "line " + c.colour }, this.svg);
    (data.onsets || []).filter((o) => o.images >= span[0] && o.images <= span[1]).forEach((o, i) => {
      const x = this.x(o.images), onLeft = x > (left + right) / 2;
      shape("line", { x1: x, x2: x, y1: top, y2: bottom, class: "onset" }, this.svg);
      shape("text", { x: x + (onLeft ? -5 : 5), y: top + 10 + 12 * i, class: "onset", "text-anchor": onLeft ? "end" : "start" }, this.svg, o.name.replaceAll("_", " "));
    });
    this.momentLine = shape("line", { y1: top, y2: bottom, class: "moment" }, this.svg);
    this.cross = shape("line", { y1: top, y2: bottom, class: "cross" }, this.svg);
    for (const c of this.curves) c.dot = shape("circle", { r: 3.5, class: c.colour }, this.svg);
    this.read(this.here);  // after a change of width the chart shows the same values
    this.mark(this.moment);
  }

  imagesAt(event) {
    if (!this.x) return null;
    const box = this.svg.getBoundingClientRect();
    const part = (event.clientX - box.left - this.left) / (this.right - this.left);
    return this.span[0] + Math.min(Math.max(part, 0), 1) * (this.span[1] - this.span[0]);
  }

  key(event) {
    const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const curve = this.curves.find((c) => c.on);
    if (!turn || !curve) return;
    event.preventDefault();
    const i = this.here === null ? curve.x.length - 1 : nearest(curve.x, this.here) + turn;
    const images = curve.x[Math.min(Math.max(i, 0), curve.x.length - 1)];
    Chart.each((c) => c.read(images));
  }

  read(images) {  // show the values logged nearest to `images`, or the last ones
    if (!this.x) return;
    this.here = images;
    const inside = images !== null && images >= this.span[0] && images <= this.span[1];
    this.cross.style.display = inside ? "" : "none";
    this.at.textContent = images === null ? "" : "at " + grouped(images) + " images";
    if (inside) { this.cross.setAttribute("x1", this.x(images)); this.cross.setAttribute("x2", this.x(images)); }
    for (const c of this.curves) {
      const i = images === null ? c.y.findLastIndex((v) => v !== null) : nearest(c.x, images);
      const v = c.y[i];
      c.value.textContent = short(v);
      const visible = inside && c.on && v !== null && v !== undefined && !(this.log.checked && v <= 0);
      c.dot.style.display = visible ? "" : "none";
      if (visible) { c.dot.setAttribute("cx", this.x(c.x[i])); c.dot.setAttribute("cy", this.y(v)); }
    }
  }

  mark(images) {  // draws the position of the slider
    this.moment = images;
    if (!this.x) return;
    const inside = images !== null && images >= this.span[0] && images <= this.span[1];
    this.momentLine.style.display = inside ? "" : "none";
    if (inside) { this.momentLine.setAttribute("x1", this.x(images)); this.momentLine.setAttribute("x2", this.x(images)); }
  }
}
Chart.charts = [];
for (const host of all("[data-chart]")) Chart.charts.push(new Chart(host));

// ---- the timeline: one moment for samples, reconstructions and curves -------------------------------------------

const steps = data.steps;
const series = all("[data-frames]").map((host) => {
  const frames = all("img", host);
  return { frames, steps: frames.map((f) => Number(f.dataset.step)), now: host.closest("figure").querySelector(".now") };
});
const sliders = all(".control input"), plays = all(".play");
let moment = steps.length - 1, playing = 0;

function show(index, tell = true) {
  moment = Math.min(Math.max(index, 0), steps.length - 1);
  const images = steps[moment];
  for (const item of series) {  // the latest image up to this moment, else the first
    const at = Math.max(item.steps.findLastIndex((s) => s <= images), 0);
    item.frames.forEach((frame, i) => { frame.hidden = i !== at; });
    item.now.textContent = grouped(item.steps[at]);
  }
  for (const slider of sliders) {
    slider.value = moment;
    slider.setAttribute("aria-valuetext", grouped(images) + " images");
    slider.closest(".control").querySelector("output").textContent = grouped(images) + " images";
  }
  for (const button of all(".strip button")) button.classList.toggle("on", button.dataset.to === String(moment));
  Chart.each((c) => c.mark(steps.length > 1 ? images : null));
  if (tell) try { history.replaceState(null, "", "#step=" + images); } catch { /* a viewer without history */ }
}

function play(on) {
  clearInterval(playing);
  playing = 0;
  for (const button of plays) {
    button.setAttribute("aria-pressed", String(on));
    button.querySelector(".word").textContent = on ? "Pause" : "Play";
  }
  if (!on) return;
  if (moment === steps.length - 1) show(0);
  playing = setInterval(() => { if (moment < steps.length - 1) show(moment + 1); else play(false); }, 320);
}

function fromHash() {
  const asked = /^#step=(\d+)$/.exec(location.hash);
  if (asked && steps.length) show(nearest(steps, Number(asked[1])), false);
  return Boolean(asked);
}

function thumbnails() {
  const strip = document.querySelector(".strip"), item = series.find((r) => r.frames[0].closest("[data-frames=samples]"));
  if (!strip || !item || item.frames.length < 3) return;
  const count = Math.min(item.frames.length, 9);
  for (let i = 0; i < count; i++) {
    const frame = item.frames[Math.round(i * (item.frames.length - 1) / (count - 1))];
    const to = nearest(steps, Number(frame.dataset.step));
    const button = element("button", { type: "button", tabindex: "-1", "data-to": String(to) });
    const image = element("img", { src: frame.src, alt: "" });
    button.append(image, compact(Number(frame.dataset.step)));
    button.addEventListener("click", () => { play(false); show(to); });
    strip.append(button);
  }
}

function fit() {  // a whole number of device pixels for each pixel of a small picture, where that nearly fills its column
  const ratio = window.devicePixelRatio || 1;
  for (const host of all(".frames")) {
    for (const image of all("img.small", host)) {
      const width = Number(image.getAttribute("width")), times = host.clientWidth * ratio / width;
      image.style.width = Math.floor(times) > 0.85 * times ? Math.floor(times) * width / ratio + "px" : "";
    }
  }
}

for (const slider of sliders) slider.addEventListener("input", () => { play(false); show(Number(slider.value)); });
for (const button of plays) button.addEventListener("click", () => play(!playing));
document.addEventListener("keydown", (event) => {
  const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const busy = event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, pre, .scroll");
  if (!turn || busy || steps.length < 2) return;
  event.preventDefault();
  play(false);
  show(moment + turn);
});
thumbnails();
window.addEventListener("resize", fit);
window.addEventListener("hashchange", fromHash);
fit();
if (!fromHash() && steps.length) show(moment, false);

// ---- copying ------------------------------------------------------------------------------------------------------

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // pages opened from disk may have no access to the clipboard
    const area = element("textarea", { "aria-hidden": "true" });
    document.body.append(area);
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
for (const button of all(".copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await copy(button.previousElementSibling.textContent.trimEnd());
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

document.documentElement.dataset.ready = "1";
