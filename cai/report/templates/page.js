// Filters of the long lists. The page is complete without this: every row is in it and opens by itself.
// The address keeps the choice, so that it can be sent on: #transcripts?principle=brief&search=hello
"use strict";

function fieldsOf(form) {
  return [...form.elements].filter((field) => field.name);
}

function valueOf(field) {
  return field.type === "checkbox" ? (field.checked ? field.value : "") : field.value;
}

function matches(row, choice) {
  for (const [name, wanted] of choice) {
    if (name === "search") {
      if (!row.textContent.toLowerCase().includes(wanted.toLowerCase())) return false;
    } else if (!row.dataset[name].split(" ").includes(wanted)) {
      return false;
    }
  }
  return true;
}

function apply(form) {
  const choice = fieldsOf(form).map((field) => [field.name, valueOf(field)]).filter(([, value]) => value);
  const rows = [...document.getElementById(form.dataset.for).querySelectorAll(".row")];
  for (const row of rows) row.hidden = !matches(row, choice);
  const shown = rows.filter((row) => !row.hidden).length;
  form.querySelector(".count").textContent = shown === rows.length ? `All ${shown} shown.` : `${shown} of ${rows.length} shown.`;
  return choice;
}

function remember(form, choice) {
  const query = new URLSearchParams(choice).toString();
  history.replaceState(null, "", `#${form.dataset.for}${query ? `?${query}` : ""}`);
}

function followAddress() {
  const [id, query] = location.hash.slice(1).split(/\?(.*)/s);
  const target = document.getElementById(id);
  if (!target) return;
  if (target.matches("details")) target.open = true;
  const form = document.querySelector(`form[data-for="${CSS.escape(id)}"]`);
  if (form && query !== undefined) {
    const wanted = new URLSearchParams(query);
    for (const field of fieldsOf(form)) {
      const value = wanted.get(field.name) ?? "";
      if (field.type === "checkbox") field.checked = value === field.value;
      else field.value = value;
    }
    apply(form);
  }
  target.scrollIntoView();
}

for (const form of document.querySelectorAll("form.filters")) {
  form.hidden = false;
  form.addEventListener("input", () => remember(form, apply(form)));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of form.querySelectorAll("button[data-do]")) {
    button.addEventListener("click", () => {
      for (const row of document.getElementById(form.dataset.for).querySelectorAll(".row:not([hidden])")) {
        row.open = button.dataset.do === "open";
      }
    });
  }
  apply(form);
}
window.addEventListener("hashchange", followAddress);
if (location.hash) followAddress();
