"use strict";
// Draws the charts of a report from the JSON in the page. Every figure shown here is also in a table of the page.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SHOWN = 8; // Series that a chart shows at first; the others are a key press away.
  const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5]];
  const SIDES = [[6, 3], [], [2, 3], [10, 3, 2, 3]]; // As in the legend of the page.
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (index) => css("--s" + (index % 8));
  const dash = (index) => DASHES[Math.floor(index / 8) % DASHES.length];
  const node = (tag, attributes, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "onclick") made.addEventListener("click", value);
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  };
  const plain = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 1e7) return value.toExponential(2);
    if (size >= 1000) return Math.round(value).toLocaleString("en");
    return size >= 100 ? value.toFixed(1) : value.toFixed(2);
  };
  const number = plain;
  // Short enough for the room beside an axis.
  const tick = (value) => {
    const [size, letter] = Math.abs(value) >= 1e9 ? [1e9, " G"] : Math.abs(value) >= 1e6 ? [1e6, " M"] : [1, ""];
    return (value / size).toLocaleString("en", { maximumSignificantDigits: 4 }) + letter;
  };
  // The key of a case breaks between its parts.
  const parts = (title) => title.split(/(?<=[,/])/).flatMap((part) => [part, node("wbr")]);
  // Round numbers for a logarithmic axis: 1, 2 and 5 times powers of ten, fewer when there are many.
  const rungs = (low, high) => {
    const powers = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) powers.push(power);
    const factors = powers.length > 6 ? [1] : powers.length > 3 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
    return powers.flatMap((power) => factors.map((factor) => factor * 10 ** power)).filter((value) => value >= low && value <= high);
  };
  const percentile = (x) => {
    const share = 100 * (1 - 1 / x);
    const digits = Math.max(0, Math.ceil(Math.log10(x)) - 1);
    return "p" + parseFloat(share.toFixed(digits));
  };
  const redraws = [];

  // ---- line charts -------------------------------------------------------------------------------------------------

  const swatch = (one, several) => {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("width", "22");
    svg.setAttribute("height", "8");
    svg.setAttribute("aria-hidden", "true");
    const line = document.createElementNS(space, "line");
    const parts = { x1: 0, x2: 22, y1: 4, y2: 4, "stroke-width": 3, style: `stroke: ${tint(one)}`, "stroke-dasharray": pattern(one, several).join(" ") };
    for (const [name, value] of Object.entries(parts)) line.setAttribute(name, value);
    svg.append(line);
    return svg;
  };
  // A series has a colour by number; the ideal and levels have their own.
  const tint = (one) => one.ideal ? "var(--soft)" : `var(--s${one.colour % 8})`;
  const paint = (one) => one.ideal ? css("--soft") : colour(one.colour);
  // Where sides are overlaid, the first is dashed: the difference must not hang on colour.
  const pattern = (one, several) => one.ideal ? [2, 4] : several ? SIDES[one.colour % SIDES.length] : dash(one.colour);

  const focusable = (host, title, count, show) => {
    let at = null;
    host.setAttribute("tabindex", "0");
    host.setAttribute("role", "group");
    host.setAttribute("aria-label", `${title}. Arrow keys read single points; the tables have all figures.`);
    host.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined || event.target !== host) return;
      event.preventDefault();
      at = Math.max(0, Math.min(count - 1, at === null ? (step > 0 && step !== Infinity ? 0 : count - 1) : at + step));
      if (event.key === "Home") at = 0;
      show(at);
    });
  };

  // One chart: `series` is a list of {name, colour, strands}, each strand a list of values over the common `x`.
  const lineChart = (box, options) => {
    const { title, label, x, series, fixed, small, several } = options;
    const on = series.map((_, index) => small || index < SHOWN);
    const strands = series.flatMap((one, index) => one.strands.map((y) => ({ y, of: index, one })));
    const values = strands.flatMap((strand) => strand.y).filter((value) => value !== null && value > 0);
    let logarithmic = options.log ?? Math.max(...values) / Math.min(...values) > 30;
    const host = node("div", { class: "plot" });
    const read = node("div", { class: "read", "aria-live": "polite" });
    const buttons = small ? [] : series.map((one, index) => node("button", {
      type: "button", "aria-pressed": String(on[index]), onclick: () => set([index], !on[index]),
    }, swatch(one, several), one.name));
    const scale = node("button", { type: "button", "aria-pressed": String(logarithmic), onclick: () => {
      logarithmic = !logarithmic;
      scale.setAttribute("aria-pressed", String(logarithmic));
      draw();
    } }, "log y");
    const all = (state) => () => set(series.map((_, index) => index), state);
    const bar = node("div", { class: "bar" }, ...(options.log === undefined ? [scale] : []), ...(series.length > 2 ? [
      node("button", { type: "button", onclick: all(true) }, "all"), node("button", { type: "button", onclick: all(false) }, "none")] : []));
    if (small) box.append(node("h4", {}, ...parts(title)), host, read);
    else box.append(node("h3", {}, title), ...(bar.childElementCount ? [bar] : []), node("div", { class: "keys", role: "group", "aria-label": "Series" }, ...buttons), host, read);
    let plot = null;

    const set = (indices, state) => {
      for (const index of indices) {
        on[index] = state;
        buttons[index].setAttribute("aria-pressed", String(state));
      }
      draw();
    };
    const span = (one, at) => {
      const found = one.strands.map((y) => y[at]).filter((value) => value !== undefined && value !== null);
      if (!found.length) return null;
      const low = Math.min(...found), high = Math.max(...found);
      return low === high ? number(low) : `${number(low)}–${number(high)}`;
    };
    const show = (at) => {
      if (at === null || at === undefined) { read.textContent = ""; return; }
      const parts = series.map((one, index) => on[index] && span(one, at) !== null ? `${one.name} ${span(one, at)}` : null).filter(Boolean);
      const shown = parts.slice(0, 6).join("   ") + (parts.length > 6 ? `   and ${parts.length - 6} more` : "");
      read.textContent = `${options.at(x[at])}: ${shown}`;
    };
    const draw = () => {
      if (plot) plot.destroy();
      const width = Math.max(240, host.clientWidth - 12);
      const visible = strands.filter((strand) => on[strand.of]);
      const shownValues = visible.flatMap((strand) => strand.y).filter((value) => value !== null && value > 0);
      const useLog = logarithmic && shownValues.length > 0;
      const axis = { stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif" };
      const range = () => {
        if (shownValues.length === 0) return [useLog ? 1 : 0, 10];
        const low = Math.min(...shownValues), high = Math.max(...shownValues);
        return useLog ? [low / 1.15, high * 1.15] : [0, high * 1.05];
      };
      const filled = (strand) => x.map((_, at) => {
        const value = on[strand.of] ? strand.y[at] : null;
        return value === undefined || (useLog && !(value > 0)) ? null : value;
      });
      const xSplits = options.xSplits(width);
      plot = new uPlot({
        width, height: small ? 210 : 320,
        padding: [10, 14, 0, 0],
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, points: { size: 6 }, y: false },
        scales: { x: { time: false, distr: 3, log: options.base, range: options.xRange }, y: { distr: useLog ? 3 : 1, range } },
        axes: [
          { ...axis, size: small ? 28 : 30, splits: () => xSplits, values: (_, splits) => splits.map(options.xValue), filter: (_, splits) => splits },
          { ...axis, label: small ? undefined : label, labelGap: 2, size: small ? 58 : 66, labelSize: small ? 0 : 20,
            ...(options.ySplits ? { splits: options.ySplits, filter: (_, splits) => splits } : useLog ? { splits: () => rungs(...range()), filter: (_, splits) => splits } : {}),
            values: (_, splits) => splits.map((value) => value === null ? "" : tick(value)) },
        ],
        series: [{}, ...strands.map(({ one }) => ({
          stroke: paint(one), width: one.strands.length > 1 ? 1.25 : 2, alpha: one.strands.length > 1 ? 0.75 : 1,
          dash: pattern(one, several), points: { show: Boolean(fixed) && !one.ideal, size: 7, fill: paint(one) }, spanGaps: false,
        }))],
        hooks: { setCursor: [(self) => show(self.cursor.idx)] },
      }, [x, ...strands.map(filled)], host);
    };
    focusable(host, title, x.length, (at) => { if (plot) plot.setCursor({ left: plot.valToPos(x[at], "x"), top: 10 }); show(at); });
    redraws.push(draw);
    draw();
  };

  const curves = (box, chart, small) => {
    const last = Math.max(20, chart.x[chart.x.length - 1] || 1);
    const marks = [1, 2, 10, 100, 1e3, 1e4, 1e5, 1e6].filter((value) => value <= last);
    lineChart(box, {
      title: small ? `${chart.title} [${chart.unit}]` : chart.title, label: chart.unit, x: chart.x, series: chart.series, base: 10, small, several: small,
      xRange: [1, last],
      // Labels that would touch are left out: p50 lies next to the minimum.
      xSplits: (width) => marks.filter((value) => value !== 2 || (width - 90) * Math.log(2) / Math.log(last) > 34),
      xValue: (value) => value === 1 ? "min" : percentile(value), at: (value) => value === 1 ? "min" : percentile(value),
    });
  };

  const scaling = (box, chart) => {
    const x = [...new Set(chart.series.flatMap((curve) => curve.points.map((point) => point[0])))].sort((a, b) => a - b);
    const column = (curve) => x.map((cores) => (curve.points.find((point) => point[0] === cores) || [0, null])[1]);
    const series = [...chart.series.map((curve) => ({ name: curve.name, colour: curve.colour, strands: [column(curve)] })),
      { name: "ideal", ideal: true, strands: [x.map((cores) => cores / x[0])] }];
    lineChart(box, {
      title: `Speed-up of all cores together against ${x[0]}`, label: "times", x, series, base: 2, log: true, fixed: true, several: chart.sides,
      xRange: [x[0] / 1.1, x[x.length - 1] * 1.1], xSplits: () => x, xValue: (cores) => cores === x[x.length - 1] ? `${cores} cores` : String(cores),
      ySplits: (self) => [0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512].filter((value) => value >= self.scales.y.min && value <= self.scales.y.max),
      at: (cores) => `${cores} cores`,
    });
  };
  const history = (box, chart) => {
    const x = chart.points.map((_, index) => index);
    const dots = chart.points.map((point) => point[1]);
    const low = Math.min(...dots), high = Math.max(...dots), room = Math.max(high - low, high * 0.02) * 0.12;
    const host = node("div", { class: "plot" });
    const read = node("div", { class: "read", "aria-live": "polite" });
    box.append(node("h4", {}, ...parts(`${chart.title} [${chart.unit}]`)), host, read);
    const oneDay = new Set(chart.runs.map((run) => run.slice(0, 8))).size === 1;
    let plot = null;
    const show = (at) => {
      if (at === null || at === undefined) { read.textContent = ""; return; }
      const [run, value] = chart.points[at];
      read.textContent = `${chart.runs[run]}: ${number(value)} ${chart.unit}`;
    };
    const draw = () => {
      if (plot) plot.destroy();
      const axis = { stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
      const day = (index) => {
        const run = chart.runs[chart.points[index][0]];
        return oneDay ? `${run.slice(9, 11)}:${run.slice(11, 13)}` : `${run.slice(4, 6)}-${run.slice(6, 8)}`;
      };
      plot = new uPlot({
        width: Math.max(240, host.clientWidth - 12), height: 210, padding: [10, 14, 0, 0],
        legend: { show: false }, cursor: { drag: { x: false, y: false }, points: { size: 8 }, y: false },
        scales: { x: { time: false, range: [-0.5, x.length - 0.5] }, y: { range: [low - room, high + room] } },
        axes: [
          { ...axis, size: 28, splits: () => x.length > 1 ? [0, x.length - 1] : [0], values: (_, splits) => splits.map(day), filter: (_, splits) => splits },
          { ...axis, size: 66, values: (_, splits) => splits.map(tick) },
        ],
        series: [{}, { stroke: css("--s0"), width: 0, paths: () => null, points: { show: true, size: 6, fill: css("--s0") } }],
        hooks: {
          setCursor: [(self) => show(self.cursor.idx)],
          draw: [(self) => {
            const pen = self.ctx;
            pen.save();
            // Levels, then a dashed line at each change; a level may be a single boot.
            const line = (x0, y0, x1, y1) => {
              pen.beginPath();
              pen.moveTo(x0, y0);
              pen.lineTo(x1, y1);
              pen.stroke();
            };
            const across = (index) => self.valToPos(index - 0.5, "x", true);
            pen.strokeStyle = css("--s1");
            pen.lineWidth = 2 * devicePixelRatio;
            for (const [from, to, value] of chart.levels) {
              const y = self.valToPos(value, "y", true);
              line(across(from), y, across(to), y);
            }
            pen.strokeStyle = css("--soft");
            pen.lineWidth = devicePixelRatio;
            pen.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
            for (const [from] of chart.levels.slice(1)) line(across(from), self.bbox.top, across(from), self.bbox.top + self.bbox.height);
            pen.restore();
          }],
        },
      }, [x, dots], host);
    };
    focusable(host, chart.title, x.length, (at) => { if (plot) plot.setCursor({ left: plot.valToPos(at, "x"), top: 10 }); show(at); });
    redraws.push(draw);
    draw();
  };

  // ---- heat maps ---------------------------------------------------------------------------------------------------

  // Cividis (Nunez, Anderton and Renslow, PLOS ONE 13(7), 2018), nine anchors: readable with colour-vision deficiency.
  const CIVIDIS = [[0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115], [138, 134, 120], [165, 156, 116], [195, 179, 105], [254, 232, 56]];
  const cividis = (share) => {
    const place = Math.min(0.9999, Math.max(0, share)) * (CIVIDIS.length - 1);
    const low = CIVIDIS[Math.floor(place)], high = CIVIDIS[Math.floor(place) + 1];
    return low.map((value, at) => Math.round(value + (high[at] - value) * (place % 1)));
  };

  // From blue (less) over paper to orange (more): Okabe and Ito's pair, which no common deficiency confuses.
  const diverging = (share) => {
    const side = Math.abs(2 * Math.min(1, Math.max(0, share)) - 1);
    const end = share < 0.5 ? [0, 90, 150] : [200, 80, 0];
    return end.map((value) => Math.round(242 + (value - 242) * side));
  };
  const least = (list) => list.reduce((a, b) => Math.min(a, b), Infinity);
  const most = (list) => list.reduce((a, b) => Math.max(a, b), -Infinity);

  // What changed from one matrix to the other, in percent.
  const difference = (chart) => {
    const base = data.charts[chart.base], after = data.charts[chart.new];
    const cells = base.cells.map((value, at) => value > 0 && after.cells[at] !== null ? 100 * (after.cells[at] / value - 1) : null);
    return { ...after, title: chart.title, unit: "%", cells, signed: true };
  };

  const heatMap = (box, matrix) => {
    const { rows, cols, cells, unit, signed } = matrix;
    const known = cells.filter((value) => value !== null);
    // Changes lie around 0, and below 3 % they are nothing to colour. Sides share their colours: they are there to be compared.
    const reach = signed ? Math.max(3, most(known.map(Math.abs))) : 0;
    const [low, high] = signed ? [-reach, reach] : matrix.span || [least(known), most(known)];
    const logarithmic = !signed && low > 0 && high / low > 20;
    const share = (value) => high === low ? 0.5 : logarithmic ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    const shade = signed ? diverging : cividis;
    const number = signed ? (value) => `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(Math.abs(value) < 10 ? 1 : 0)}` : plain;
    const canvas = node("canvas", { class: "heat", tabindex: "0", role: "img" });
    const read = node("div", { class: "read", "aria-live": "polite" });
    const range = known.length ? `${number(low)} to ${number(high)} ${unit}${logarithmic ? ", logarithmic colours" : ""}` : "no cell was measured";
    canvas.setAttribute("aria-label", `${matrix.title}: ${range}. Arrow keys read single cells; the table below has all of them.`);
    box.append(node("h4", {}, ...parts(`${matrix.title} [${unit}]`)), node("div", { class: "heatwrap" }, canvas), read);
    let at = null, geometry = null;

    const draw = () => {
      const ratio = window.devicePixelRatio || 1;
      const room = Math.max(240, box.clientWidth - 24);
      const left = 56, top = 40, bottom = 46;
      const cell = Math.max(3, Math.min(44, Math.floor((room - left) / cols.length)));
      const gap = cell > 8 ? 1 : 0, wall = cell > 8 ? 4 : 1;
      // A wide gap between nodes, a narrow one between last-level caches of a node.
      const starts = (nodes, caches) => {
        let place = 0;
        return nodes.map((owner, index) => {
          if (index > 0 && owner !== nodes[index - 1]) place += wall;
          else if (index > 0 && caches[index] !== caches[index - 1]) place += Math.ceil(wall / 2);
          const start = place;
          place += cell;
          return start;
        }).concat(place);
      };
      const xs = starts(matrix.colNodes, matrix.colCaches), ys = starts(matrix.rowNodes, matrix.rowCaches);
      const width = Math.max(left + xs[cols.length] + 4, 330), height = top + ys[rows.length] + bottom;
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
      geometry = { left, top, cell, xs, ys, width };
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.clearRect(0, 0, width, height);
      pen.textBaseline = "middle";
      const ink = css("--ink"), soft = css("--soft"), line = css("--line");
      for (let row = 0; row < rows.length; row++) {
        for (let col = 0; col < cols.length; col++) {
          const value = cells[row * cols.length + col];
          const x = left + xs[col], y = top + ys[row];
          if (value === null) {
            pen.strokeStyle = line;
            pen.strokeRect(x + 0.5, y + 0.5, cell - gap - 1, cell - gap - 1);
            continue;
          }
          const [red, green, blue] = shade(share(value));
          pen.fillStyle = `rgb(${red},${green},${blue})`;
          pen.fillRect(x, y, cell - gap, cell - gap);
          const text = number(value);
          pen.font = "11px system-ui, sans-serif";
          if (cell >= 30 && pen.measureText(text).width < cell - 3) {
            pen.fillStyle = red * 0.3 + green * 0.59 + blue * 0.11 > 125 ? "#000" : "#fff";
            pen.textAlign = "center";
            pen.fillText(text, x + (cell - gap) / 2, y + (cell - gap) / 2);
          }
        }
      }
      pen.fillStyle = soft;
      pen.font = "11px system-ui, sans-serif";
      const every = Math.max(1, Math.ceil(16 / cell)), apart = Math.max(1, Math.ceil(30 / cell));
      pen.textAlign = "center";
      cols.forEach((label, col) => col % apart === 0 && pen.fillText(label, left + xs[col] + cell / 2, top - 9));
      pen.textAlign = "right";
      rows.forEach((label, row) => row % every === 0 && pen.fillText(label, left - 6, top + ys[row] + cell / 2));
      pen.textAlign = "left";
      pen.fillText(`${matrix.colAxis} →`, left, 10);
      pen.save();
      pen.translate(10, top + Math.max(ys[rows.length], 90));
      pen.rotate(-Math.PI / 2);
      pen.fillText(`← ${matrix.rowAxis}`, 0, 0);
      pen.restore();
      const legend = Math.min(220, width - left - 8), y = top + ys[rows.length] + 12;
      for (let step = 0; step < legend; step++) {
        const [red, green, blue] = shade(step / legend);
        pen.fillStyle = `rgb(${red},${green},${blue})`;
        pen.fillRect(left + step, y, 1, 10);
      }
      pen.fillStyle = ink;
      if (known.length) {
        pen.fillText(number(low), left, y + 21);
        pen.textAlign = "right";
        pen.fillText(`${number(high)} ${unit}`, left + legend, y + 21);
      }
      if (at) {
        pen.strokeStyle = css("--s1");
        pen.lineWidth = 2;
        pen.strokeRect(left + xs[at.col], top + ys[at.row], cell - gap, cell - gap);
      }
    };
    const select = (row, col) => {
      at = { row: Math.max(0, Math.min(rows.length - 1, row)), col: Math.max(0, Math.min(cols.length - 1, col)) };
      const value = cells[at.row * cols.length + at.col];
      const where = (axis, label, owner) => `${axis} ${label}${owner !== null && !axis.includes("node") ? ` (node ${owner})` : ""}`;
      read.textContent = `${where(matrix.rowAxis, rows[at.row], matrix.rowNodes[at.row])} → ${where(matrix.colAxis, cols[at.col], matrix.colNodes[at.col])}: ${value === null ? "not measured" : `${number(value)} ${unit}`}`;
      draw();
    };
    const find = (starts, place) => starts.slice(0, -1).findIndex((start) => place >= start && place < start + geometry.cell);
    canvas.addEventListener("pointermove", (event) => {
      const frame = canvas.getBoundingClientRect();
      const zoom = geometry.width / frame.width;
      const col = find(geometry.xs, (event.clientX - frame.left) * zoom - geometry.left);
      const row = find(geometry.ys, (event.clientY - frame.top) * zoom - geometry.top);
      if (row >= 0 && col >= 0 && !(at && at.row === row && at.col === col)) select(row, col);
    });
    canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      select(at ? at.row + step[0] : 0, at ? at.col + step[1] : 0);
    });
    redraws.push(draw);
    draw();
  };

  // ---- tables ------------------------------------------------------------------------------------------------------

  const comparable = (text) => {
    const value = parseFloat(text.replace(/,/g, "").replace("−", "-"));
    return Number.isNaN(value) ? null : value;
  };
  const fit = (region) => region.toggleAttribute("data-wide", region.scrollWidth > region.clientWidth + 1);
  for (const table of document.querySelectorAll(".scroll table")) {
    const region = table.parentElement;
    redraws.push(() => fit(region));
    fit(region);
    const heads = [...table.tHead.rows[0].cells];
    if (table.tBodies[0].rows.length < 2) continue;
    heads.forEach((head, column) => {
      if (head.hasAttribute("data-drawn")) return;
      const button = node("button", { type: "button", title: "Sort" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows];
        const key = (row) => row.cells[column].textContent;
        const numeric = head.classList.contains("num");
        rows.sort((a, b) => {
          if (!numeric) return (up ? 1 : -1) * key(a).localeCompare(key(b), "en", { numeric: true });
          const left = comparable(key(a)), right = comparable(key(b));
          if (left === null || right === null) return (left === null) - (right === null);
          return (up ? 1 : -1) * (left - right);
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
  const filter = document.getElementById("filter");
  const filterRows = () => {
    const rows = [...document.querySelectorAll("#all tbody tr")];
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.cells[0].textContent.includes(filter.value.trim());
      shown += !row.hidden;
    }
    document.getElementById("shown").textContent = filter.value ? `${shown} of ${rows.length}` : "";
  };
  filter.addEventListener("input", filterRows);

  // ---- start -------------------------------------------------------------------------------------------------------

  const theme = document.getElementById("theme");
  const THEMES = ["system", "light", "dark"];
  let chosen = 0;
  theme.addEventListener("click", () => {
    chosen = (chosen + 1) % THEMES.length;
    if (chosen === 0) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = THEMES[chosen];
    theme.textContent = `Theme: ${THEMES[chosen]}`;
    redraw();
  });
  const redraw = () => redraws.forEach((draw) => draw());
  const KINDS = {
    curves: (box, chart) => curves(box, chart, false), panel: (box, chart) => curves(box, chart, true), scaling, history,
    matrix: heatMap, difference: (box, chart) => heatMap(box, difference(chart)),
  };
  const draw = (box) => {
    if (box.childElementCount > 0) return;
    const chart = data.charts[Number(box.dataset.chart)];
    KINDS[chart.kind](box, chart);
  };
  for (const box of document.querySelectorAll(".chart")) {
    // A folded chart has no width: it is drawn when it is opened.
    const folded = box.closest("details:not([open])");
    if (folded) folded.addEventListener("toggle", () => draw(box), { once: true });
    else draw(box);
  }
  for (const button of document.querySelectorAll(".copy")) {
    const code = button.parentElement.querySelector("code");
    const said = (text) => {
      button.textContent = text;
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    };
    // Where a page from a file may not write to the clipboard, the command is selected instead.
    const select = () => {
      getSelection().selectAllChildren(code);
      said("selected");
    };
    button.addEventListener("click", () => {
      if (!navigator.clipboard) return select();
      navigator.clipboard.writeText(code.textContent).then(() => said("copied"), select);
    });
  }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let waiting = 0, width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 150);
  });
  document.documentElement.dataset.ready = "yes";
})();
