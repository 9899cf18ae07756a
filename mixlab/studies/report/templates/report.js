"use strict";
(function () {
  const root = document.documentElement;
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");

  function colour(name) {
    return getComputedStyle(root).getPropertyValue(name).trim();
  }

  // Figures name CSS variables ("var:--c0"), so that one description serves both themes.
  function themed(value) {
    if (typeof value === "string") {
      return value.startsWith("var:") ? colour(value.slice(4)) : value;
    }
    if (Array.isArray(value)) {
      return value.map(themed);
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, themed(inner)]));
    }
    return value;
  }

  // Heatmaps come with the names of their rows and columns; each cell's hover text needs both.
  function named(trace) {
    if (trace.names) {
      trace.customdata = trace.names.rows.map((row) => trace.names.columns.map((column) => [row, column]));
      delete trace.names;
    }
    return trace;
  }

  function layoutOf(view, canvas, square) {
    const layout = themed(view.layout);
    const font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--ink") };
    if (square) {
      layout.height = Math.min(canvas.clientWidth, 660) * 0.94;
    }
    return Object.assign({
      font: font,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 16, t: 16, b: 40 },
      hovermode: "closest",
      dragmode: false,
      hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--rule"), font: font, align: "left" },
    }, layout);
  }

  const drawn = [];

  function setUp(figure) {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const canvas = figure.querySelector(".canvas");
    const state = { view: 0 };
    const config = { responsive: true, displayModeBar: false, displaylogo: false };
    const draw = () => {
      const view = spec.views[state.view];
      Plotly.react(canvas, themed(view.data).map(named), layoutOf(view, canvas, spec.square), config);
    };
    const choose = (index) => {
      state.view = index;
      figure.querySelectorAll(".chooser button").forEach((button, i) => button.setAttribute("aria-pressed", String(i === index)));
      draw();
    };
    figure.querySelectorAll(".chooser button").forEach((button, i) => button.addEventListener("click", () => choose(i)));
    figure.querySelectorAll(".chooser select").forEach((select) => select.addEventListener("change", () => choose(select.selectedIndex)));
    draw();
    drawn.push(draw);
  }

  function sortBy(table, column, button) {
    const head = button.closest("th");
    const first = head.dataset.first || "descending";
    const other = first === "descending" ? "ascending" : "descending";
    const direction = head.getAttribute("aria-sort") === first ? other : first;
    table.querySelectorAll("thead th[aria-sort]").forEach((th) => th.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const key = (row) => row.cells[column].dataset.sort;
    const rows = Array.from(body.rows).sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") {
        return (x === "") - (y === "");  // what has no number stays last, whatever the direction
      }
      return sign * (head.dataset.kind === "text" ? x.localeCompare(y) : Number(x) - Number(y));
    });
    rows.forEach((row) => body.appendChild(row));
  }

  document.querySelectorAll("table.sortable").forEach((table) => {
    table.querySelectorAll("thead th").forEach((th, place) => {
      const button = th.querySelector("button");
      const column = Number(th.dataset.column ?? place);  // given where the head has two rows
      if (button) {
        button.addEventListener("click", () => sortBy(table, column, button));
      }
    });
  });

  document.querySelectorAll(".choice").forEach((choice) => {
    const select = choice.querySelector("select");
    const blocks = choice.querySelectorAll(".chosen");
    if (select) {
      select.addEventListener("change", () => blocks.forEach((block, i) => { block.hidden = i !== select.selectedIndex; }));
      select.dispatchEvent(new Event("change"));  // a browser may keep the choice when the page is loaded again
    }
  });

  // A link to something inside a closed block opens the block.
  function reveal() {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const block = target && target.closest("details");
    if (block && !block.open) {
      block.open = true;
      target.scrollIntoView();
    }
  }

  document.querySelectorAll(".plot").forEach(setUp);
  const redraw = () => drawn.forEach((draw) => draw());
  scheme.addEventListener("change", redraw);
  window.addEventListener("hashchange", reveal);
  reveal();
})();
