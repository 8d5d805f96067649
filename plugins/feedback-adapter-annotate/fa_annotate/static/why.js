// Which answers moved a label, and where in the photo the network changed its mind.

import { Refused, ask, withQuery } from "/static/api.js";
import { element, percent } from "/static/bars.js";

const $ = (id) => document.getElementById(id);

// A button that says why a label moved.
export function whyButton(open, name) {
  const button = element("button", { type: "button", className: "why", textContent: "why?" });
  button.setAttribute("aria-label", `Why did ${name} move?`);
  button.addEventListener("click", open);
  return button;
}

function share(row, most) {
  const fill = element("div", { className: `fill ${row.share < 0 ? "less" : "more"}` });
  fill.style.width = `${(50 * Math.abs(row.share)) / most}%`;
  const points = 100 * row.share;
  const text = Math.abs(points) < 0.05 ? "0" : `${points > 0 ? "+" : "−"}${Math.abs(points).toFixed(1)}`;
  return element("li", { className: "row share" },
    element("span", { className: "label", textContent: row.evidence }),
    element("div", { className: "track" }, fill),
    element("span", { className: "percent", textContent: text }));
}

export async function showWhy(state, index, name, query) {
  $("why-title").textContent = `Why did “${name}” move?`;
  $("why-note").textContent = "Refining again, with some of your answers each time …";
  $("why-list").replaceChildren();
  $("why-map").hidden = true;
  if (!$("why").open) $("why").showModal();
  let told;
  try {
    told = await ask(`/api/photos/${state.image}/why/${index}`, query);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    $("why-note").textContent = error.message;
    return;
  }
  $("why-title").textContent = `Why “${name}” went from ${percent(told.before)} to ${percent(told.after)}`;
  $("why-note").textContent = "What each of your answers did, in percentage points. " +
    (told.exact ? "The shares add up to the whole move." : "There are many answers, so the shares are estimated.");
  const most = Math.max(...told.rows.map((row) => Math.abs(row.share)), 1e-6);
  $("why-list").replaceChildren(...told.rows.map((row) => share(row, most)));
  if (!told.heat) return;
  $("why-photo").src = withQuery(`/api/photos/${state.image}.jpg`, query);
  $("why-heat").src = told.heat;
  $("why-caption").textContent = told.changed
    ? `Where in the photo the change came from (at ${told.pivot}).`
    : `Where the model looks for “${name}” (at ${told.pivot}). ${told.strategy} changes predictions without changing the network.`;
  $("why-map").hidden = false;
}
