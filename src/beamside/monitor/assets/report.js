"use strict";
// Draws the plots of a report and makes its gallery usable. The page is complete without it: this only adds to the HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const tip = document.getElementById("tip");
  const lightbox = document.getElementById("lightbox");
  root.classList.add("js");

  // -- small helpers ---------------------------------------------------------------------------------------------------

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function shape(tag, attributes = {}, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  }

  const pad = (number) => String(number).padStart(2, "0");
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // Times are shown in the zone of the machine that wrote the report, so that they agree with its tables.
  function localDate(seconds) {
    return new Date((data.start + seconds + data.zone) * 1000);
  }

  function clock(seconds, withSeconds = true) {
    const date = localDate(seconds);
    const text = `${pad(date.getUTCHours())}:${pad(date.getUTCMinutes())}`;
    return withSeconds ? `${text}:${pad(date.getUTCSeconds())}` : text;
  }

  function day(seconds) {
    const date = localDate(seconds);
    return `${pad(date.getUTCMonth() + 1)}-${pad(date.getUTCDate())}`;
  }

  function number(value, digits) {
    const [whole, part] = Math.abs(value).toFixed(digits).split(".");
    const grouped = whole.replace(/\B(?=(\d{3})+$)/g, "\u202f");
    return (value < 0 && Number(value.toFixed(digits)) !== 0 ? "−" : "") + grouped + (part ? `.${part}` : "");
  }

  const withUnit = (value, digits, unit) => number(value, digits) + (unit ? ` ${unit}` : "");
  const heading = (metric) => (metric.unit ? `${metric.label} (${metric.unit})` : metric.label);

  function niceTicks(low, high, wanted) {
    const rough = (high - low) / Math.max(wanted, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const ticks = [];
    for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) ticks.push(index * step);
    return { ticks, digits };
  }

  const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];

  function timeTicks(low, high, wanted) {
    const step = TIME_STEPS.find((size) => (high - low) / size <= wanted) || (high - low) / wanted;
    const shift = data.start + data.zone;
    const ticks = [];
    for (let at = Math.ceil((low + shift) / step) * step - shift; at <= high; at += step) ticks.push(at);
    return { ticks, label: (at) => (step >= 86400 || clock(at) === "00:00:00" ? day(at) : clock(at, step < 60)) };
  }

  // At no more places than can be seen, each over a fifteenth of the points.
  function runningMedian(points) {
    const half = Math.floor(clamp(Math.round(points.length / 15), 7, 501) / 2);
    const step = Math.max(1, Math.floor(points.length / 250));
    const places = points.map((_, index) => index).filter((index) => index % step === 0 || index === points.length - 1);
    return places.map((index) => {
      const near = points.slice(Math.max(0, index - half), index + half + 1).map((point) => point[1]).sort((a, b) => a - b);
      return [points[index][0], quantile(near, 0.5)];
    });
  }

  function quantile(sorted, part) {
    const at = (sorted.length - 1) * part;
    const below = Math.floor(at);
    return sorted[below] + (at - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
  }

  function showTip(event, title, lines) {
    tip.replaceChildren(element("b", {}, title), ...lines.map((line) => element("div", {}, line)));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const x = event.clientX + 14 + box.width > innerWidth ? event.clientX - 14 - box.width : event.clientX + 14;
    const y = event.clientY + 14 + box.height > innerHeight ? event.clientY - 10 - box.height : event.clientY + 14;
    tip.style.left = `${Math.max(4, x)}px`;
    tip.style.top = `${Math.max(4, y)}px`;
  }

  const hideTip = () => { tip.hidden = true; };

  // -- a chart: axes, zoom by dragging, hover; what is in it is drawn by `draw` ------------------------------------------

  class Chart {
    // spec: height, xRange, yRange, timeAxis, xDigits, draw(chart), hover(chart, event, x, y), click(chart, x, y), yZero
    constructor(figure, spec) {
      this.figure = figure;
      this.spec = spec;
      this.reset();
      this.svg = shape("svg", { "aria-hidden": "true" });
      figure.append(this.svg);
      this.svg.addEventListener("pointerdown", (event) => this.press(event));
      this.svg.addEventListener("pointermove", (event) => this.move(event));
      this.svg.addEventListener("pointerup", (event) => this.release(event));
      this.svg.addEventListener("pointercancel", () => this.forget());
      this.svg.addEventListener("pointerleave", () => { if (!this.pressed) this.leave(); });
      this.svg.addEventListener("dblclick", () => { this.reset(); this.redraw(); });
      this.redraw();
      new ResizeObserver(() => requestAnimationFrame(() => this.fit())).observe(figure);
    }

    reset() {
      this.x = [...this.spec.xRange];
      this.y = [...this.spec.yRange()];
    }

    px(x) { return this.left + ((x - this.x[0]) / (this.x[1] - this.x[0])) * (this.right - this.left); }
    py(y) { return this.bottom - ((y - this.y[0]) / (this.y[1] - this.y[0])) * (this.bottom - this.top); }
    dataX(px) { return this.x[0] + ((px - this.left) / (this.right - this.left)) * (this.x[1] - this.x[0]); }
    dataY(py) { return this.y[0] + ((this.bottom - py) / (this.bottom - this.top)) * (this.y[1] - this.y[0]); }

    fit() {
      if (Math.round(this.figure.clientWidth) !== this.width) this.redraw();
    }

    redraw() {
      const width = Math.round(this.figure.clientWidth);
      if (width < 40) return;
      const height = this.spec.height;
      this.width = width;
      Object.assign(this, { left: 52, right: width - 12, top: 10, bottom: height - 24 });
      this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      this.svg.replaceChildren();
      const clip = `clip${Chart.made = (Chart.made || 0) + 1}`;
      const area = { x: this.left, y: this.top - 4, width: this.right - this.left + 4, height: this.bottom - this.top + 5 };
      const definition = shape("clipPath", { id: clip });
      definition.append(shape("rect", area));
      this.axes();
      this.plot = shape("g", { "clip-path": `url(#${clip})` });
      this.over = shape("g");
      const catcher = shape("rect", { ...area, fill: "transparent" });
      this.svg.append(definition, this.plot, this.over, catcher);
      this.spec.draw(this);
    }

    axes() {
      const wide = this.right - this.left;
      const { ticks, digits } = niceTicks(this.y[0], this.y[1], 4);
      for (const at of ticks) {
        const y = this.py(at);
        this.svg.append(shape("line", { class: "grid-line", x1: this.left, x2: this.right, y1: y, y2: y }));
        this.svg.append(shape("text", { x: this.left - 7, y: y + 4, "text-anchor": "end" }, number(at, digits)));
      }
      const bottomTicks = this.spec.timeAxis
        ? timeTicks(this.x[0], this.x[1], Math.max(2, Math.floor(wide / 85)))
        : niceTicks(this.x[0], this.x[1], Math.max(2, Math.floor(wide / 70)));
      const label = bottomTicks.label || ((at) => number(at, bottomTicks.digits));
      for (const at of bottomTicks.ticks) {
        const x = this.px(at);
        this.svg.append(shape("line", { class: "axis", x1: x, x2: x, y1: this.bottom, y2: this.bottom + 4 }));
        const text = label(at);
        const room = this.width - 3.2 * text.length;  // half of a digit's width is about 3.2: the last label stays inside
        this.svg.append(shape("text", { x: Math.min(x, room), y: this.bottom + 17, "text-anchor": "middle" }, text));
      }
      this.svg.append(shape("line", { class: "axis", x1: this.left, x2: this.right, y1: this.bottom, y2: this.bottom }));
    }

    place(event) {
      const box = this.svg.getBoundingClientRect();
      const scale = this.svg.viewBox.baseVal.width / box.width;
      return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    }

    press(event) {
      if (event.button !== 0 || event.pointerType === "touch") return;
      this.pressed = this.place(event);
      this.svg.setPointerCapture(event.pointerId);
    }

    move(event) {
      const [x, y] = this.place(event);
      if (!this.pressed) {
        this.over.replaceChildren();
        this.spec.hover(this, event, x, y);
        return;
      }
      const [left, right, top, bottom] = this.selection([x, y]);
      hideTip();
      this.over.replaceChildren(shape("rect", { class: "zoom", x: left, y: top, width: right - left, height: bottom - top }));
    }

    // A drag along one axis zooms only that one.
    selection([x, y]) {
      const within = (value, low, high) => clamp(value, low, high);
      const xs = [this.pressed[0], x].map((value) => within(value, this.left, this.right)).sort((a, b) => a - b);
      const ys = [this.pressed[1], y].map((value) => within(value, this.top, this.bottom)).sort((a, b) => a - b);
      if (xs[1] - xs[0] < 8) [xs[0], xs[1]] = [this.left, this.right];
      if (ys[1] - ys[0] < 8) [ys[0], ys[1]] = [this.top, this.bottom];
      return [...xs, ...ys];
    }

    release(event) {
      if (!this.pressed && event.pointerType !== "touch") return;
      const at = this.place(event);
      const moved = this.pressed && Math.hypot(at[0] - this.pressed[0], at[1] - this.pressed[1]) >= 8;
      if (moved) {
        const [left, right, top, bottom] = this.selection(at);
        [this.x, this.y] = [[this.dataX(left), this.dataX(right)], [this.dataY(bottom), this.dataY(top)]];
        this.forget();
        this.redraw();
      } else {
        this.forget();
        if (this.spec.click) this.spec.click(this, ...at);
      }
    }

    forget() { this.pressed = null; this.leave(); }
    leave() { hideTip(); this.over?.replaceChildren(); }
  }

  function path(chart, points) {
    return points.map(([x, y], index) => `${index ? "L" : "M"}${chart.px(x).toFixed(1)} ${chart.py(y).toFixed(1)}`).join("");
  }

  // Counts stay as they are until the next change.
  function stairs(chart, points) {
    return points.map(([x, y], index) => {
      const [px, py] = [chart.px(x).toFixed(1), chart.py(y).toFixed(1)];
      return index ? `H${px}V${py}` : `M${px} ${py}`;
    }).join("");
  }

  const padded = (low, high) => (high > low ? [low - (high - low) * 0.02, high + (high - low) * 0.02] : [low - 30, high + 30]);

  // -- progress: curves over time with a legend --------------------------------------------------------------------------

  function curvesChart(figure, curves, { unit, digits, area = false, height = 230 }) {
    const drawn = curves.map((curve, index) => ({ ...curve, colour: `var(--s${index % 7})`, shown: true }));
    const all = drawn.flatMap((curve) => curve.points.map((point) => point[0]));
    const visible = () => drawn.filter((curve) => curve.shown);
    const chart = new Chart(figure, {
      height,
      timeAxis: true,
      xRange: padded(Math.min(0, ...all.slice(0, 1)), all.reduce((a, b) => Math.max(a, b), 1)),
      yRange: () => [0, visible().flatMap((curve) => curve.points).reduce((top, point) => Math.max(top, point[1]), 1) * 1.06],
      draw(self) {
        for (const curve of visible()) {
          const line = stairs(self, curve.points);
          if (area && curve.points.length) {
            const first = self.px(curve.points[0][0]);
            const last = self.px(curve.points.at(-1)[0]);
            const ground = self.py(0);
            const fill = shape("path", { class: "fill", d: `${line}L${last} ${ground}L${first} ${ground}Z` });
            fill.style.fill = curve.colour;
            self.plot.append(fill);
          }
          const stroke = shape("path", { class: "curve", d: line });
          stroke.style.stroke = curve.colour;
          self.plot.append(stroke);
        }
      },
      hover(self, event, px) {
        if (px < self.left || px > self.right) return hideTip();
        const at = self.dataX(px);
        const lines = [];
        self.over.append(shape("line", { class: "cursor", x1: px, x2: px, y1: self.top, y2: self.bottom }));
        for (const curve of visible()) {
          lines.push(`${curve.name}: ${withUnit(valueAt(curve.points, at), digits, unit)}`);
        }
        showTip(event, `${day(at)} ${clock(at)}`, lines);
      },
    });
    if (drawn.length > 1) figure.append(legend(drawn, chart));
  }

  // The newest value at a time; before the first there is none.
  function valueAt(points, at) {
    let low = -1;
    let high = points.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (points[middle][0] <= at) low = middle;
      else high = middle - 1;
    }
    return low < 0 ? 0 : points[low][1];
  }

  function legend(curves, chart) {
    const list = element("div", { class: "legend" });
    for (const curve of curves) {
      const swatch = element("i");
      swatch.style.background = curve.colour;
      const button = element("button", { type: "button", "aria-pressed": "true" }, swatch, curve.name);
      button.addEventListener("click", () => {
        curve.shown = !curve.shown;
        button.setAttribute("aria-pressed", curve.shown);
        chart.reset();
        chart.redraw();
      });
      list.append(button);
    }
    return list;
  }

  // -- measurements: points over time, and their histogram ---------------------------------------------------------------

  const isProblem = (item) => "rf".includes(data.states[item]);

  function metricPanel(metric) {
    const sorted = [...metric.values].sort((a, b) => a - b);
    const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => number(quantile(sorted, part), metric.digits));
    const unit = metric.unit ? ` ${metric.unit}` : "";
    const better = { low: "lower is better", high: "higher is better" }[metric.good] || "";
    const timeLine = element("figure", { class: "chart", role: "img", "aria-label": `${metric.label} over time` });
    const histogram = element("figure", { class: "chart", role: "img", "aria-label": `Histogram of ${metric.label}` });
    const panel = element("div", { class: "panel metric" },
      element("header", {},
        element("h4", {}, heading(metric)),
        element("span", {}, "median ", element("b", {}, middle + unit), ` · quartiles ${low} – ${high}${unit}`),
        element("span", {}, `${metric.values.length} files${better ? ` · ${better}` : ""}`)),
      timeLine, histogram);
    const span = sorted.at(-1) - sorted[0];
    const margin = span > 0 ? span * 0.06 : Math.max(Math.abs(sorted[0]) * 0.1, 0.5 * 10 ** -metric.digits);
    const range = [sorted[0] >= 0 ? Math.max(0, sorted[0] - margin) : sorted[0] - margin, sorted.at(-1) + margin];
    return { panel, fill: () => { drawTimeLine(timeLine, metric, range); drawHistogram(histogram, metric, sorted, range); } };
  }

  function drawTimeLine(figure, metric, range) {
    const points = metric.items.map((item, index) => [data.taken[item], metric.values[index], item]).sort((a, b) => a[0] - b[0]);
    const median = points.length >= 10 ? runningMedian(points) : [];
    const style = points.length > 1500 ? "dots many" : points.length > 150 ? "dots" : "dots few";
    const dots = (chart, wanted) => wanted.map(([x, y]) => `M${chart.px(x).toFixed(1)} ${chart.py(y).toFixed(1)}h0`).join("");
    const nearest = (chart, px, py) => {
      let best = null;
      let reach = 20;
      for (const point of points) {
        const far = Math.hypot(chart.px(point[0]) - px, chart.py(point[1]) - py);
        if (far < reach) [best, reach] = [point, far];
      }
      return best;
    };
    new Chart(figure, {
      height: 170,
      timeAxis: true,
      xRange: padded(points[0][0], points.at(-1)[0]),
      yRange: () => range,
      draw(chart) {
        chart.plot.append(shape("path", { class: style, d: dots(chart, points.filter((point) => !isProblem(point[2]))) }));
        chart.plot.append(shape("path", { class: `${style} problem`, d: dots(chart, points.filter((point) => isProblem(point[2]))) }));
        chart.plot.append(shape("path", { class: "median", d: path(chart, median) }));
      },
      hover(chart, event, px, py) {
        const found = nearest(chart, px, py);
        chart.svg.style.cursor = found ? "pointer" : "crosshair";
        if (!found) return hideTip();
        const [x, y, item] = found;
        chart.over.append(shape("circle", { class: "ring", cx: chart.px(x), cy: chart.py(y), r: 5 }));
        const lines = [`${metric.label}: ${withUnit(y, metric.digits, metric.unit)}`, `taken in ${day(x)} ${clock(x)}`];
        if (data.problems[item]) lines.push(data.problems[item]);
        showTip(event, data.names[item], lines);
      },
      click(chart, px, py) {
        const found = nearest(chart, px, py);
        if (found) openItem(found[2]);
      },
    });
  }

  function bins(sorted, range) {
    const iqr = quantile(sorted, 0.75) - quantile(sorted, 0.25);
    const width = (2 * iqr) / Math.cbrt(sorted.length);
    const wanted = width > 0 ? Math.round((range[1] - range[0]) / width) : 12;
    const many = clamp(wanted, 8, 40);
    const step = (range[1] - range[0]) / many;
    const counts = new Array(many).fill(0);
    for (const value of sorted) counts[clamp(Math.floor((value - range[0]) / step), 0, many - 1)]++;
    return counts.map((count, index) => ({ count, from: range[0] + index * step, to: range[0] + (index + 1) * step }));
  }

  function drawHistogram(figure, metric, sorted, range) {
    const bars = bins(sorted, range);
    const top = Math.max(...bars.map((bar) => bar.count));
    const middle = quantile(sorted, 0.5);
    new Chart(figure, {
      height: 170,
      xRange: range,
      yRange: () => [0, top * 1.08],
      draw(chart) {
        for (const bar of bars) {
          const x = chart.px(bar.from) + 0.5;
          const width = Math.max(0.5, chart.px(bar.to) - chart.px(bar.from) - 1);
          const y = chart.py(bar.count);
          if (bar.count) chart.plot.append(shape("rect", { class: "bar", x, y, width, height: Math.max(0, chart.py(0) - y) }));
        }
        const at = chart.px(middle);
        chart.plot.append(shape("line", { class: "middle", x1: at, x2: at, y1: chart.top, y2: chart.bottom }));
      },
      hover(chart, event, px) {
        const at = chart.dataX(px);
        const bar = bars.find((each) => at >= each.from && at < each.to);
        if (!bar) return hideTip();
        const ends = `${number(bar.from, metric.digits + 1)} – ${withUnit(bar.to, metric.digits + 1, metric.unit)}`;
        showTip(event, ends, [`${bar.count} of ${sorted.length} files`]);
      },
    });
  }

  // -- gallery -------------------------------------------------------------------------------------------------------------

  const holder = document.getElementById("cards");
  const cards = holder ? [...holder.children].map((card) => ({ card, item: Number(card.dataset.number) })) : [];
  const byItem = new Map(cards.map((entry) => [entry.item, entry]));
  const valueOf = data.metrics.map((metric) => new Map(metric.items.map((item, index) => [item, metric.values[index]])));
  let shown = cards;

  function setUpGallery() {
    const pick = (name) => document.getElementById(`gallery-${name}`);
    const [sort, reverse, text, state] = ["sort", "reverse", "text", "state"].map(pick);
    if (!sort) return;
    sort.append(element("option", { value: "time" }, "newest first"), element("option", { value: "name" }, "name"));
    data.metrics.forEach((metric, index) => {
      const order = metric.good === "low" ? "highest first" : "lowest first";
      sort.append(element("option", { value: index }, `${heading(metric)}, ${order}`));
    });
    const update = () => arrange(sort.value, reverse.checked, text.value.trim().toLowerCase(), state.value);
    for (const control of [sort, reverse, text, state]) control.addEventListener("input", update);
    pick("controls").addEventListener("submit", (event) => event.preventDefault());
    for (const { card, item } of cards) {
      card.tabIndex = 0;
      card.addEventListener("click", () => openItem(item));
      card.addEventListener("keydown", (event) => { if (event.key === "Enter") openItem(item); });
    }
    update();
  }

  function arrange(sort, reversed, text, states) {
    const order = [...cards];
    if (sort === "time") order.sort((a, b) => b.item - a.item);
    else if (sort === "name") order.sort((a, b) => (data.names[a.item] < data.names[b.item] ? -1 : 1));
    else order.sort(byMetric(Number(sort)));
    if (reversed) order.reverse();
    const matches = ({ item }) => (!states || states.includes(data.states[item]))
      && (!text || data.names[item].toLowerCase().includes(text) || (data.problems[item] || "").toLowerCase().includes(text));
    shown = order.filter(matches);
    const wanted = new Set(shown);
    for (const entry of cards) entry.card.hidden = !wanted.has(entry);
    holder.append(...order.map((entry) => entry.card));
    document.getElementById("gallery-count").textContent = `${shown.length} of ${cards.length} shown`;
  }

  // The worst first; files without a value come last.
  function byMetric(index) {
    const sign = data.metrics[index].good === "low" ? -1 : 1;
    const rank = (item) => (valueOf[index].has(item) ? sign * valueOf[index].get(item) : Infinity);
    return (a, b) => (rank(a.item) === rank(b.item) ? b.item - a.item : rank(a.item) - rank(b.item));
  }

  const STATE_WORDS = { d: "done", r: "rejected", f: "failed", h: "held back", w: "unfinished" };

  function openItem(item) {
    const step = (by) => {
      const at = shown.findIndex((entry) => entry.item === item);
      const next = at < 0 ? shown[0] : shown[at + by];
      if (next) openItem(next.item);
    };
    const button = (label, action, title) => {
      const made = element("button", { type: "button", title }, label);
      made.addEventListener("click", action);
      return made;
    };
    const word = STATE_WORDS[data.states[item]];
    const head = element("header", {},
      element("h2", {}, data.names[item]),
      element("span", { class: `chip ${word}` }, word),
      button("‹", () => step(-1), "previous (left arrow)"),
      button("›", () => step(1), "next (right arrow)"),
      button("Close", () => lightbox.close(), "close (Escape)"));
    lightbox.replaceChildren(head, element("div", { class: "body" }, picturesOf(item), valuesOf(item)));
    lightbox.onkeydown = (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) { event.preventDefault(); step(by); }
    };
    if (!lightbox.open) lightbox.showModal();
    lightbox.scrollTop = 0;
  }

  function picturesOf(item) {
    const entry = byItem.get(item);
    const figures = entry ? [...entry.card.querySelectorAll("figure")] : [];
    if (figures.length) {
      const copies = figures.map((figure) => figure.cloneNode(true));
      for (const copy of copies) copy.addEventListener("click", () => copy.classList.toggle("whole"));
      return element("div", { class: "pictures" }, ...copies);
    }
    const why = entry ? "This file has no pictures." : "The pictures of this file are in the project, not in this report.";
    return element("p", { class: "quiet" }, why);
  }

  function valuesOf(item) {
    const rows = data.metrics.flatMap((metric, index) => {
      if (!valueOf[index].has(item)) return [];
      const value = withUnit(valueOf[index].get(item), metric.digits, metric.unit);
      return [element("tr", {}, element("th", {}, metric.label), element("td", { class: "number" }, value))];
    });
    const when = element("p", { class: "quiet" }, `Taken in ${day(data.taken[item])} ${clock(data.taken[item])}`);
    const side = element("div", {}, when, element("table", {}, ...rows));
    if (data.problems[item]) side.prepend(element("p", { class: "reason" }, data.problems[item]));
    return side;
  }

  lightbox.addEventListener("click", (event) => { if (event.target === lightbox) lightbox.close(); });

  // -- the rest of the page ------------------------------------------------------------------------------------------------

  function linkProblems() {
    for (const line of document.querySelectorAll(".items li:not([data-number=''])")) {
      const name = line.querySelector(".name");
      name.classList.add("link");
      name.addEventListener("click", () => openItem(Number(line.dataset.number)));
    }
  }

  function showAge() {
    const age = document.getElementById("age");
    const minutes = Math.round((Date.now() / 1000 - data.written) / 60);
    if (age.dataset.running === "1" && minutes >= 1) {
      age.textContent = `, ${minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`} ago; reload for a newer one`;
    }
  }

  const CURVES = {
    progress: (figure) => curvesChart(figure, data.progress, { unit: "files", digits: 0 }),
    rates: (figure) => curvesChart(figure, data.rates, { unit: "files/h", digits: 0 }),
    backlog: (figure) => curvesChart(figure, [{ name: "Backlog", points: data.backlog }], { unit: "files", digits: 0, area: true }),
  };

  for (const figure of document.querySelectorAll(".chart[data-key]")) CURVES[figure.dataset.key](figure);
  for (const metric of data.metrics) {
    const place = document.querySelector(`.metric-plots[data-job="${CSS.escape(metric.key.split(".")[0])}"]`);
    const { panel, fill } = metricPanel(metric);
    place.append(panel);
    fill();
  }
  const tables = document.querySelectorAll("details.numbers");
  const openTables = (open) => tables.forEach((table) => { table.open = open; });
  openTables(false);
  addEventListener("beforeprint", () => openTables(true));
  addEventListener("afterprint", () => openTables(false));
  setUpGallery();
  linkProblems();
  showAge();
  setInterval(showAge, 30000);
})();
