// The review page. All text goes into the page as text; the token comes from the address, and leaves it at once.
"use strict";

const CHOICES = {
  a: ["1", "A is better", "a"],
  b: ["2", "B is better", "b"],
  tie: ["3", "Tie", "t"],
  both_bad: ["4", "Both bad", "x"],
  good: ["1", "Good", "a"],
  bad: ["2", "Bad", "b"],
};
const ROLES = { system: "System", user: "User", assistant: "Assistant" };
// A browser needs many seconds to break a megabyte into lines. Of longer texts, blocks that are out of sight are not laid out.
const LONG = 20000;
const BLOCK = 4000;
const at = (id) => document.getElementById(id);

let token = "";
let reviewer = "";
let question = null;
let shownAt = 0;
let busy = false;
let keysOn = sessionStorage.getItem("keys") !== "off";

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- the server

async function ask(path, body) {
  const answer = await fetch(`/api/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Review-Token": token },
    body: JSON.stringify({ reviewer, ...body }),
  });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function wellFormed(text) {
  // Half a surrogate pair has no form in a request.
  return text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
}

async function guarded(action) {
  if (busy) return;
  busy = true;
  for (const button of at("verdict").querySelectorAll("button")) button.disabled = true;
  try {
    at("problem").hidden = true;
    await action();
  } catch (error) {
    const unreachable = error instanceof TypeError;
    at("problem").textContent = unreachable
      ? "The review does not answer: is `cai review` still running? Nothing you said before is lost; try again."
      : error.message;
    at("problem").hidden = false;
  } finally {
    busy = false;
    for (const button of at("verdict").querySelectorAll("button")) button.disabled = false;
    at("difference-button").disabled = !question || question.answers.length < 2;
  }
}

// ---- what is shown

function showTurns(turns) {
  const shown = turns.map(({ role, text }) => {
    const turn = element("div", `turn ${role}`);
    turn.append(element("b", "", ROLES[role] ?? role), scrollable(textOf([{ text }]), `${ROLES[role] ?? role}’s turn`));
    return turn;
  });
  at("conversation").replaceChildren(...shown);
}

function textOf(pieces) {
  // `same: false` marks a piece. Together the pieces are the text, to the last sign.
  const made = element("p", "text");
  const length = pieces.reduce((sum, { text }) => sum + text.length, 0);
  const node = (text, same) => (same ? document.createTextNode(text) : element("mark", "", text));
  if (length <= LONG) {
    made.append(...pieces.map(({ text, same = true }) => node(text, same)));
    return made;
  }
  let block = null;
  let room = 0;
  for (const { text, same = true } of pieces) {
    for (let start = 0; start < text.length; ) {
      if (room <= 0) {
        block = element("span", "block");
        made.append(block);
        room = BLOCK;
      }
      const end = blockEnd(text, start, start + Math.max(room, BLOCK / 8));
      block.append(node(text.slice(start, end), same));
      room = end < text.length ? 0 : room - (end - start);
      start = end;
    }
  }
  return made;
}

function blockEnd(text, start, end) {
  // After the last line there, else after the last word, and never within a sign.
  if (end >= text.length) return text.length;
  const here = text.slice(start, end);
  const gap = Math.max(here.lastIndexOf("\n"), 0) || Math.max(here.lastIndexOf(" "), 0);
  if (gap) return start + gap + 1;
  const half = text.charCodeAt(end);
  return half >= 0xdc00 && half <= 0xdfff ? end + 1 : end;
}

function scrollable(text, label) {
  // A box that scrolls must be reachable by keyboard, and have a name then; one that does not should not be a stop.
  requestAnimationFrame(() => {
    if (text.scrollHeight <= text.clientHeight + 1) return;
    text.tabIndex = 0;
    text.setAttribute("role", "region");
    text.setAttribute("aria-label", label);
  });
  return text;
}

function showAnswers(contents) {
  const single = contents.length === 1;
  const shown = contents.map((content, number) => {
    const letter = "AB"[number];
    const article = element("article", `answer ${letter.toLowerCase()}`);
    const title = element("h2", "", single ? "The answer" : letter);
    title.id = `answer-${letter}`;
    article.setAttribute("aria-labelledby", title.id);
    article.append(title, scrollable(textOf(content), single ? "The answer" : `Answer ${letter}`));
    return article;
  });
  at("answers").classList.toggle("single", single);
  at("answers").replaceChildren(...shown);
}

function plainAnswers() {
  showAnswers(question.answers.map((text) => [{ text }]));
}

function showChoices(choices) {
  const shown = choices.filter((said) => CHOICES[said]).map((said) => {
    const [key, label] = CHOICES[said];
    const button = element("button");
    button.type = "button";
    button.dataset.said = said;
    const hint = element("kbd", "", key);
    button.append(hint, ` ${label}`);
    button.addEventListener("click", () => judge(said));
    return button;
  });
  at("choices").replaceChildren(...shown);
}

function show(content, told) {
  question = content.question;
  const { judged, left } = content.progress;
  at("run").textContent = content.run;
  document.title = `${left} left · ${content.run} · Review`;
  at("bar").max = Math.max(1, judged + left);
  at("bar").value = judged;
  at("count").textContent = `${judged.toLocaleString("en")} judged, ${left.toLocaleString("en")} left`;
  at("ask").hidden = !question;
  at("nothing").hidden = Boolean(question);
  at("verdict").hidden = false;
  at("choices").hidden = !question;
  openNote(false);
  at("note").value = "";
  at("difference-button").setAttribute("aria-pressed", "false");
  if (question) {
    const single = question.answers.length === 1;
    at("question").textContent = single ? "Is this answer fit to be learned from?" : "Which answer is better?";
    showTurns(question.prompt);
    plainAnswers();
    showChoices(question.may_say);
    shownAt = performance.now();
    window.scrollTo(0, 0);
    at("question").focus();
  } else {
    at("nothing-title").focus();
  }
  at("said").textContent = told;
}

// ---- what reviewers do

function judge(said) {
  return guarded(async () => {
    if (!question) return;
    const content = await ask("verdict", {
      pair: question.pair,
      said,
      note: wellFormed(at("note").value.trim()),
      seconds: (performance.now() - shownAt) / 1000,
    });
    const label = said === "skip" ? "Skipped" : `Saved: ${CHOICES[said][1]}`;
    show(content, `${label}.`);
  });
}

function undo() {
  return guarded(async () => {
    const content = await ask("undo", {});
    if (content.question) show(content, "Your last verdict is taken back: judge again.");
    else at("said").textContent = "There is no verdict of yours to take back.";
  });
}

function difference() {
  return guarded(async () => {
    if (!question || question.answers.length < 2) return;
    const on = at("difference-button").getAttribute("aria-pressed") !== "true";
    if (on) {
      const { answers } = await ask("difference", { pair: question.pair });
      showAnswers(answers);
    } else {
      plainAnswers();
    }
    at("difference-button").setAttribute("aria-pressed", String(on));
    at("said").textContent = on ? "Words in which the answers differ are marked." : "Marks are off.";
  });
}

function openNote(open) {
  at("note-field").hidden = !open;
  at("note-button").setAttribute("aria-expanded", String(open));
  if (open) at("note").focus();
}

function openOverview() {
  return guarded(async () => {
    const found = await ask("overview", {});
    const parts = [element("p", "", `${found.open.toLocaleString("en")} of ${found.queued.toLocaleString("en")} still want a verdict.`)];
    if (found.waiting) parts.push(element("p", "problem", `${found.waiting}: they are not learned before.`));
    parts.push(element("h3", "", "Verdicts by reviewer"));
    const people = element("ul", "plain");
    for (const { name, verdicts } of found.reviewers) people.append(element("li", "", `${name}: ${verdicts.toLocaleString("en")}`));
    parts.push(found.reviewers.length ? people : element("p", "muted", "Nobody has judged anything yet."));
    parts.push(element("h3", "", "Conflicts"));
    const disputes = element("ul", "plain");
    for (const each of found.conflicts) {
      const line = element("li", "", each.prompt || each.uid);
      for (const { reviewer: name, judgement, note } of each.said) {
        line.append(element("span", "said-by", `${name}: ${judgement}${note ? ` — ${note}` : ""}`));
      }
      disputes.append(line);
    }
    parts.push(found.conflicts.length ? disputes : element("p", "muted", "Nobody contradicts anybody."));
    if (found.more_conflicts) parts.push(element("p", "muted", `… and ${found.more_conflicts} more: cai review RUN --conflicts`));
    at("overview").replaceChildren(...parts);
    at("overview-dialog").showModal();
  });
}

function setKeys(on) {
  keysOn = on;
  sessionStorage.setItem("keys", on ? "on" : "off");
  at("keys-on").checked = on;
  document.body.classList.toggle("keys-off", !on);
}

const ACTIONS = { skip: () => question && judge("skip"), note: () => openNote(at("note-field").hidden), difference, undo };
const KEYS = { s: ACTIONS.skip, n: ACTIONS.note, d: difference, u: undo, o: openOverview, "?": () => at("help-dialog").showModal() };

document.addEventListener("keydown", (event) => {
  if (event.target === at("note") && event.key === "Escape") {
    at("question").focus();
    return;
  }
  const typing = event.target.matches("input, textarea") || document.querySelector("dialog[open]");
  if (typing || !keysOn || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.toLowerCase();
  const said = question?.may_say.find((each) => CHOICES[each] && [CHOICES[each][0], CHOICES[each][2]].includes(key));
  if (said) judge(said);
  else if (Object.hasOwn(KEYS, key)) KEYS[key]();
  else return;
  event.preventDefault();
});
for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => ACTIONS[button.dataset.do]());
at("open-overview").addEventListener("click", openOverview);
at("open-help").addEventListener("click", () => at("help-dialog").showModal());
at("keys-on").addEventListener("change", (event) => setKeys(event.target.checked));
at("verdict").addEventListener("submit", (event) => event.preventDefault());

// ---- beginning

async function begin() {
  const content = await ask("next", {});
  sessionStorage.setItem("reviewer", reviewer);
  at("who").textContent = `reviewed by ${reviewer}`;
  show(content, "");
}

at("name-dialog").addEventListener("cancel", (event) => event.preventDefault());
at("name-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  reviewer = at("name").value.trim();
  try {
    await begin();
    at("name-dialog").close();
    at(question ? "question" : "nothing-title").focus();
  } catch (error) {
    at("name-problem").textContent = error.message;
    at("name-problem").hidden = false;
  }
});

const given = new URLSearchParams(location.hash.slice(1));
token = given.get("token") ?? sessionStorage.getItem("token") ?? "";
if (given.has("token")) {
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", location.pathname);
}
setKeys(keysOn);
if (!token) {
  at("problem").textContent = "The token is missing: open the whole address that `cai review` printed.";
  at("problem").hidden = false;
} else {
  at("name").value = sessionStorage.getItem("reviewer") ?? "";
  at("name-dialog").showModal();
}
