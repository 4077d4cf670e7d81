"use strict";
// Draws the charts of a report from the JSON in the page. Every figure shown here is also in a table of the page.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SHOWN = 8; // Series that a chart shows at first; the others are a key press away.
  const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5]];
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
  const number = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 1e7) return value.toExponential(2);
    if (size >= 1000) return Math.round(value).toLocaleString("en");
    return size >= 100 ? value.toFixed(1) : value.toFixed(2);
  };
  const tick = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });
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

  const swatch = (index) => {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("width", "22");
    svg.setAttribute("height", "8");
    svg.setAttribute("aria-hidden", "true");
    const line = document.createElementNS(space, "line");
    const parts = { x1: 0, x2: 22, y1: 4, y2: 4, "stroke-width": 3, style: `stroke: var(--s${index % 8})`, "stroke-dasharray": dash(index).join(" ") };
    for (const [name, value] of Object.entries(parts)) line.setAttribute(name, value);
    svg.append(line);
    return svg;
  };

  // One chart: `series` is a list of {name, y}, over the common `x`.
  const lineChart = (box, options) => {
    const { title, label, x, series, fixed } = options;
    const on = series.map((_, index) => index < SHOWN);
    const values = series.flatMap((one) => one.y).filter((value) => value !== null && value > 0);
    let logarithmic = options.log ?? Math.max(...values) / Math.min(...values) > 30;
    const host = node("div", { class: "plot" });
    const read = node("div", { class: "read", "aria-live": "off" });
    const buttons = series.map((one, index) => node("button", {
      type: "button", "aria-pressed": String(on[index]), onclick: () => set([index], !on[index]),
    }, swatch(index), one.name));
    const scale = node("button", { type: "button", "aria-pressed": String(logarithmic), onclick: () => {
      logarithmic = !logarithmic;
      scale.setAttribute("aria-pressed", String(logarithmic));
      draw();
    } }, "log y");
    const all = (state) => () => set(series.map((_, index) => index), state);
    const bar = node("div", { class: "bar" }, scale,
      node("button", { type: "button", onclick: all(true) }, "all"), node("button", { type: "button", onclick: all(false) }, "none"));
    box.append(node("h3", {}, title), bar, node("div", { class: "keys", role: "group", "aria-label": "Series" }, ...buttons), host, read);
    let plot = null;

    const set = (indices, state) => {
      for (const index of indices) {
        on[index] = state;
        buttons[index].setAttribute("aria-pressed", String(state));
      }
      draw();
    };
    const show = (at) => {
      if (at === null || at === undefined) { read.textContent = ""; return; }
      const parts = series.map((one, index) => (on[index] && one.y[at] !== undefined && one.y[at] !== null)
        ? `${one.name} ${number(one.y[at])}` : null).filter(Boolean);
      const shown = parts.slice(0, 6).join("   ") + (parts.length > 6 ? `   and ${parts.length - 6} more` : "");
      read.textContent = `${options.at(x[at])}: ${shown}`;
    };
    const draw = () => {
      if (plot) plot.destroy();
      const width = Math.max(280, host.clientWidth - 12);
      const visible = series.map((one, index) => on[index] ? one.y : null);
      const shownValues = visible.filter(Boolean).flat().filter((value) => value !== null && value > 0);
      const useLog = logarithmic && shownValues.length > 0;
      const axis = { stroke: css("--ink"), grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--grid"), width: 1 }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif" };
      const range = () => {
        if (shownValues.length === 0) return [useLog ? 1 : 0, 10];
        const low = Math.min(...shownValues), high = Math.max(...shownValues);
        return useLog ? [low / 1.15, high * 1.15] : [0, high * 1.05];
      };
      const filled = (one, index) => x.map((_, at) => {
        const value = on[index] ? one.y[at] : null;
        return value === undefined || (useLog && !(value > 0)) ? null : value;
      });
      plot = new uPlot({
        width, height: 320,
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, points: { size: 6 } },
        scales: { x: { time: false, distr: 3, log: options.base, range: options.xRange }, y: { distr: useLog ? 3 : 1, range } },
        axes: [
          { ...axis, label: options.xLabel, splits: options.xSplits, values: (_, splits) => splits.map(options.xValue), filter: (_, splits) => splits },
          { ...axis, label, size: 74, ...(useLog ? { splits: () => rungs(...range()), filter: (_, splits) => splits } : {}),
            values: (_, splits) => splits.map((value) => value === null ? "" : tick(value)) },
        ],
        series: [{}, ...series.map((one, index) => ({
          stroke: colour(index), width: 2, dash: one.ideal ? [3, 6] : dash(index), points: { show: Boolean(fixed), size: 7 }, spanGaps: false,
        }))],
        hooks: { setCursor: [(self) => show(self.cursor.idx)] },
      }, [x, ...series.map(filled)], host);
      plot.root.setAttribute("role", "img");
      plot.root.setAttribute("aria-label", `${title}. The figures are in the table below.`);
    };
    redraws.push(draw);
    draw();
  };

  const curves = (box, group) => lineChart(box, {
    title: "Percentiles", label: group.unit, x: group.x, series: group.series, base: 10,
    xLabel: "percentile", xRange: [1, Math.max(20, group.x[group.x.length - 1] || 1)],
    xSplits: () => [1, 2, 10, 100, 1e3, 1e4, 1e5, 1e6].filter((value) => value <= Math.max(20, group.x[group.x.length - 1])),
    xValue: (value) => value === 1 ? "min" : percentile(value), at: percentile,
  });

  const scaling = (box, group) => {
    const x = [...new Set(group.scaling.flatMap((curve) => curve.points.map((point) => point[0])))].sort((a, b) => a - b);
    const column = (curve) => x.map((cores) => (curve.points.find((point) => point[0] === cores) || [0, null])[1]);
    const series = [{ name: "ideal", y: x.map((cores) => cores / x[0]), ideal: true },
      ...group.scaling.map((curve) => ({ name: curve.name, y: column(curve) }))];
    lineChart(box, {
      title: `Speed-up of all cores together against ${x[0]}`, label: "times", x, series, base: 2, log: true, fixed: true,
      xLabel: "cores", xRange: [x[0] / 1.1, x[x.length - 1] * 1.1], xSplits: () => x, xValue: String,
      at: (cores) => `${cores} cores`,
    });
  };

  // ---- heat maps ---------------------------------------------------------------------------------------------------

  // Cividis (Nunez, Anderton and Renslow, PLOS ONE 13(7), 2018), nine anchors: readable with colour-vision deficiency.
  const CIVIDIS = [[0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115], [138, 134, 120], [165, 156, 116], [195, 179, 105], [254, 232, 56]];
  const shade = (share) => {
    const place = Math.min(0.9999, Math.max(0, share)) * (CIVIDIS.length - 1);
    const low = CIVIDIS[Math.floor(place)], high = CIVIDIS[Math.floor(place) + 1];
    return low.map((value, at) => Math.round(value + (high[at] - value) * (place % 1)));
  };

  const heatMap = (box, matrix) => {
    const { rows, cols, cells, unit } = matrix;
    const known = cells.filter((value) => value !== null);
    const low = Math.min(...known), high = Math.max(...known);
    const logarithmic = low > 0 && high / low > 20;
    const share = (value) => high === low ? 0.5 : logarithmic ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    const canvas = node("canvas", { class: "heat", tabindex: "0", role: "img" });
    const read = node("div", { class: "read", "aria-live": "polite" });
    const range = known.length ? `${number(low)} to ${number(high)} ${unit}${logarithmic ? ", logarithmic colours" : ""}` : "no cell was measured";
    canvas.setAttribute("aria-label", `${matrix.name}: ${range}. Arrow keys read single cells; the table below has all of them.`);
    box.append(node("h3", {}, `${matrix.name} (${unit})`), node("div", { class: "heatwrap" }, canvas), read);
    let at = null, geometry = null;

    const draw = () => {
      const ratio = window.devicePixelRatio || 1;
      const room = Math.max(260, box.clientWidth - 40);
      const left = 56, top = 40, bottom = 46;
      const cell = Math.max(3, Math.min(44, Math.floor((room - left) / cols.length)));
      const gap = cell > 8 ? 1 : 0, wall = cell > 8 ? 4 : 1;
      const starts = (nodes) => {
        let place = 0;
        return nodes.map((owner, index) => {
          if (index > 0 && owner !== nodes[index - 1]) place += wall;
          const start = place;
          place += cell;
          return start;
        }).concat(place);
      };
      const xs = starts(matrix.colNodes), ys = starts(matrix.rowNodes);
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
      const legend = Math.min(260, width - left - 8), y = top + ys[rows.length] + 12;
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
    const value = parseFloat(text.replace(/,/g, ""));
    return Number.isNaN(value) ? null : value;
  };
  for (const table of document.querySelectorAll(".scroll table")) {
    const heads = [...table.tHead.rows[0].cells];
    if (table.tBodies[0].rows.length < 2) continue;
    heads.forEach((head, column) => {
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
  for (const box of document.querySelectorAll(".chart")) {
    const group = data.groups[Number(box.dataset.group)];
    if (box.dataset.kind === "curves" && group.x.length > 0) curves(box, group);
    else if (box.dataset.kind === "scaling") scaling(box, group);
    else if (box.dataset.kind === "matrix") heatMap(box, group.matrices[Number(box.dataset.matrix)]);
    else box.remove();
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
