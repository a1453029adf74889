// Long lists. Their rows lie in this file as deflated JSON (see `cai.report.listing`); those that are shown are unpacked, and every
// text goes into the page as text. The address keeps the choice, so that it can be sent on: #transcripts?changed_by=brief&page=2,
// and #transcripts?row=NAME is one row.
"use strict";

const ROWS_PER_PAGE = 50;
const OPEN_AT_FIRST = 2;
const CHUNKS_KEPT = 40;
const LONGEST_TEXT = 20000;
const REST_MS = 50;
const TELL_MS = 250;
const CHIPS = ["good", "bad", "unclear", "few", "after"];

function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

function pause() {
  return new Promise((resolve) => setTimeout(resolve));
}

function decoded(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let n = 0; n < binary.length; n += 1) bytes[n] = binary.charCodeAt(n);
  return bytes;
}

async function inflated(part) {
  const { readable, writable } = new DecompressionStream("deflate");
  const writer = writable.getWriter();
  const [text] = await Promise.all([new Response(readable).text(), writer.write(decoded(part.textContent)), writer.close()]);
  return text;
}

async function unpacked(part) {
  return JSON.parse(await inflated(part));
}

// ---- one row

function textsOf(body) {
  // Of a diff both texts, each as it reads: what is looked for may reach across a change.
  if (typeof body === "string") return [body];
  const [before, after] = [2, 1].map((other) => body.filter((_, n) => n % 3 !== other).join(""));
  return [before, after];
}

function holds(row, search) {
  const bodies = row.b.flatMap((turn) => [turn.x ?? "", turn.d ?? "", ...(turn.s ?? []).map((side) => side.x ?? "")]);
  return bodies.some((body) => textsOf(body).some((text) => text.toLowerCase().includes(search)));
}

function heading(parts) {
  return parts.map((part) => {
    if (typeof part === "string") return document.createTextNode(part);
    const [name, text] = part;
    if (name === "swatch") return element("i", `swatch ${text}`);
    if (name !== "principle") return element("span", CHIPS.includes(name) ? `chip ${name}` : name, text);
    const link = element("a", "principle", text);
    link.href = `#p-${encodeURIComponent(text)}`;
    return link;
  });
}

function piecesOf(body, left, sides) {
  // [element, text] each. `sides`: both texts of a diff have a place of their own; `left` is the first.
  if (typeof body === "string") return [["", body]];
  return body.flatMap((text, n) => {
    if (!text || (sides && n % 3 === (left ? 2 : 1))) return [];
    return [[["", sides ? "del quiet" : "del", "ins"][n % 3], text]];
  });
}

function beginning(text, room) {
  // As much as there is room for, up to the end of a line or a word if one is near.
  if (text.length <= room) return text;
  const line = text.lastIndexOf("\n", room - 1);
  const word = text.lastIndexOf(" ", room - 1);
  const end = line > room / 2 ? line + 1 : word > room / 2 ? word + 1 : room;
  return text.slice(0, end > 1 && /[\ud800-\udbff]/.test(text[end - 1]) ? end - 1 : end);
}

function fill(box, pieces, most) {
  // In blocks of a bounded length: a browser breaks the lines of one block all at once.
  let block = element("div", "block");
  let room = LONGEST_TEXT;
  let left = most;
  box.replaceChildren(block);
  for (const [kind, whole] of pieces) {
    const [name, className] = kind.split(" ");
    for (let text = whole.slice(0, left); text; ) {
      if (room < LONGEST_TEXT / 2 && text.length > room) {
        block = element("div", "block");
        box.append(block);
        room = LONGEST_TEXT;
      }
      const part = beginning(text, room);
      block.append(name ? element(name, className, part) : part);
      text = text.slice(part.length);
      left -= part.length;
      room -= part.length;
    }
  }
}

function textBox(body, label, left = true, sides = false) {
  const pieces = piecesOf(body, left, sides);
  const whole = pieces.reduce((sum, [, text]) => sum + text.length, 0);
  const box = element("div", "text");
  box.dir = "auto";
  fill(box, pieces, LONGEST_TEXT);
  if (!whole) box.append(element("span", "muted", "(nothing)"));
  reachable(box, label);
  if (whole <= LONGEST_TEXT) return [box];
  const more = element("button", "more", `show all ${whole.toLocaleString("en")} characters`);
  more.type = "button";
  more.addEventListener("click", () => {
    fill(box, pieces, Infinity);
    more.remove();
  });
  return [box, more];
}

function reachable(box, label) {
  // A box that scrolls must be reachable by keyboard, and have a name then; one that does not should not be a stop.
  requestAnimationFrame(() => {
    if (box.scrollHeight <= box.clientHeight + 1) return;
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", label);
  });
}

