"use strict";
(() => {
const LIMIT = matchMedia("(max-width: 44rem)").matches ? 12 : 60, SVG = "http://www.w3.org/2000/svg";
const data = JSON.parse(document.getElementById("data").textContent);
const words = new Intl.Collator("en", {numeric: true, sensitivity: "base"});
const make = (tag, props, ...children) => { const made = Object.assign(document.createElement(tag), props); made.append(...children); return made; };
const draw = (tag, attributes, ...children) => {
  const made = document.createElementNS(SVG, tag);
  for (const name in attributes) made.setAttribute(name, attributes[name]);
  made.append(...children);
  return made;
};
const plain = (value, digits = 2) => value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
const signed = value => value === null || value === undefined ? "–" : (Math.abs(value) < 0.005 ? "" : value > 0 ? "+" : "") + plain(Math.abs(value) < 0.005 ? 0 : value);
const range = triple => triple ? plain(triple[0]) + " (" + plain(triple[1]) + "–" + plain(triple[2]) + ")" : "–";
const choice = (label, names, change) => {
  const select = make("select", {}, ...names.map((name, value) => make("option", {value, textContent: name})));
  select.addEventListener("change", change);
  const field = make("label", {hidden: names.length < 2}, label, select);
  return {field, get value() { return Number(select.value); }};
};

/* A table that sorts by a click on its head and shows the rows that hold every word typed; `replace` gives it others. */
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], limit = Number(table.dataset.limit ?? LIMIT);
  const state = {rows: [...body.rows], column: -1, down: false, all: false};
  const filter = make("input", {type: "search", placeholder: "filter by name"});
  filter.setAttribute("aria-label", "Show rows with");
  const by = make("select", {}, make("option", {value: -1, textContent: "as listed"}));
  const turn = make("button", {type: "button", textContent: "↑↓"});
  turn.setAttribute("aria-label", "Turn the order round");
  const count = make("output", {});
  const all = make("button", {type: "button"}), below = make("div", {className: "tools more"}, all);
  const text = row => row.dataset.text ??= [...row.cells].filter(cell => !cell.classList.contains("n")).map(cell => cell.textContent).join(" ").toLowerCase();
  const key = row => { const cell = row.cells[state.column]; return cell.dataset.v ?? cell.textContent; };
  const compare = ([a], [b]) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = heads[state.column].classList.contains("n") ? a - b : words.compare(a, b);
    return state.down ? -order : order;
  };
  const show = () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let rows = state.rows.filter(row => wanted.every(word => text(row).includes(word)));
    if (state.column >= 0) rows = rows.map(row => [key(row), row]).sort(compare).map(pair => pair[1]);
    const cut = state.all ? rows : rows.slice(0, limit);
    body.replaceChildren(...cut);
    count.textContent = (rows.length === state.rows.length ? "" : rows.length + " of ") + state.rows.length + (state.rows.length === 1 ? " row" : " rows");
    below.hidden = cut.length === rows.length;
    all.textContent = "Show all " + rows.length;
    heads.forEach((head, column) => { if (head.dataset.still === undefined) head.setAttribute("aria-sort", column !== state.column ? "none" : state.down ? "descending" : "ascending"); });
    by.value = state.column;
  };
  const sort = column => { state.down = column === state.column && !state.down; state.column = column; show(); };
  heads.forEach((head, column) => {
    if (head.dataset.still !== undefined) return;
    by.append(make("option", {value: column, textContent: head.textContent}));
    const button = make("button", {type: "button", textContent: head.textContent});
    button.addEventListener("click", () => sort(column));
    head.replaceChildren(button);
  });
  filter.addEventListener("input", show);
  by.addEventListener("change", () => { state.column = Number(by.value); state.down = false; show(); });
  turn.addEventListener("click", () => { state.down = !state.down; show(); });
  all.addEventListener("click", () => { state.all = true; show(); });
  const tools = make("div", {className: "tools"}, filter, make("label", {className: "by"}, "sort by", by, turn), count);
  (table.closest(".scroll") ?? table).before(tools);
  (table.closest(".scroll") ?? table).after(below);
  show();
  return {replace(rows) { state.rows = rows; show(); }};
}

