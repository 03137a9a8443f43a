"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const panels = [...document.querySelectorAll(".subject")];
  const all = (root, selector) => [...root.querySelectorAll(selector)];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;

  // ---- subjects, one shown at a time

  const tabs = all(document, "[role=tab]");
  let shown = Math.max(0, tabs.findIndex((tab) => tab.getAttribute("aria-selected") === "true"));

  function show(index) {
    shown = index;
    panels.forEach((panel, i) => { panel.hidden = i !== index; });
    tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(i === index));
      tab.tabIndex = i === index ? 0 : -1;
    });
    draw(index);
  }

  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => show(i));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const end = { Home: 0, End: tabs.length - 1 }[event.key];
      if (step === undefined && end === undefined) return;
      event.preventDefault();
      const next = end ?? (i + step + tabs.length) % tabs.length;
      tabs[next].focus();
      show(next);
    });
  });
  all(document, "a.verdict").forEach((card) => card.addEventListener("click", () => show(Number(card.dataset.subject))));
  all(document, "a[data-section]").forEach((link) => link.addEventListener("click", (event) => {
    event.preventDefault();
    panels[shown].querySelector(`[data-name="${link.dataset.section}"]`).scrollIntoView();
  }));

  // ---- the table of attacks

  function table(panel) {
    const body = panel.querySelector(".attacks tbody");
    const rows = [...body.rows];
    const heads = all(panel, ".attacks thead th");
    const sorter = panel.querySelector("[data-sorter]");

    function sort(column, descending) {
      const key = (row) => column === null ? row.dataset.order : row.cells[column].dataset.sort;
      const words = column !== null && rows.some((row) => isNaN(Number(key(row))));
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if ((x === "") !== (y === "")) return x === "" ? 1 : -1;  // what was not measured comes last either way
        const order = words ? x.localeCompare(y) : Number(x) - Number(y);
        return descending ? -order : order;
      });
      body.append(...rows);
      heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : descending ? "descending" : "ascending"));
      sorter.value = column === null ? "" : String(column);
    }
    const numeric = (column) => column !== null && column > 0 && column < heads.length - 1;
    heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sort(i, now === "none" ? numeric(i) : now === "ascending");
    }));
    sorter.addEventListener("change", () => {
      const column = sorter.value === "" ? null : Number(sorter.value);
      sort(column, numeric(column));
    });

    function filter() {
      const text = panel.querySelector('[data-filter="text"]').value.trim().toLowerCase();
      const family = panel.querySelector('[data-filter="family"]').value;
      const outcomes = new Set(all(panel, '[data-filter="outcome"]:checked').map((box) => box.value));
      let count = 0;
      for (const row of rows) {
        const named = `${row.cells[0].dataset.sort} ${row.dataset.family}`.toLowerCase().includes(text);
        row.hidden = !(named && (!family || row.dataset.family === family) && outcomes.has(row.dataset.outcome));
        count += Number(!row.hidden);
      }
      panel.querySelector('[data-name="adversaries"] output').textContent = `${count} of ${rows.length} shown`;
      panel.querySelector(".none").hidden = count > 0;
    }
    all(panel, "[data-filter]").forEach((control) => control.addEventListener("input", filter));
  }

  // ---- samples

  function samples(panel, found) {
    const section = panel.querySelector('[data-name="samples"]');
    const [attack, label, changed] = ["attack", "label", "changed"].map((name) => section.querySelector(`[data-${name}]`));
    const list = section.querySelector(".samples"), more = section.querySelector("[data-more]");
    const names = Object.keys(found.runs), base = found.runs.none;
    const attacked = names.filter((name) => name !== "none");
    (attacked.length ? attacked : names).forEach((name) => attack.add(new Option(name)));
    const labels = new Set(names.flatMap((name) => Object.values(found.runs[name].labels)));
    [...labels].sort().forEach((name) => label.add(new Option(name)));
    const first = found.redacted ? 16 : 6;
    let length = first;
    list.classList.toggle("redacted", found.redacted);

    const part = (tag, className, textContent) => Object.assign(document.createElement(tag), { className, textContent });
    function answer(title, run, item) {
      const box = document.createElement("div"), head = document.createElement("div");
      head.append(part("span", found.redacted ? "hidden" : "", `${title}: `), part("span", "label", run.labels[item] ?? "not asked"));
      box.append(head);
      if (!found.redacted && run.answers[item] !== undefined) box.append(part("p", "text", run.answers[item]));
      return box;
    }
    function render() {
      const run = found.runs[attack.value];
      list.replaceChildren();
      if (!run) {
        section.querySelector("output").textContent = "No answers are stored.";
        return;
      }
      section.querySelector(".printed").textContent = `${attack.value}${label.value ? `, answers: ${label.value}` : ""}${changed.checked ? ", only where the attack changed it" : ""}`;
      const items = Object.keys(found.items).filter((item) =>
        (!label.value || run.labels[item] === label.value) && (!changed.checked || !base || run.labels[item] !== base.labels[item]));
      for (const item of printing ? items : items.slice(0, length)) {
        const row = document.createElement("li");
        const title = found.redacted ? item : `${item} · ${found.items[item]}`;
        const answers = part("div", "answers", "");
        if (base && run !== base) answers.append(answer("before", base, item));
        answers.append(answer(run === base ? "no attack" : "after", run, item));
        row.append(part("div", "item", title), answers);
        list.append(row);
      }
      section.querySelector("output").textContent = `${items.length} of ${Object.keys(found.items).length} requests`;
      more.hidden = items.length <= length;
    }
    [attack, label, changed].forEach((control) => control.addEventListener("input", () => { length = first; render(); }));
    more.addEventListener("click", () => { length += 24; render(); });
    render();
    return render;
  }

  // ---- charts

  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const OUTCOME_SYMBOLS = { broken: "x", collapsed: "triangle-down", resisted: "circle", inconclusive: "diamond", infeasible: "line-ew-open", invalid: "asterisk-open" };
  const UNITS = { steps: "optimizer steps", examples: "training examples", tokens: "tokens", flops: "FLOPs" };

  function colours() {
    const light = printing || !dark.matches;
    return {
      lines: light
        ? ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B28500", "#2C8FC9", "#000000", "#777777"]
        : ["#56B4E9", "#FF8A3D", "#2CC79B", "#E6A0C9", "#F0E442", "#8FB8FF", "#FFFFFF", "#A0A0A0"],
      ink: light ? "#1a1f26" : "#e8edf2", muted: light ? "#5a6572" : "#9aa7b4", grid: light ? "#e3e7ec" : "#2f3842",
      card: light ? "#ffffff" : "#181d24",
      outcome: light
        ? { broken: "#b0420a", collapsed: "#8c3f74", resisted: "#00588f", inconclusive: "#7a5b00" }
        : { broken: "#ff9d66", collapsed: "#eba5d2", resisted: "#7cc7f5", inconclusive: "#f2cf63" },
      corner: light ? "rgba(213,94,0,.09)" : "rgba(255,138,61,.13)",
    };
  }
  function layout(c, x, y, extra) {
    const axis = (title, more) => ({ title: { text: title, standoff: 8 }, gridcolor: c.grid, linecolor: c.muted, zeroline: false, automargin: true, fixedrange: true, ...more });
    return {
      font: { family: getComputedStyle(document.body).fontFamily, color: c.ink, size: 13 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 8, t: 10, b: 8 }, xaxis: axis(...x), yaxis: axis(...y), hovermode: "closest",
      hoverlabel: { bgcolor: c.card, bordercolor: c.muted, font: { color: c.ink, size: 12 } },
      legend: { orientation: "h", y: -0.2, yanchor: "top", font: { size: 12 } }, ...extra,
    };
  }
  const CONFIG = { displayModeBar: false, responsive: true };
  const faint = (colour, points) => points.length > 12 ? `${colour}44` : colour;
  const shownTriple = ([value, low, high]) => value === null ? "undefined" : `${value.toFixed(2)} [${low === null ? "…" : low.toFixed(2)}, ${high === null ? "…" : high.toFixed(2)}]`;
  function bars(points, key) {
    const length = (sign) => points.map((p) => p[key][0] === null || p[key][sign > 0 ? 2 : 1] === null ? 0 : sign * (p[key][sign > 0 ? 2 : 1] - p[key][0]));
    return { type: "data", symmetric: false, array: length(1), arrayminus: length(-1), thickness: 1, width: 3 };
  }
  const level = (c, y, text, dash) => [
    { type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: c.muted, width: 1.2, dash }, layer: "below" },
    { xref: "paper", x: 1, xanchor: "right", y, yanchor: "bottom", text, showarrow: false, font: { size: 11, color: c.muted } },
  ];

  // A logarithmic axis with a place for zero: the unattacked model, left of the first cost.
  function costAxis(curves, unit) {
    const spent = curves.flatMap((curve) => curve.points.map((p) => p[unit])).filter((v) => v > 0);
    const least = Math.min(...spent), most = Math.max(...spent), zero = least / 3;
    const ticks = [];
    for (let k = Math.floor(Math.log10(least)); k <= Math.ceil(Math.log10(most)); k++) {
      for (const m of most / least > 2000 ? [1] : [1, 2, 5]) if (m * 10 ** k >= least * 0.99 && m * 10 ** k <= most * 1.01) ticks.push(m * 10 ** k);
    }
    const name = (v) => unit === "flops" ? v.toExponential(0).replace("e+", "e") : v >= 1e6 ? `${v / 1e6}M` : v >= 1e4 ? `${v / 1e3}k` : String(v);
    return {
      place: (v) => v > 0 ? v : zero,
      axis: { type: "log", tickvals: [zero, ...ticks], ticktext: ["0", ...ticks.map(name)], range: [Math.log10(zero / 1.25), Math.log10(most * 1.25)] },
    };
  }
  const spends = (curve) => new Set(curve.points.map((p) => p.steps)).size > 1;

  function costChart(found, unit, one, c) {
    const training = found.curves.filter(spends);
    const picked = training.filter((curve) => one ? curve.adversary === one : curve.worst);
    if (!picked.length) return null;
    const scale = costAxis(training, unit);
    const x = (curve) => curve.points.map((p) => scale.place(p[unit]));
    const title = [UNITS[unit], scale.axis];
    const line = (curve, key, name, index, extra = {}) => ({
      x: x(curve), y: curve.points.map((p) => p[key][0]), name, mode: "lines+markers",
      line: { color: c.lines[index % 8], dash: DASHES[Math.floor(index / 8) % 4], width: 2 },
      marker: { symbol: SYMBOLS[index % 8], size: 8 }, error_y: { ...bars(curve.points, key), color: c.lines[index % 8] },
      text: curve.points.map((p) => `${name}<br>${p[unit].toLocaleString("en")} ${UNITS[unit]}<br>${key === "R" ? "R" : "K"} ${shownTriple(p[key])}<br>utility lost ${shownTriple(p.utility_drop)}<br>${p.outcome}`),
      hovertemplate: "%{text}<extra></extra>", ...extra,
    });
    if (one) {
      const traces = picked.flatMap((curve, i) => [
        line(curve, "K", `subject, ${curve.variant.replace("learning_rate", "lr")}`, i ? 2 * i + 1 : 0),
        ...(i ? [] : [line(curve, "exposed", `exposed, ${curve.variant.replace("learning_rate", "lr")}`, 1), line(curve, "never_exposed", `never-exposed, ${curve.variant.replace("learning_rate", "lr")}`, 2)]),
      ]);
      const [chance, text] = level(c, 0, "chance", "dot");
      return [traces, layout(c, title, ["knowledge K", { range: [-0.3, 1.12] }], { shapes: [chance], annotations: [text] })];
    }
    const strongest = [...picked].sort((a, b) => Math.max(...b.points.map((p) => p.R[0] ?? -9)) - Math.max(...a.points.map((p) => p.R[0] ?? -9)));
    const traces = strongest.map((curve, i) => line(curve, "R", curve.adversary, i, i < 10 ? {} : { visible: "legendonly" }));
    const lines = [level(c, 1, "exposed reference", "solid"), level(c, 0, "never-exposed reference", "solid"), level(c, data.phi, `broken from R = ${data.phi}`, "dash")];
    return [traces, layout(c, title, ["recovery R", { range: [-0.3, 1.25] }], { shapes: lines.map((l) => l[0]), annotations: lines.map((l) => l[1]) })];
  }

  function behaviourChart(found, c) {
    const groups = [
      ["reference", "unattacked references", "diamond-open", c.muted], ["before", "subject, no attack", "star", c.ink],
      ...Object.entries(c.outcome).map(([name, colour]) => [name, `after an attack: ${name}`, OUTCOME_SYMBOLS[name], colour]),
      ["infeasible", "after an attack: infeasible", OUTCOME_SYMBOLS.infeasible, c.muted], ["invalid", "after an attack: invalid", OUTCOME_SYMBOLS.invalid, c.muted],
    ];
    const traces = groups.map(([kind, name, symbol, colour]) => {
      const points = found.behaviour.filter((p) => (p.kind === "attacked" ? p.outcome : p.kind) === kind);
      return {
        x: points.map((p) => p.K[0]), y: points.map((p) => p.right[0]), name, mode: "markers",
        marker: { symbol, size: kind === "before" ? 15 : 11, color: colour, line: { width: symbol.includes("open") ? 2 : 0.5, color: colour } },
        error_x: { ...bars(points, "K"), color: faint(colour, found.behaviour) }, error_y: { ...bars(points, "right"), color: faint(colour, found.behaviour) },
        text: points.map((p) => `${p.label}<br>K ${shownTriple(p.K)}<br>answers right ${shownTriple(p.right)}<br>refuses ${shownTriple(p.refused)}`),
        hovertemplate: "%{text}<extra></extra>",
      };
    }).filter((trace) => trace.x.length);
    const zone = (x, y, text, xanchor) => ({ x, y, text, xanchor, showarrow: false, font: { size: 12, color: c.muted } });
    return [traces, layout(c, ["knows: K of hazard facts", { range: [-0.35, 1.2] }], ["tells: share answered right", { range: [-0.12, 1.12] }],
      { annotations: [zone(1.15, -0.07, "<b>locked</b>", "right"), zone(-0.3, -0.07, "<b>empty</b>", "left"), zone(1.15, 1.07, "<b>open</b>", "right")] })];
  }

  function utilityChart(found, c) {
    const points = found.curves.flatMap((curve) => curve.points.map((p) => ({ ...p, name: `${curve.adversary} ${curve.variant.replace("learning_rate", "lr")} step ${p.steps}` })));
    const kinds = [...new Set(points.map((p) => p.outcome))];
    const traces = kinds.map((kind) => {
      const own = points.filter((p) => p.outcome === kind && p.R[0] !== null && p.utility_drop[0] !== null);
      const colour = c.outcome[kind] ?? c.muted;
      const worst = own.filter((p) => p.worst);
      return [
        { points: own.filter((p) => !p.worst), name: `${kind}`, size: 7, opacity: 0.55, worst: false },
        { points: worst, name: `${kind}, an attack's worst point`, size: 11, opacity: 1, worst: true },
      ].map((group) => ({
        x: group.points.map((p) => p.utility_drop[0]), y: group.points.map((p) => p.R[0]), name: group.name, mode: "markers", opacity: group.opacity,
        marker: { symbol: OUTCOME_SYMBOLS[kind], size: group.size, color: colour, line: { width: 0.5, color: colour } },
        ...(group.worst ? { error_x: { ...bars(group.points, "utility_drop"), color: faint(colour, found.behaviour) }, error_y: { ...bars(group.points, "R"), color: faint(colour, found.behaviour) } } : {}),
        text: group.points.map((p) => `${p.name}<br>R ${shownTriple(p.R)}<br>utility lost ${shownTriple(p.utility_drop)}<br>${kind}`), hovertemplate: "%{text}<extra></extra>",
      }));
    }).flat().filter((trace) => trace.x.length);
    const lost = points.map((p) => p.utility_drop[0] ?? 0);
    const [from, to] = [Math.min(-0.08, ...lost) - 0.04, Math.max(data.epsilon * 2, ...lost) + 0.06];
    return [traces, layout(c, ["utility lost", { range: [from, to], tickformat: ".0%" }], ["recovery R", { range: [-0.3, 1.25] }], {
      shapes: [{ type: "rect", x0: from, x1: data.epsilon, y0: data.phi, y1: 1.25, fillcolor: c.corner, line: { width: 0 }, layer: "below" }],
      annotations: [{ x: from, xanchor: "left", xshift: 6, y: 1.19, text: "<b>broken</b>", showarrow: false, font: { size: 12, color: c.muted } }],
    })];
  }

  function maximumChart(found, c) {
    const y = found.expected_maximum;
    if (!y.length) return null;
    return [[{ x: y.map((_, i) => i + 1), y, mode: "lines+markers", line: { color: c.lines[0], width: 2 }, marker: { size: 5 }, hovertemplate: "best of %{x} points: R %{y:.2f}<extra></extra>" }],
      layout(c, ["points tried", {}], ["expected maximum of R", { range: [Math.min(-0.1, ...y), 1.25] }])];
  }

  function draw(index) {
    const panel = panels[index], found = data.subjects[index], c = colours();
    const charts = {
      cost: () => costChart(found, panel.querySelector("[data-cost]").value, panel.querySelector("[data-show]").value, c),
      behaviour: () => behaviourChart(found, c), utility: () => utilityChart(found, c), maximum: () => maximumChart(found, c),
    };
    for (const place of all(panel, ".chart")) {
      if (place.closest("[hidden], details:not([open])")) continue;  // without a size yet: drawn when it is shown
      const made = charts[place.dataset.chart]();
      if (made) {
        // A legend of many lines makes the chart taller, not the plot smaller. Paper has one width.
        const width = printing ? 640 : place.clientWidth, lines = Math.ceil(made[0].length / Math.max(1, Math.floor(width / 190)));
        place.style.height = printing ? "" : `${(place.classList.contains("small") ? 260 : 390) + 19 * lines}px`;
        Plotly.react(place, made[0], { ...made[1], ...(printing ? { width, height: 330 } : {}) }, CONFIG);
      }
      else place.replaceChildren(Object.assign(document.createElement("p"), { className: "todo", textContent: "Nothing of this kind was run in this study." }));
    }
  }

  const renderSamples = panels.map((panel, i) => samples(panel, data.subjects[i].samples));
  panels.forEach((panel, i) => {
    table(panel);
    const showing = panel.querySelector("[data-show]");
    [...new Set(data.subjects[i].curves.filter(spends).map((curve) => curve.adversary))].forEach((name) => showing.add(new Option(`K of the three models: ${name}`, name)));
    all(panel, "[data-cost], [data-show]").forEach((control) => control.addEventListener("input", () => draw(i)));
    all(panel, "details").forEach((details) => details.addEventListener("toggle", () => { if (details.open && details.querySelector(".chart")) draw(i); }));
  });
  dark.addEventListener("change", () => draw(shown));
  // Paper cannot be opened or scrolled: everything is on it, and the screen is put back as it was afterwards.
  let closed = [];
  addEventListener("beforeprint", () => {
    printing = true;
    closed = all(document, "details:not([open])");
    closed.forEach((details) => { details.open = true; });
    renderSamples.forEach((render) => render());
    panels.forEach((panel, i) => { panel.hidden = false; draw(i); });
  });
  addEventListener("afterprint", () => {
    printing = false;
    closed.forEach((details) => { details.open = false; });
    renderSamples.forEach((render) => render());
    all(document, ".chart").forEach((place) => Plotly.purge(place));
    show(shown);
  });
  show(shown);
})();