function turnOf(turn) {
  if (turn.k === "note") return element("p", "muted", turn.x);
  if (turn.k !== "sides") {
    const title = heading(turn.h);
    const made = element("div", `turn ${turn.k}`, element("h4", "", ...spaced(title)));
    made.append(...textBox(turn.x, turn.k));
    if (turn.n) made.append(element("ul", "checks", ...turn.n.map(([name, text]) => element("li", name, text))));
    return made;
  }
  return element("div", "sides", ...turn.s.map((side, n) => {
    const made = element("section", n ? "later" : "", element("h4", "", side.h));
    made.append(...textBox(turn.d ?? side.x, side.h, n === 0, Boolean(turn.d)));
    if (side.n.length) made.append(element("p", "judged", ...spaced(heading(side.n))));
    return made;
  }));
}

function spaced(nodes) {
  return nodes.flatMap((node) => [node, " "]);
}

function bodyOf(row, address) {
  const link = element("a", "link", "link to this row");
  link.href = address;
  const end = element("p", "end", ...heading(row.e), " · ", link);
  return element("div", "body", ...row.b.map(turnOf), end);
}

function rowOf(row, number, name, list) {
  const line = element("span", "line", row.l);
  line.dir = "auto";
  const tags = row.t.map(([tone, words]) => (tone ? element("span", `chip ${tone}`, words) : words));
  const made = element("details", "row", element("summary", "", line, element("span", "tags", ...spaced(tags))));
  made.id = `${list}-${number}`;
  made.dataset.name = name;
  const unfold = () => {
    if (made.open && !made.querySelector(".body")) made.append(bodyOf(row, `#${list}?${new URLSearchParams({ row: name })}`));
  };
  made.addEventListener("toggle", unfold);
  made.openUp = () => {
    made.open = true;
    unfold();
  };
  return made;
}

// ---- one list

