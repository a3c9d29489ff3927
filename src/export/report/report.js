"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { tokens, layers, kept, shares, broken, maps } = data;
  const n = tokens.length;
  const $ = (id) => document.getElementById(id);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const numbers = new Map();

  // The weights of a query of a head, one per key; NaN where the run has NaN, -1 where the page has none.
  function weights(layer, head, query) {
    const name = `${layer}.${head}`;
    if (!numbers.has(name)) numbers.set(name, new DataView(bytes(layers[layer][head]).buffer));
    const view = numbers.get(name);
    const weight = (at) => {
      const parts = view.getUint16(at, true);
      return parts > shares ? NaN : parts / shares;
    };
    const row = new Float64Array(query + 1).fill(kept ? -1 : 0);
    if (!kept) {
      const start = (query * (query + 1)) / 2;
      for (let key = 0; key <= query; key++) row[key] = weight(2 * (start + key));
    } else {
      for (let i = 0; i < kept; i++) {
        const at = 4 * (query * kept + i);
        const key = view.getUint16(at, true);
        if (key <= query) row[key] = weight(at + 2);
      }
    }
    return row;
  }

  let [layer, head, query] = [0, 0, n - 1];
  const shown = (x) => (isNaN(x) ? "NaN" : x >= 0.001 || x === 0 ? x.toFixed(4) : x.toExponential(1));

  function draw() {
    const canvas = $("map");
    canvas.width = canvas.height = n;
    const context = canvas.getContext("2d");
    const image = context.createImageData(n, n);
    const colours = matchMedia("(prefers-color-scheme: dark)").matches ? maps.dark : maps.light;
    let most = 0;
    const rows = tokens.map((_, q) => weights(layer, head, q));
    rows.forEach((row) => row.forEach((x) => (most = x > most ? x : most)));
    rows.forEach((row, q) =>
      row.forEach((x, k) => {
        const colour = isNaN(x) ? broken : colours[Math.round((x > 0 ? x / (most || 1) : 0) * (colours.length - 1))];
        image.data.set([...colour, 255], 4 * (q * n + k));
      }),
    );
    for (let k = 0; k <= query; k++) {
      const at = 4 * (query * n + k);
      if (rows[query][k] <= 0.3 * most) image.data.set([255, 200, 87, 120], at);
    }
    context.putImageData(image, 0, 0);
    $("which").textContent = `head ${layer}.${head}: ${tokens[query]} (${query}) reads`;
    canvas.setAttribute("aria-label", `attention of head ${layer}.${head}: queries down, keys across`);
    const row = rows[query];
    // What is broken comes first.
    const place = (x) => (isNaN(x) ? 2 : x);
    const order = [...row.keys()].filter((k) => !(row[k] <= 0)).sort((a, b) => place(row[b]) - place(row[a]));
    $("reads").replaceChildren(
      ...order.slice(0, 16).map((key) => {
        const item = document.createElement("li");
        item.dataset.key = key;
        item.dataset.value = row[key].toFixed(6);
        item.style.setProperty("--s", row[key]);
        const name = document.createElement("span");
        name.textContent = `${key} ${tokens[key]}`;
        const value = document.createElement("span");
        value.textContent = shown(row[key]);
        item.append(name, value);
        return item;
      }),
    );
    [...$("queries").children].forEach((token, position) => {
      token.setAttribute("aria-pressed", position === query);
      token.style.setProperty("--s", position <= query && row[position] > 0 ? row[position] : 0);
    });
    for (const button of $("heads").querySelectorAll("button"))
      button.setAttribute("aria-pressed", button.dataset.head === `${layer}.${head}`);
  }

  const list = $("queries");
  tokens.forEach((text, position) => {
    const token = document.createElement("button");
    token.type = "button";
    token.textContent = text;
    token.dataset.position = position;
    const look = () => {
      if (query !== position) {
        query = position;
        draw();
      }
    };
    for (const event of ["mouseenter", "focus", "click"]) token.addEventListener(event, look);
    list.append(token);
  });
  $("heads").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    [layer, head] = button.dataset.head.split(".").map(Number);
    draw();
  });
  $("map").addEventListener("mousemove", (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const at = Math.floor(((event.clientY - box.top) / box.height) * n);
    if (at >= 0 && at < n && at !== query) {
      query = at;
      draw();
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  $("interactive").hidden = false;
  draw();
})();