/* One line per prompt: a ring for the original, a dot for the variant. */
function dots() {
  const box = document.getElementById("dots"), others = data.variants.slice(1).map(variant => variant[0]);
  const target = choice("target", data.targets.map(one => one.name), () => fill());
  const variant = choice("variant", others, () => fill());
  const classifier = choice("classifier", data.classifiers, () => fill());
  const axis = draw("svg", {class: "axis", "aria-hidden": "true"});
  const at = make("th", {className: "at"}, axis);
  at.dataset.still = "";
  const head = name => make("th", {className: name === "prompt" ? "" : "n", scope: "col", textContent: name});
  const table = make("table", {}, make("thead", {}, make("tr", {}, head("prompt"), at, ...["before", "after", "change"].map(head))), make("tbody"));
  const about = make("p", {className: "faint"});
  const ring = draw("svg", {}, draw("circle", {cx: 8, cy: 7, r: 4.5, fill: "none", stroke: "var(--before)", "stroke-width": 2}));
  const full = draw("svg", {}, draw("circle", {cx: 8, cy: 7, r: 5, fill: "var(--after)"}));
  const after = make("span", {}, full, "with the variant");
  const key = make("div", {className: "legend"}, make("span", {}, ring, data.variants[0][0] + " (before)"), after);
  after.hidden = !others.length;
  const classes = document.getElementById("classes");
  box.replaceChildren(make("div", {className: "tools"}, target.field, variant.field, classifier.field), about, key, table);
  const handle = sortable(table);

  const shares = (rows, p, classes) => classes.map((name, k) => name + " " + rows.p[p * classes.length + k] + "%").join(", ");
  const lane = (rows, p, y, before, bound, classes, figure) => {
    if (rows.v[p] === null) return [];
    const x = value => (value / bound / 10).toFixed(2) + "%", colour = before ? "var(--before)" : "var(--after)";
    const said = (before ? "before" : "after") + ": " + figure + " " + plain(rows.v[p] / 1000) + ", 95 % interval " + plain(rows.l[p] / 1000) + " to " + plain(rows.h[p] / 1000) + "; " + shares(rows, p, classes);
    return [
      draw("line", {x1: x(rows.l[p]), x2: x(rows.h[p]), y1: y, y2: y, stroke: colour, "stroke-width": 6, "stroke-linecap": "round", opacity: .3}),
      draw("circle", {cx: x(rows.v[p]), cy: y, r: before ? 4 : 5, fill: before ? "var(--card)" : colour, stroke: colour, "stroke-width": before ? 2 : 0}, draw("title", {}, said)),
    ];
  };
  const line = (before, now, p, bound, classes, figure, named) => {
    if (named) return make("small", {textContent: "the prompt names it: " + named});
    const count = typeof now.n === "number" ? now.n : now.n[p];
    const floor = now.floors[count];
    const svg = draw("svg", {role: "img"}, draw("line", {x1: 0, x2: "100%", y1: 17, y2: 17, stroke: "var(--rule)"}));
    if (floor !== undefined) {
      const x = (floor / bound / 10).toFixed(2) + "%";
      svg.append(draw("rect", {x: 0, y: 0, width: x, height: 34, fill: "var(--faint)", opacity: .13}), draw("line", {x1: x, x2: x, y1: 0, y2: 34, stroke: "var(--faint)", "stroke-dasharray": "2 3"}));
    }
    const same = before === now;
    svg.append(...lane(before, p, same ? 17 : 10, true, bound, classes, figure), ...(same ? [] : lane(now, p, 24, false, bound, classes, figure)));
    svg.setAttribute("aria-label", [...svg.querySelectorAll("title")].map(title => title.textContent).join(". "));
    return svg;
  };
  const cell = (label, value, write) => {
    const made = make("td", {className: "n", textContent: write(value)});
    made.dataset.label = label;
    made.dataset.v = value === null ? "" : value;
    return made;
  };
  const points = value => value === null ? "–" : (value > 0 ? "+" : "") + String(value).replace("-", "−");
  const share = value => value === null ? "–" : value + "%";
  /* A row for all prompts and one for each: every class before and after, coloured by what data.changes says of it. */
  const changed = (found, names, named) => {
    const table = make("table", {}, make("thead", {}, make("tr", {}, head("prompt"), ...names.map(name => make("th", {className: "n", scope: "col", textContent: name})))), make("tbody"));
    const titles = [[named.some(Boolean) ? "all prompts that do not name it" : "all prompts", ""], ...data.prompts];
    classes.replaceChildren(make("div", {className: "scroll"}, table));
    sortable(table).replace(titles.map(([label, prompt], row) => {
      const made = make("tr", {}, make("th", {scope: "row", title: prompt, textContent: label}, ...(row && named[row - 1] ? [make("small", {textContent: " names it"})] : [])), ...names.map((name, k) => {
        const at = row * names.length + k, [was, is] = [found.b[at], found.a[at]];
        const made = cell(name, was === null ? null : is - was, () => share(was) + " → " + share(is) + " ");
        made.append(make("small", {textContent: points(found.l[at]) + " to " + points(found.h[at])}));
        made.classList.add(...{"+": ["better"], "-": ["worse"], " ": []}[found.marks[at]]);
        return made;
      }));
      made.dataset.text = (label + " " + prompt).toLowerCase();
      return made;
    }).slice(named.length && named.every(Boolean) ? 1 : 0));
  };
  const fill = () => {
    const {classes: names, figure, most: bound, aimed, named, open} = data.targets[target.value], found = data.rows[classifier.value][target.value];
    const before = found[0], now = others.length ? found[variant.value + 1] : before;
    axis.replaceChildren(...[[0, "start"], [.5, "middle"], [1, "end"]].map(([part, anchor]) => draw("text", {x: 100 * part + "%", y: 12, "text-anchor": anchor}, String(+(part * bound).toFixed(3)))));
    about.textContent = figure[0].toUpperCase() + figure.slice(1) + ", mean over prompts: " + data.variants[0][0] + " " + range(before.mean) + (before === now ? "" : "; " + others[variant.value] + " " + range(now.mean)
      + "; change " + (now.change ? signed(now.change[0]) + " (" + signed(now.change[1]) + " to " + signed(now.change[2]) + ")" : "–") + ". " + (100 * now.same).toFixed(0) + "% of the images keep their class");
    about.textContent += ". Noise floor " + plain(now.floor) + ".";
    if (open < data.prompts.length) about.textContent = open ? "Over the " + open + " prompts that do not name it. " + about.textContent : "Every prompt names it, so there is no bias of it.";
    const change = others.length ? data.changes[classifier.value][target.value][variant.value] : null;
    classes.hidden = !change;
    if (change) {
      if (open && !aimed[Number(variant.value) + 1]) about.textContent += " Not aimed at: what counts is the distance from the original, a shift of " + range(change.shift) + ", floor " + plain(change.floor) + ".";
      changed(change, names, named);
    }
    handle.replace(data.prompts.map(([label, prompt], p) => {
      const was = before.v[p] === null ? null : before.v[p] / 1000, is = now.v[p] === null ? null : now.v[p] / 1000;
      const row = make("tr", {}, make("th", {scope: "row", title: prompt, textContent: label}), make("td", {}, line(before, now, p, bound, names, figure, named[p])),
        cell("before", was, plain), cell("after", before === now ? null : is, plain), cell("change", was === null || is === null || before === now ? null : is - was, signed));
      row.dataset.text = (label + " " + prompt).toLowerCase();
      return row;
    }));
  };
  fill();
}