class List {
  constructor(form) {
    this.id = form.dataset.for;
    this.form = form;
    this.box = document.querySelector(`[data-rows="${this.id}"]`);
    this.pager = document.querySelector(`[data-pager="${this.id}"]`);
    this.count = form.querySelector(".count");
    this.parts = [...document.querySelectorAll(`script[data-list="${this.id}"]`)];
    this.index = unpacked(this.parts[0]);
    this.chunks = new Map();
    this.numbers = [];
    this.page = 0;
    this.run = 0;
    this.searchedLast = null;
    form.hidden = false;
    form.addEventListener("input", (event) => this.changed(event.target.name === "search" ? 200 : 0));
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const button of form.querySelectorAll("button[data-do]")) {
      button.addEventListener("click", () => {
        for (const row of this.box.children) {
          if (button.dataset.do === "open") row.openUp();
          else row.open = false;
        }
      });
    }
    for (const button of this.pager.querySelectorAll("button")) {
      button.addEventListener("click", () => this.turn(this.page + Number(button.dataset.turn)));
    }
    this.pager.querySelector("input").addEventListener("change", (event) => this.turn(Number(event.target.value) - 1));
  }

  get choice() {
    const fields = [...this.form.elements].filter((field) => field.name && field.value);
    return fields.map((field) => [field.name, field.value]);
  }

  changed(wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.apply().then((done) => done && this.remember()), wait);
  }

  // -- reading

  chunkOf(number, starts) {
    let low = 0;
    let high = starts.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (starts[middle] <= number) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  chunk(number) {
    const known = this.chunks.get(number) ?? unpacked(this.parts[number + 1]);
    this.chunks.delete(number);
    this.chunks.set(number, known);
    if (this.chunks.size > CHUNKS_KEPT) this.chunks.delete(this.chunks.keys().next().value);
    return known;
  }

  async row(number) {
    const { starts } = await this.index;
    const chunk = this.chunkOf(number, starts);
    return (await this.chunk(chunk))[number - starts[chunk]];
  }

  // -- choosing

  async apply(page = 0, opened = page > 0 ? 0 : OPEN_AT_FIRST) {
    this.run += 1;
    const run = this.run;
    const { profiles, rows } = await this.index;
    const choice = this.choice;
    const wanted = choice.filter(([name]) => name !== "search");
    const search = choice.find(([name]) => name === "search")?.[1].toLowerCase();
    const fits = profiles.map((profile) => wanted.every(([name, value]) => (profile[name] ?? []).includes(value)));
    let numbers = [];
    for (let n = 0; n < rows.length; n += 1) if (fits[rows[n]]) numbers.push(n);
    if (search) numbers = await this.found(numbers, wanted, search, run);
    if (run !== this.run) return false;
    this.numbers = numbers;
    this.count.textContent = numbers.length === rows.length ? `All ${rows.length} rows.` : `${numbers.length} of ${rows.length} rows.`;
    return this.show(page, choice.length ? 0 : opened, run);
  }

  async found(numbers, wanted, search, run) {
    // Who types on narrows what was found, if it was found among the same rows.
    const last = this.searchedLast;
    const among = JSON.stringify(wanted);
    const narrower = last && last.among === among && search.includes(last.search);
    const found = await this.searched(narrower ? last.found : numbers, search, run);
    if (run === this.run) this.searchedLast = { among, search, found };
    return found;
  }

  async searched(numbers, search, run) {
    // A word of ASCII stands whole in what is packed, whatever was changed around it: where it is not, nothing is read.
    const words = search.match(/[a-z0-9]+/g) ?? [];
    const { starts } = await this.index;
    const found = [];
    let rested = performance.now();
    let told = rested;
    for (let n = 0; n < numbers.length && run === this.run; ) {
      const chunk = this.chunkOf(numbers[n], starts);
      const text = await inflated(this.parts[chunk + 1]);
      const packed = text.toLowerCase();
      const rows = words.every((word) => packed.includes(word)) ? JSON.parse(text) : null;
      const end = starts[chunk + 1] ?? Infinity;
      for (; n < numbers.length && numbers[n] < end; n += 1) {
        if (rows && holds(rows[numbers[n] - starts[chunk]], search)) found.push(numbers[n]);
      }
      const now = performance.now();
      if (now - rested < REST_MS) continue;
      if (now - told > TELL_MS && run === this.run) {
        this.count.textContent = `${found.length} found; ${Math.floor((100 * n) / numbers.length)} % searched …`;
        told = now;
      }
      await pause();
      rested = performance.now();
    }
    return found;
  }

  // -- showing

  async show(page, opened, run = this.run) {
    const { names } = await this.index;
    const pages = Math.max(1, Math.ceil(this.numbers.length / ROWS_PER_PAGE));
    const wanted = Math.min(Math.max(0, page || 0), pages - 1);
    const numbers = this.numbers.slice(wanted * ROWS_PER_PAGE, (wanted + 1) * ROWS_PER_PAGE);
    const rows = await Promise.all(numbers.map((number) => this.row(number)));
    if (run !== this.run) return false;
    this.page = wanted;
    this.box.replaceChildren(...rows.map((row, n) => rowOf(row, numbers[n], names[numbers[n]], this.id)));
    for (const row of [...this.box.children].slice(0, opened)) row.openUp();
    this.pager.hidden = pages < 2;
    this.pager.querySelector("input").value = wanted + 1;
    this.pager.querySelector("input").max = pages;
    this.pager.querySelector(".pages").textContent = `of ${pages.toLocaleString("en")}`;
    this.pager.querySelector('[data-turn="-1"]').disabled = wanted === 0;
    this.pager.querySelector('[data-turn="1"]').disabled = wanted === pages - 1;
    return true;
  }

  async turn(page) {
    if (!(await this.show(page, 0))) return;
    this.remember();
    this.form.scrollIntoView();
  }

  remember() {
    const query = new URLSearchParams([...this.choice, ...(this.page ? [["page", this.page + 1]] : [])]).toString();
    history.replaceState(null, "", `#${this.id}${query ? `?${query}` : ""}`);
  }

  async follow(query) {
    const wanted = new URLSearchParams(query);
    for (const field of [...this.form.elements].filter((each) => each.name)) {
      field.value = wanted.get(field.name) ?? "";
    }
    const unknown = [...wanted.keys()].filter((name) => !["row", "page"].includes(name) && !this.form.elements[name]);
    const senseless = [...this.form.elements].some((field) => field.name && field.value !== (wanted.get(field.name) ?? ""));
    if (unknown.length || senseless) return this.none();
    const number = (await this.index).names.indexOf(wanted.get("row"));
    if (!wanted.has("row")) return this.apply(Number(wanted.get("page")) - 1);
    if (number < 0) return this.none();
    if (!(await this.apply(Math.floor(number / ROWS_PER_PAGE), 0))) return false;
    const row = document.getElementById(`${this.id}-${number}`);
    row.openUp();
    row.scrollIntoView();
    return true;
  }

  none() {
    this.run += 1;
    this.numbers = [];
    this.count.textContent = "No row has what this address asks for.";
    return this.show(0, 0);
  }
}

// ---- the address

const lists = new Map([...document.querySelectorAll("form.filters")].map((form) => [form.dataset.for, new List(form)]));

async function followAddress() {
  const [id, query] = location.hash.slice(1).split(/\?(.*)/s);
  for (const [name, list] of lists) {
    if (name === id && query) await list.follow(query);
    else if (!list.run) await list.apply();
  }
  let place = id;
  try {
    place = decodeURIComponent(id);
  } catch {
    // An address that somebody cut short.
  }
  const target = document.getElementById(id) ?? document.getElementById(place);
  if (target && !new URLSearchParams(query).has("row")) target.scrollIntoView();
}

window.addEventListener("hashchange", followAddress);
document.documentElement.dataset.ready = "no";
followAddress().finally(() => (document.documentElement.dataset.ready = "yes"));
