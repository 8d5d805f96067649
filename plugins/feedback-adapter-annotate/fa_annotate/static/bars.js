// Rows of labels: what the model says of each, without and with what was answered.

const SHOWN = 14;
const LEAST = 0.01; // smaller moves of a probability aren't marked

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function percent(p) {
  const points = 100 * p;
  if (points > 0 && points < 0.1) return "<0.1%";
  if (points < 100 && points > 99.5) return ">99%";
  return points < 9.95 ? `${points.toFixed(1)}%` : `${Math.round(points)}%`;
}

// A bar up to `from` that grows to `to`, with a tick at what the model alone says.
export function bar(before, from, to) {
  const fill = element("div", { className: "fill" });
  const tick = element("div", { className: "tick", title: `the model alone: ${percent(before)}` });
  fill.style.width = `${100 * from}%`;
  tick.style.left = `${100 * before}%`;
  if (from !== to) requestAnimationFrame(() => requestAnimationFrame(() => { fill.style.width = `${100 * to}%`; }));
  return element("div", { className: "track" }, fill, tick);
}

export function delta(from, to) {
  const points = Math.abs(to - from) < LEAST ? 0 : Math.round(100 * (to - from));
  if (!points) return element("span", { className: "delta" });
  const text = points > 0 ? `▲ ${points}` : `▼ ${-points}`;
  const made = element("span", { className: `delta ${points > 0 ? "up" : "down"}`, textContent: text });
  made.title = `${Math.abs(points)} percentage points ${points > 0 ? "up" : "down"} since your last answer`;
  return made;
}

// The labels that the last answer moved most, apart from those that were told.
export function showMoved(list, names, state, last, extra, most = 6) {
  const moves = names.map((name, i) => ({ name, i, from: last.after[i], to: state.after[i] }))
    .filter((m) => state.answers[m.i] === null && Math.abs(m.to - m.from) >= LEAST)
    .sort((a, b) => Math.abs(b.to - b.from) - Math.abs(a.to - a.from))
    .slice(0, most);
  list.replaceChildren(...moves.map((m) => element("li", { className: "row" },
    element("span", { className: "label", textContent: m.name }),
    bar(state.before[m.i], m.from, m.to),
    element("span", { className: "percent", textContent: `${percent(m.from)} → ${percent(m.to)}` }),
    delta(m.from, m.to),
    extra(m.i))));
  return moves.length;
}

// Every label in an order that stays as long as the photo does, so that bars move and rows don't.
export class Rows {
  constructor(list, more, filter, answer) {
    Object.assign(this, { list, more, filter, answer, rows: new Map(), all: false });
    more.addEventListener("click", () => { this.all = !this.all; this.arrange(); });
    filter.addEventListener("input", () => this.arrange());
  }

  open(names, state) {
    this.names = names;
    this.order = names.map((_, i) => i).sort((a, b) => state.before[b] - state.before[a]);
    this.rows.clear();
    this.all = false;
    this.filter.value = "";
    this.show(state, state, null);
  }

  show(state, last, asked) {
    Object.assign(this, { state, asked });
    for (const [i, row] of this.rows) this.fill(row, i, last);
    this.arrange();
  }

  arrange() {
    const words = this.filter.value.trim().toLowerCase();
    let shown = this.order;
    if (words) shown = shown.filter((i) => this.names[i].toLowerCase().includes(words)).slice(0, 60);
    else if (!this.all) {
      const first = new Set(this.order.slice(0, SHOWN));
      shown = shown.filter((i) => first.has(i) || this.state.answers[i] !== null || i === this.asked);
    }
    for (const i of shown) if (!this.rows.has(i)) this.rows.set(i, this.make(i));
    const wanted = shown.map((i) => this.rows.get(i));
    if (wanted.length !== this.list.children.length || wanted.some((row, k) => row !== this.list.children[k])) {
      this.list.replaceChildren(...wanted);
    }
    this.more.hidden = Boolean(words) || this.names.length <= SHOWN;
    this.more.textContent = this.all ? "Show fewer" : `Show all ${this.names.length}`;
  }

  make(i) {
    const yes = element("button", { type: "button", className: "yes", textContent: "yes" });
    const no = element("button", { type: "button", className: "no", textContent: "no" });
    for (const [button, value] of [[yes, 1], [no, 0]]) {
      button.setAttribute("aria-label", `${value ? "yes" : "no"}: ${this.names[i]}`);
      button.addEventListener("click", () => this.answer(i, this.state.answers[i] === value ? null : value));
    }
    const row = element("li", { className: "row" },
      element("span", { className: "label", textContent: this.names[i] }),
      bar(this.state.before[i], this.state.after[i], this.state.after[i]),
      element("span", { className: "percent" }),
      element("span", { className: "delta" }),
      element("span", { className: "pair" }, yes, no));
    row.dataset.label = this.names[i];
    this.fill(row, i, this.state);
    return row;
  }

  fill(row, i, last) {
    const { answers, after, skipped } = this.state;
    const told = answers[i];
    row.classList.toggle("told", told !== null);
    row.classList.toggle("present", told === 1);
    row.classList.toggle("absent", told === 0);
    row.classList.toggle("skipped", skipped.includes(i));
    row.classList.toggle("asked-now", i === this.asked);
    row.dataset.answer = told === null ? "not asked" : told ? "yes" : "no";
    row.dataset.after = after[i];
    row.querySelector(".fill").style.width = `${100 * after[i]}%`;
    row.querySelector(".percent").textContent = percent(after[i]);
    const moved = delta(last.after[i], after[i]);
    row.querySelector(".delta").replaceWith(moved);
    row.classList.remove("flash");
    if (moved.textContent) {
      void row.offsetWidth; // so that the animation starts again
      row.classList.add("flash");
    }
    row.querySelector(".pair .yes").setAttribute("aria-pressed", told === 1);
    row.querySelector(".pair .no").setAttribute("aria-pressed", told === 0);
  }
}
