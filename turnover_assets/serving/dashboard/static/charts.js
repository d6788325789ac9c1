// Puts an interactive chart (uPlot) in place of each drawing: pointer, arrow keys and zoom. Without it the drawing stays.
"use strict";
(() => {
  const locale = document.documentElement.dataset.locale;
  const utc = { timeZone: "UTC" };
  const compact = new Intl.NumberFormat(locale, { notation: "compact", maximumFractionDigits: 1 });
  const plain = new Intl.NumberFormat(locale, { maximumSignificantDigits: 6, maximumFractionDigits: 2 });
  const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
  const day = new Intl.DateTimeFormat(locale, { dateStyle: "medium", ...utc });
  const month = new Intl.DateTimeFormat(locale, { month: "short", year: "numeric", ...utc });
  const dayOfMonth = new Intl.DateTimeFormat(locale, { month: "short", day: "numeric", ...utc });
  const year = new Intl.DateTimeFormat(locale, { year: "numeric", ...utc });
  const DAY = 86400;
  const HINT = matchMedia("(hover: none)").matches
    ? "Touch the chart to read its values."
    : "Point at the chart, or use the arrow keys, to read its values. Drag over a part to see it larger, double-click to see all.";
  const amount = (value) => (Math.abs(value) >= 100 ? whole : plain).format(value);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const faded = (hex, share) => hex + Math.round(255 * share).toString(16).padStart(2, "0");

  const looks = (key, dots) => {
    const stroke = colour("--c-" + key);
    if (dots) return { stroke, width: 0, paths: () => null, points: { show: true, size: 7, fill: stroke, width: 0 } };
    const width = { forecast: 2.75, "last-year": 1.5 }[key] || 2;
    return { stroke, width, dash: key === "last-year" ? [5, 4] : undefined, points: { show: false } };
  };

  // Labels at the periods themselves, as many as fit.
  const atPeriods = (self, periods) => {
    const within = periods.filter((at) => at >= self.scales.x.min && at <= self.scales.x.max);
    const every = Math.ceil((within.length * 72) / Math.max(1, self.width));
    return within.filter((_, k) => k % every === 0);
  };

  const options = (data, plot) => {
    const series = [{}], bands = [], table = [data.periods];
    data.bands.forEach((band) => {
      const share = Number(colour(band.key === "band-80" ? "--band-80" : "--band-95"));
      for (const values of [band.upper, band.lower]) {
        series.push({ stroke: "transparent", width: 0, points: { show: false } });
        table.push(values);
      }
      bands.push({ series: [series.length - 2, series.length - 1], fill: faded(colour("--c-band"), share) });
    });
    data.lines.forEach((line) => {
      series.push({ label: line.name, ...looks(line.key, line.dots) });
      table.push(line.values);
    });
    const few = data.periods.length <= 26;
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--c-grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    return [{
      width: plot.clientWidth, height: plot.clientHeight, series, bands,
      padding: [8, 30, 0, 0],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1e3), "Etc/UTC"),
      scales: { y: { range: (_, low, high) => uPlot.rangeNum(Math.min(0, low ?? 0), Math.min(Math.max(0, high ?? 1), data.limit ?? Infinity), 0.08, true) } },
      axes: [
        { ...axis, size: 28, space: 80, splits: few ? (self) => atPeriods(self, data.periods) : undefined, values: (_, splits, __, ___, step) => splits.map((at) => (few ? dayOfMonth : step >= 360 * DAY ? year : step >= 28 * DAY ? month : dayOfMonth).format(at * 1e3)) },
        { ...axis, size: 54, values: (_, splits) => splits.map((value) => (Math.abs(value) >= 10000 ? compact : plain).format(value)) },
      ],
      legend: { show: false },
      cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false } },
    }, table];
  };

  const enliven = (figure) => {
    const plot = figure.querySelector(".plot"), told = figure.querySelector(".readout");
    const source = figure.querySelector("script[type='application/json']");
    if (!source) return;
    const data = JSON.parse(source.textContent);
    if (data.periods.length < 2) return;
    const last = data.periods.length - 1;
    let chart = null, at = null, shown = [data.begin, last], press = () => {};

    const tell = (position) => {
      if (position === null || position === undefined) { told.textContent = HINT; return; }
      const parts = [document.createElement("b")];
      parts[0].textContent = day.format(data.periods[position] * 1e3);
      const add = (name, text) => {
        const part = document.createElement("span");
        part.textContent = name + " " + text;
        parts.push(part);
      };
      data.lines.forEach((line) => {
        const joint = line.key === "forecast" && data.cutoff !== null && data.periods[position] <= data.cutoff;
        const value = line.values[position];
        if (value !== null && !joint) add(line.name, amount(value));
      });
      data.bands.slice().reverse().forEach((band) => {
        if (band.lower[position] !== null) add(band.name, amount(band.lower[position]) + " – " + amount(band.upper[position]));
      });
      told.replaceChildren(...parts);
    };

    const show = (from, to) => {
      shown = [from, to];
      chart.setScale("x", { min: data.periods[from], max: data.periods[to] });
    };

    // What is shown may be chosen by dragging, too.
    const follow = (scale) => {
      const from = data.periods.findIndex((period) => period >= scale.min);
      const to = data.periods.findLastIndex((period) => period <= scale.max);
      // A part without two periods has nothing to see. While uPlot tells of one scale it takes no other; a microtask
      // comes after that, and before any key that is pressed.
      if (from < 0 || to - from < 1) return queueMicrotask(() => show(...shown));
      shown = [from, to];
      press(shown);
    };

    const draw = () => {
      if (chart) chart.destroy();
      const view = shown;
      const [wanted, table] = options(data, plot);
      wanted.hooks = {
        setCursor: [(self) => { at = self.cursor.idx; tell(at); }],
        setScale: [(self, key) => { if (key === "x") follow(self.scales.x); }],
        drawClear: [(self) => {
          if (data.cutoff === null) return;
          const x = self.valToPos(data.cutoff, "x", true);
          if (x < self.bbox.left || x > self.bbox.left + self.bbox.width) return;
          const pen = self.ctx;
          pen.save();
          pen.strokeStyle = colour("--c-zero");
          pen.setLineDash([3, 3]);
          pen.beginPath();
          pen.moveTo(x, self.bbox.top);
          pen.lineTo(x, self.bbox.top + self.bbox.height);
          pen.stroke();
          pen.restore();
        }],
      };
      chart = new uPlot(wanted, table, plot);
      show(...view);
    };

    figure.querySelector(".drawing").style.display = "none";
    draw();
    tell(null);
    plot.setAttribute("role", "group");
    plot.setAttribute("tabindex", "0");
    plot.setAttribute("aria-label", plot.getAttribute("aria-label") + " Arrow keys read single values.");
    plot.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: (at ?? last + 1) - 1, ArrowRight: (at ?? shown[0] - 1) + 1, Home: shown[0], End: shown[1] }[event.key];
      if (event.key === "Escape") chart.setCursor({ left: -10, top: -10 });
      if (to === undefined) return;
      event.preventDefault();
      const position = Math.max(shown[0], Math.min(shown[1], to));
      chart.setCursor({ left: chart.valToPos(data.periods[position], "x"), top: 10 });
    });
    press = ranges(figure, data, show);
    new ResizeObserver(() => chart.setSize({ width: plot.clientWidth, height: plot.clientHeight })).observe(plot);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  };

  // Buttons for how much of the past is shown, as far as there is so much; what marks those that are in force.
  const ranges = (figure, data, show) => {
    const place = figure.querySelector(".ranges"), last = data.periods.length - 1;
    const from = (days) => Math.max(0, data.periods.findIndex((at) => at >= (data.cutoff ?? data.periods[last]) - days * DAY));
    const choices = [["6 months", from(183)], ["1 year", from(366)], ["2 years", from(731)], ["All", 0]];
    const whole = (data.periods[last] - data.periods[0]) / DAY;
    const offered = whole < 400 ? [] : choices.filter(([name, begin]) => name === "All" || begin > 0);
    const buttons = offered.map(([name, begin]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => show(begin, last));
      place.append(button);
      return [button, begin];
    });
    const press = ([begin, end]) => {
      const apart = buttons.map(([, at]) => (end === last ? Math.abs(at - begin) : Infinity));
      const nearest = apart.indexOf(Math.min(1, ...apart));
      buttons.forEach(([button], k) => button.setAttribute("aria-pressed", String(k === nearest)));
    };
    press([data.begin, last]);
    return press;
  };

  document.querySelectorAll("figure[data-chart]").forEach(enliven);
})();