/* Bias, or distance from the target, against similarity: a line per adaptor over its strengths, a point per baseline. */
function pareto() {
  const known = data.encoders.map((name, index) => [name, index]).filter(([, index]) => data.similarity[index].some(Boolean));
  const told = data.targets.map((one, t) => t).filter(t => data.targets[t].open);
  if (!known.length || !told.length) return;
  const box = document.getElementById("pareto"), card = box.querySelector(".card");
  box.hidden = false;
  const target = choice("target", told.map(t => data.targets[t].name), () => fill());
  const encoder = choice("encoder", known.map(pair => pair[0]), () => fill());
  const classifier = choice("classifier", data.classifiers, () => fill());
  const plot = draw("svg", {class: "plot", role: "img", "aria-label": "Fairness against similarity; the numbers are in the first table"});
  const key = make("div", {className: "legend"});
  card.append(make("div", {className: "tools"}, target.field, encoder.field, classifier.field), key, plot);
  const groups = new Map();
  data.variants.forEach(([name, adaptor, weight], v) => { if (v) groups.set(adaptor ?? name, [...groups.get(adaptor ?? name) ?? [], {v, adaptor, weight}]); });
  const style = [...groups.keys()].map((name, k) => ({name, colour: "var(--c" + k % 8 + ")", shape: k % 4}));
  const shape = (kind, x, y, fill, ...children) => {
    const points = [null, "-5,-5 5,-5 5,5 -5,5", "0,-6.5 6.5,0 0,6.5 -6.5,0", "0,-6 6,5 -6,5"][kind];
    return draw("g", {transform: "translate(" + x.toFixed(1) + " " + y.toFixed(1) + ")"}, kind ? draw("polygon", {points, fill, stroke: "var(--card)"}) : draw("circle", {r: 5.5, fill, stroke: "var(--card)"}), ...children);
  };
  const ring = (x, y) => draw("circle", {cx: x, cy: y, r: 5.5, fill: "var(--card)", stroke: "var(--before)", "stroke-width": 2.5});
  key.append(make("span", {}, draw("svg", {}, ring(8, 7)), data.variants[0][0]), ...style.map(one => make("span", {}, draw("svg", {}, shape(one.shape, 8, 7, one.colour)), one.name)));
  const ticks = (low, high) => {
    const raw = (high - low) / 6, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find(part => part * power >= raw) * power;
    return Array.from({length: Math.floor(high / step + 1e-9) - Math.ceil(low / step - 1e-9) + 1}, (_, k) => (Math.ceil(low / step - 1e-9) + k) * step);
  };
  const fill = () => {
    const {figure, aimed} = data.targets[told[target.value]], found = data.rows[classifier.value][told[target.value]], similar = data.similarity[known[encoder.value][1]];
    const points = found.map((rows, v) => v && rows.mean && similar[v] && {v, x: similar[v], y: rows.mean});
    const inside = points.filter(Boolean), width = card.clientWidth - parseFloat(getComputedStyle(card).paddingLeft) * 2, height = Math.min(440, Math.max(260, width * .5));
    const low = Math.min(.98, ...inside.map(p => p.x[1] ?? p.x[0])), start = low - (1 - low) * .06, top = 1.06 * Math.max(.05, found[0].floor ?? 0, found[0].mean ? found[0].mean[2] : 0, ...inside.map(p => p.y[2] ?? p.y[0]));
    const X = value => 40 + (value - start) / (1 - start) * (width - 60), Y = value => height - 40 - value / top * (height - 64);
    plot.setAttribute("viewBox", "0 0 " + width + " " + height);
    plot.setAttribute("height", height);
    plot.replaceChildren();
    for (const tick of ticks(start, 1)) plot.append(draw("line", {x1: X(tick), x2: X(tick), y1: 24, y2: height - 40, stroke: "var(--rule)"}), draw("text", {x: X(tick), y: height - 24, "text-anchor": "middle"}, String(+tick.toFixed(4))));
    for (const tick of ticks(0, top)) plot.append(draw("line", {x1: 40, x2: width - 20, y1: Y(tick), y2: Y(tick), stroke: "var(--rule)"}), draw("text", {x: 34, y: Y(tick) + 4, "text-anchor": "end"}, String(+tick.toFixed(4))));
    plot.append(draw("text", {x: (width + 20) / 2, y: height - 5, "text-anchor": "middle"}, "similarity to the original"), draw("text", {x: 0, y: 8}, figure + (aimed.some(Boolean) ? "" : ", which nothing aims at")));
    if (found[0].floor !== null) plot.append(draw("line", {x1: 40, x2: width - 20, y1: Y(found[0].floor), y2: Y(found[0].floor), stroke: "var(--faint)", "stroke-dasharray": "2 3"}), draw("text", {x: 44, y: Y(found[0].floor) - 5}, "noise floor"));
    if (found[0].mean) plot.append(draw("line", {x1: X(1), x2: X(1), y1: Y(found[0].mean[1]), y2: Y(found[0].mean[2]), stroke: "var(--before)", "stroke-width": 2, opacity: .4}), ring(X(1), Y(found[0].mean[0])));
    const taken = [[44, Y(found[0].floor ?? 0) - 16, 66, 14], ...inside.map(p => [X(p.x[0]) - 7, Y(p.y[0]) - 7, 14, 14])];
    style.forEach(({name, colour, shape: kind}) => {
      const members = groups.get(name).filter(one => points[one.v]).sort((a, b) => a.weight - b.weight), at = members.map(one => points[one.v]);
      at.forEach(p => plot.append(draw("line", {x1: X(p.x[1] ?? p.x[0]), x2: X(p.x[2] ?? p.x[0]), y1: Y(p.y[0]), y2: Y(p.y[0]), stroke: colour, "stroke-width": 2, opacity: .35}), draw("line", {x1: X(p.x[0]), x2: X(p.x[0]), y1: Y(p.y[1] ?? p.y[0]), y2: Y(p.y[2] ?? p.y[0]), stroke: colour, "stroke-width": 2, opacity: .35})));
      plot.append(draw("polyline", {points: at.map(p => X(p.x[0]) + "," + Y(p.y[0])).join(" "), fill: "none", stroke: colour, "stroke-width": 2}));
      at.forEach((p, k) => {
        plot.append(shape(kind, X(p.x[0]), Y(p.y[0]), colour, draw("title", {}, data.variants[p.v][0] + ": similarity " + range(p.x) + ", " + figure + " " + range(p.y))));
        const label = members[k].adaptor === null ? name.slice(0, 20) : "× " + members[k].weight, size = label.length * 6.5;
        const place = [[8, -6], [-8 - size, -6], [8, 15], [-8 - size, 15]].map(([dx, dy]) => [X(p.x[0]) + dx, Y(p.y[0]) + dy - 10, size, 13]).find(([x, y, w, h]) => x > 40 && x + w < width && !taken.some(([a, b, c, d]) => x < a + c && a < x + w && y < b + d && b < y + h));
        if (place) { taken.push(place); plot.append(draw("text", {x: place[0], y: place[1] + 10}, label)); }
      });
    });
  };
  let width = card.clientWidth;
  fill();
  new ResizeObserver(() => { if (card.clientWidth !== width) { width = card.clientWidth; fill(); } }).observe(card);
}

document.querySelectorAll("table.sortable").forEach(sortable);
dots();
pareto();
})();
