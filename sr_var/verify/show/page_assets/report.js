// The gallery of report.html: draws the maps, sorts the images, tells what the routes say of a pixel.
// Everything from outside (names of files) goes into the page as text; see sr_var/verify/show/gallery.py for the data.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("gallery-data").textContent);
  const $ = (id) => document.getElementById(id);
  const PICTURES = data.pictures;
  // without samples there are the nets alone
  const ROUTES = data.num_samples > 0 ? ["nets", "samples"] : ["nets"];
  const MAPS = ["|error| of the mean", "std of the net", "std of the samples"].slice(0, 1 + ROUTES.length);
  const [ROWS, COLUMNS] = [data.map_height, data.map_width];
  const COLOURS = Array.from({ length: 256 }, (_, i) =>
    [0, 2, 4].map((k) => parseInt(data.colours.substr(6 * i + k, 2), 16)));
  let channel = data.channels.indexOf("green");

  function element(name, attributes = {}, ...children) {
    const isSvg = element.SVG.has(name);
    const made = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }
  element.SVG = new Set(["svg", "path", "rect", "text", "g"]);

  function format(value, digits = 4) {
    if (value === null || !Number.isFinite(value)) return "–";
    const text = Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(digits)));
    return text.replace("-", "−");
  }

  // ---- data of an image ----

  async function pixels(base64) {
    const image = new Image();
    image.src = "data:image/webp;base64," + base64;
    await image.decode();
    const canvas = element("canvas", { width: image.width, height: image.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return { width: image.width, bytes: context.getImageData(0, 0, image.width, image.height).data };
  }

  async function decode(part) {
    const [values, stds, histograms] = await Promise.all(
      [part.values, part.stds, part.histograms].map((text) => (text ? pixels(text) : null)));
    const value = (which, place) => values.bytes[4 * place + which];
    const std = (which, place) => {
      const share = stds.bytes[4 * place + which] / 255;
      return part.largest_std * share * share;
    };
    return {
      real: (place) => value(0, place),
      mean: { nets: (place) => value(1, place), samples: (place) => value(2, place) },
      std: { nets: (place) => std(0, place), samples: (place) => std(1, place) },
      maps: [(place) => Math.abs(value(0, place) - value(1, place)), (place) => std(0, place), (place) => std(1, place)],
      histograms,
      top: part.top,
    };
  }

  // ---- one image of the list ----

  class Card {
    constructor(image, index) {
      this.image = image;
      this.index = index;
      this.pixel = null;
      this.loaded = new Map();
      this.pictures = PICTURES.map((title) => element("img", { alt: `${title} of ${image.name}`, width: data.width, height: data.height }));
      this.canvases = MAPS.map((title) =>
        element("canvas", { role: "img", "aria-label": `${title} of ${image.name}`, width: COLUMNS, height: ROWS }));
      this.crosses = [];
      const panels = [...this.pictures, ...this.canvases].map((picture, i) => this.panel(picture, [...PICTURES, ...MAPS][i]));
      this.viewer = element("div", {
        class: "viewer", tabindex: "0", role: "application", "aria-roledescription": "pixel viewer",
        "aria-label": `Pixels of ${image.name}`, "aria-describedby": "gallery-help",
      }, ...panels);
      this.readout = element("div", { class: "readout" }, element("p", { class: "note" }, "Point at a pixel."));
      this.scale = element("p", { class: "note" });
      this.sorted = element("p", { class: "sorted" });
      const title = element("h3", { id: `image-${index}` }, element("bdi", {}, image.name));
      this.node = element("li", { class: "card", "aria-labelledby": `image-${index}` },
        element("div", { class: "head" }, title, this.sorted),
        element("div", { class: "body" }, element("div", {}, this.viewer, this.scale), this.readout),
        this.metrics());
      this.listen();
    }

    panel(picture, title) {
      const cross = element("svg", { class: "cross", viewBox: `0 0 ${COLUMNS} ${ROWS}`, "aria-hidden": "true" });
      this.crosses.push(cross);
      const frame = element("div", { class: "frame" }, picture, cross);
      frame.style.aspectRatio = `${data.width} / ${data.height}`;
      return element("figure", {}, frame, element("figcaption", {}, title));
    }

    metrics() {
      const rows = data.metric_labels.map((label, i) =>
        element("tr", {}, element("th", { scope: "row" }, label), element("td", {}, format(this.image.metrics[i]))));
      const head = element("tr", {}, element("th", { scope: "col" }, "metric"), element("th", { scope: "col" }, "value"));
      const table = element("table", {}, element("caption", {}, "Metrics of ", element("bdi", {}, this.image.name)),
        element("thead", {}, head), element("tbody", {}, ...rows));
      const region = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Metrics of ${this.image.name}` }, table);
      return element("details", {}, element("summary", {}, "All metrics of this image"), region);
    }

    listen() {
      const point = (event) => {
        const frame = event.target.closest(".frame");
        if (!frame) return;
        const box = frame.getBoundingClientRect();
        this.show(COLUMNS * (event.clientX - box.left) / box.width, ROWS * (event.clientY - box.top) / box.height);
      };
      this.viewer.addEventListener("pointermove", point);
      this.viewer.addEventListener("pointerdown", point);
      this.viewer.addEventListener("keydown", (event) => this.key(event));
      this.viewer.addEventListener("focus", () => {
        if (!this.pixel && this.viewer.matches(":focus-visible")) this.show(COLUMNS / 2, ROWS / 2);
      });
    }

    key(event) {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const [x, y] = this.pixel || [COLUMNS / 2, ROWS / 2];
      const step = event.shiftKey ? 10 : 1;
      const moves = {
        ArrowLeft: [x - step, y], ArrowRight: [x + step, y], ArrowUp: [x, y - step], ArrowDown: [x, y + step],
        Home: [0, y], End: [COLUMNS - 1, y],
      };
      if (!(event.key in moves)) return;
      event.preventDefault();
      this.show(...moves[event.key]);
    }

    load() {
      if (!this.loaded.has(channel)) this.loaded.set(channel, decode(this.image.channels[channel]));
      return this.loaded.get(channel);
    }

    async draw() {
      this.pictures.forEach((picture, i) => {
        if (!picture.src) picture.src = "data:image/webp;base64," + this.image.pictures[i];
      });
      const maps = await this.load();
      const top = $("own-scale").checked ? maps.top : data.top;
      this.scale.textContent = `Colours of this image from 0 to ${format(top, 3)} grey levels.`;
      this.canvases.forEach((canvas, which) => paint(canvas, maps.maps[which], top));
      this.isDrawn = true;
    }

    async show(x, y) {
      const limit = (v, side) => Math.min(side - 1, Math.max(0, Math.floor(v)));
      this.pixel = [limit(x, COLUMNS), limit(y, ROWS)];
      for (const cross of this.crosses) drawCross(cross, ...this.pixel);
      const shown = this.pixel;
      const maps = await this.load();
      if (shown !== this.pixel) return; // pointed elsewhere while it was decoded
      const text = describe(maps, ...shown);
      this.readout.replaceChildren(...readout(maps, ...shown));
      announce(`${this.image.name}, ${text}`);
    }
  }

  function paint(canvas, map, top) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(COLUMNS, ROWS);
    for (let place = 0; place < ROWS * COLUMNS; place++) {
      const colour = COLOURS[Math.min(255, Math.round(255 * map(place) / top))];
      image.data.set(colour, 4 * place);
      image.data[4 * place + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  function drawCross(cross, x, y) {
    const lines = `M0 ${y + 0.5}H${COLUMNS}M${x + 0.5} 0V${ROWS}`;
    cross.replaceChildren(element("path", { d: lines, class: "under" }), element("path", { d: lines, class: "over" }));
  }

  // ---- what the routes say of a pixel ----

  function describe(maps, x, y) {
    const place = y * COLUMNS + x;
    const route = (name) => `${name} ${maps.mean[name](place)} ± ${format(maps.std[name](place), 3)}`;
    return [`row ${y * data.stride}, column ${x * data.stride}: real ${maps.real(place)}`, ...ROUTES.map(route)].join(", ");
  }

  function readout(maps, x, y) {
    const place = y * COLUMNS + x;
    const line = (name, value, colour) =>
      element("div", {}, element("dt", {}, element("span", { class: `key ${colour}` }), name), element("dd", {}, value));
    const route = (name) => `${maps.mean[name](place)} ± ${format(maps.std[name](place), 3)}`;
    const where = element("p", { class: "where" }, `Row ${y * data.stride}, column ${x * data.stride}`,
      element("small", {}, ` ${data.channels[channel]} channel, grey levels`));
    const list = element("dl", {}, line("real image", String(maps.real(place)), "series-c"),
      ...ROUTES.map((name, i) => line(name, route(name), ["series-a", "series-b"][i])));
    if (ROUTES.length === 1) return [where, list];
    if (!maps.histograms) {
      return [where, list, element("p", { class: "note" }, "No sample pictures were found: no histogram.")];
    }
    return [where, list, ...histogram(maps, x, y)];
  }

  function histogram(maps, x, y) {
    const step = data.histogram_stride / data.stride;
    const [column, row] = [Math.floor(x / step), Math.floor(y / step)];
    const place = row * step * COLUMNS + column * step;
    const width = maps.histograms.width / data.num_bins;
    const counts = Array.from({ length: data.num_bins }, (_, k) =>
      maps.histograms.bytes[4 * (row * maps.histograms.width + k * width + column)]);
    const found = {
      counts, real: maps.real(place), mean: maps.mean.nets(place), std: maps.std.nets(place),
      width: Math.max(1, Math.ceil(0.4 * maps.std.samples(place))),
    };
    found.first = maps.mean.samples(place) - Math.floor(data.num_bins / 2) * found.width - Math.floor(found.width / 2);
    let note = "Bars: samples (the outermost hold all beyond). Curve: normal law of the nets. Mark: the real value.";
    if (step > 1) {
      note += ` One pixel in ${data.histogram_stride} each way has a histogram; this one is of the block of row ` +
        `${row * data.histogram_stride}, column ${column * data.histogram_stride}.`;
    }
    return [drawHistogram(found), element("p", { class: "note" }, note)];
  }

  function drawHistogram({ counts, real, mean, std, width, first }) {
    const [WIDE, HIGH, BASE] = [300, 150, 128];
    const total = counts.reduce((sum, count) => sum + count, 0);
    const end = first + width * counts.length;
    const low = Math.min(first, real - 1, mean - 2.5 * std);
    const high = Math.max(end, real + 2, mean + 2.5 * std);
    const top = 1.25 * Math.max(...counts);
    // level v fills [v, v + 1): bars hold whole levels
    const across = (v) => (WIDE - 8) * (v - low) / (high - low) + 4;
    const up = (count) => BASE - (BASE - 8) * Math.min(1, count / top);
    const parts = counts.map((count, k) => element("rect", {
      class: "bar series-b", x: across(first + k * width) + 0.5, y: up(count),
      width: Math.max(0.5, across(width) - across(0) - 1), height: BASE - up(count),
    }));
    if (std > 0) {
      const density = (v) => total * width * Math.exp(-0.5 * ((v - mean) / std) ** 2) / (std * Math.sqrt(2 * Math.PI));
      const points = Array.from({ length: 121 }, (_, i) => low + (high - low) * i / 120);
      const path = points.map((v) => `${across(v + 0.5).toFixed(1)} ${up(density(v)).toFixed(1)}`).join("L");
      parts.push(element("path", { class: "line series-a", d: "M" + path }));
    }
    const mark = across(real + 0.5);
    parts.push(element("path", { class: "line series-c", d: `M${mark} ${BASE}V4` }));
    parts.push(element("path", { class: "mark series-c", d: `M${mark - 5} 2h10l-5 8z` }));
    parts.push(element("path", { class: "axis", d: `M4 ${BASE}H${WIDE - 4}` }));
    for (const v of [low, (low + high) / 2, high]) {
      const anchor = v === low ? "start" : v === high ? "end" : "middle";
      parts.push(element("text", { x: across(v), y: HIGH - 4, "text-anchor": anchor }, format(Math.round(v))));
    }
    const said = counts.map((count, k) => [count, first + k * width]).filter(([count]) => count > 0).map(([count, v]) =>
      `${Math.round(100 * count / total)} % ${width > 1 ? `${v} to ${v + width - 1}` : `at ${v}`}`);
    return element("svg", {
      class: "histogram", viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `Histogram of the samples: ${said.join(", ")}`,
    }, ...parts);
  }

  let waiting = 0;
  function announce(text) {
    clearTimeout(waiting); // a moving pointer is not read out pixel by pixel
    waiting = setTimeout(() => { $("announcer").textContent = text; }, 250);
  }

  // ---- the whole list ----

  const cards = data.images.map((image, index) => new Card(image, index));
  const list = $("images");
  let isAscending = true;

  function sort() {
    const key = Number($("sort").value);
    const sign = isAscending ? 1 : -1;
    const value = (card) => (key < 0 ? card.index : card.image.metrics[key]);
    const order = [...cards].sort((a, b) => {
      const [u, v] = [value(a), value(b)];
      if (u === null || v === null) return (u === null) - (v === null); // unknown ones last, either way
      return sign * (u - v) || a.index - b.index;
    });
    for (const card of order) {
      card.sorted.textContent = key < 0 ? "" : `${data.metric_labels[key]}: ${format(card.image.metrics[key])}`;
    }
    list.replaceChildren(...order.map((card) => card.node));
    $("order").textContent = isAscending ? "Ascending ↑" : "Descending ↓";
  }

  function sayOrder() {
    const chosen = $("sort").selectedOptions[0].textContent;
    announce(`Images by ${chosen}, ${isAscending ? "ascending" : "descending"}`);
  }

  function redraw() {
    for (const card of cards) if (card.isDrawn) card.draw();
  }

  function drawScale() {
    const bar = element("canvas", { width: 256, height: 1, role: "img", "aria-label":
      `Colour scale of error and std: dark is 0, bright is ${format(data.top, 3)} grey levels` });
    const context = bar.getContext("2d");
    COLOURS.forEach((colour, i) => {
      context.fillStyle = `rgb(${colour.join(",")})`;
      context.fillRect(i, 0, 1, 1);
    });
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => element("span", {}, format(share * data.top, 3)));
    $("scale").replaceChildren(element("p", {}, "Error and std, grey levels"), bar,
      element("div", { class: "ticks", "aria-hidden": "true" }, ...ticks));
  }

  $("sort").addEventListener("change", () => { sort(); sayOrder(); });
  $("order").addEventListener("click", () => { isAscending = !isAscending; sort(); sayOrder(); });
  if ($("more")) {
    $("more").addEventListener("click", () => {
      const next = list.children[4];
      list.classList.add("all");
      $("more").remove();
      next.querySelector(".viewer").focus();
      announce(`All ${cards.length} images are shown`);
    });
  }
  $("own-scale").addEventListener("change", () => {
    $("scale").hidden = $("own-scale").checked;
    redraw();
  });
  if ($("channel")) {
    $("channel").addEventListener("change", () => {
      channel = Number($("channel").value);
      redraw();
      for (const card of cards) if (card.pixel) card.show(...card.pixel);
    });
  }
  const byNode = new Map(cards.map((card) => [card.node, card]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const card = byNode.get(entry.target);
      if (entry.isIntersecting && !card.isDrawn) card.draw();
    }
  }, { rootMargin: "800px" });
  drawScale();
  sort();
  for (const card of cards) watcher.observe(card.node);
  // the others while there is nothing else to do, so that a printed page is complete
  const whenIdle = window.requestIdleCallback || ((work) => setTimeout(work, 200));
  const drawRest = async () => {
    const next = cards.find((card) => !card.isDrawn);
    if (!next) return;
    await next.draw();
    whenIdle(drawRest);
  };
  whenIdle(drawRest);
})();
