// The page: one photo, its questions, and what each answer changes.

import { ask, tell, upload, withQuery } from "/static/api.js";
import { Rows, bar, delta, element, percent, showMoved } from "/static/bars.js";
import { lossChart } from "/static/chart.js";
import { Stage } from "/static/photo.js";
import { showWhy, whyButton } from "/static/why.js";

const $ = (id) => document.getElementById(id);
let session = null; // what holds for every photo
let state = null; // of the photo that is shown
let busy = false;

const rows = new Rows($("rows"), $("more"), $("filter"), (i, value) => answer("label", session.labels[i], value));
const stage = new Stage((i, at) => answer("click", session.labels[i], at));

// Where we are is in the address, so that a reload comes back here.
function here() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

function remember(changes) {
  const given = Object.entries({ ...here(), ...changes }).filter(([, value]) => value);
  history.replaceState(null, "", `#${new URLSearchParams(given)}`);
}

function query() {
  const { checkpoint = null, strategy = null } = here();
  return session?.playground ? { checkpoint: checkpoint ?? session.title, strategy } : {};
}

function say(message) {
  $("banner-text").textContent = message ?? "";
  $("banner").hidden = !message;
}

// Run one thing at a time. A message of the server goes to the top of the page.
async function work(job) {
  if (busy) return;
  busy = true;
  document.body.classList.add("busy");
  try {
    await job();
  } catch (error) {
    say(error.message);
    if (error.status === 409) await start(error.message).catch((other) => say(other.message));
  } finally {
    busy = false;
    document.body.classList.remove("busy");
    document.body.dataset.answered = Number(document.body.dataset.answered ?? 0) + 1;
  }
}

async function start(message = null) {
  const { checkpoint = null } = here();
  session = await ask("/api/session", { checkpoint });
  const { labels, maps, coarse } = session;
  $("title").textContent = session.title;
  document.title = session.playground ? "Playground" : `Annotate ${session.folder}`;
  $("tagline").textContent = session.playground
    ? "Say what you know of a photo, and watch the other predictions move."
    : "Answer one question, and watch the other predictions move.";
  $("title").title = session.summary;
  stage.start(labels, maps);
  $("text-form").hidden = !session.text;
  $("coarse-form").hidden = !coarse.length;
  $("classes").replaceChildren(...coarse.map((name) => element("option", { value: name })));
  $("told").hidden = !session.text && !coarse.length;
  for (const link of $("export").querySelectorAll("a")) link.href = withQuery(`/api/export/${link.dataset.format}`, query());
  $("how").open = session.playground;
  $("unit").textContent = maps.length ? " (share of the photo)" : "";
  if (session.playground) showChoices();
  const wanted = here().photo;
  const place = wanted === undefined ? session.resume : Number(wanted) - 1;
  await open(Math.min(Math.max(place || 0, 0), session.photos.length - 1), message);
}

async function open(image, message = null) {
  remember({ photo: image + 1 });
  const [{ name }, count] = [session.photos[image], session.photos.length];
  $("name").textContent = name;
  $("place").textContent = `photo ${image + 1} of ${count}`;
  try {
    state = await ask(`/api/photos/${image}/state`, query());
  } catch (error) { // a photo that can't be read must not be the end
    state = null;
    document.body.dataset.broken = image;
    throw error;
  }
  delete document.body.dataset.broken;
  rows.open(session.labels, state);
  show(state, message);
  await $("photo").decode().catch(() => {}); // if it can't be shown, its questions still can
}

function show(last, message = null) {
  const image = state.image;
  session.photos[image].answered = state.answers.some((a) => a !== null) || Boolean(state.text || state.coarse || state.clicks.length);
  const unknown = state.unknown.length
    ? `This photo has answers about labels that ${session.title} doesn't know: ${state.unknown.join(", ")}.` : null;
  say(message ?? state.problem ?? unknown);
  stage.show(state, withQuery(`/api/photos/${image}.jpg`, query()));
  showQuestion();
  rows.show(state, last, state.questions[0]?.index ?? null);
  showChanges(last);
  showTold();
  showHow();
  const answered = session.photos.filter((photo) => photo.answered).length;
  $("progress").textContent = session.playground ? "" : `${answered} of ${session.photos.length} photos have answers`;
  for (const button of $("strip").querySelectorAll("button")) button.setAttribute("aria-current", Number(button.dataset.image) === image);
}

function showQuestion() {
  const question = state.questions[0];
  const pixels = session.maps.length > 0;
  for (const id of ["yes", "no", "skip"]) {
    $(id).disabled = !question;
    $(id).hidden = pixels && !question;
  }
  $("undo").disabled = !session.photos[state.image].answered && !state.skipped.length;
  $("asked-bar").replaceChildren();
  $("gain").textContent = "";
  $("question").dataset.label = question ? session.labels[question.index] : "";
  if (!question) {
    $("lead").textContent = pixels ? "This model labels pixels" : "Every question has been asked";
    $("asked").textContent = pixels ? "Click on the photo" : "Done";
    $("gain").textContent = pixels
      ? "Choose a label below the photo, then click where it is. Every click is evidence for all other pixels."
      : "Press the right arrow for the next photo.";
    return;
  }
  const i = question.index;
  $("lead").textContent = session.one_holds[i] ? "Is it this?" : "Is this in the photo, or true of it?";
  $("asked").textContent = session.labels[i];
  const row = element("div", { className: "row" }, element("span", { className: "label", textContent: "the model says" }),
    bar(state.before[i], state.after[i], state.after[i]),
    element("span", { className: "percent", textContent: percent(state.after[i]) }),
    delta(state.before[i], state.after[i]));
  $("asked-bar").replaceChildren(row);
  $("gain").textContent = `The most useful of ${state.questions.length} questions that are left.`;
}

function showChanges(last) {
  const moved = showMoved($("moved-list"), session.labels, state, last, (i) => whyButton(() => why(i), session.labels[i]));
  const told = session.photos[state.image].answered;
  const time = `Refined in ${(state.seconds * 1000).toFixed(0)} ms.`;
  let note = "Nothing is answered yet: these are the model's own predictions.";
  if (told && moved) note = time;
  else if (told) note = last === state ? `Your answers count. ${time}` : `Nothing else moved by a percentage point or more. ${time}`;
  const pixels = Math.max(0, ...state.overlays.map((overlay) => overlay.changed));
  if (told && pixels) note += ` ${percent(pixels)} of the photo has another label than the model alone gives it.`;
  $("moved-title").textContent = moved ? "What just moved" : "What your answers change";
  $("moved-note").textContent = note;
}

function showTold() {
  const chip = (text, kind) => {
    const close = element("button", { type: "button", textContent: "×" });
    close.setAttribute("aria-label", `Take back: ${text}`);
    close.addEventListener("click", () => answer(kind, "", null));
    return element("span", { className: "chip" }, text, close);
  };
  const chips = [];
  if (state.text) chips.push(chip(`“${state.text}”`, "text"));
  if (state.coarse) chips.push(chip([state.coarse].flat().join(" or "), "coarse"));
  $("chips").replaceChildren(...chips);
}

function showHow() {
  const { how, captions } = state;
  $("how").hidden = !how;
  if (!how) return;
  const at = how.pivots.length ? ` at ${how.pivots.join(", ")}` : "";
  const written = Object.values(captions).map((said) => ` It wrote “${said.before}”, and now writes “${said.after}”.`).join("");
  $("how-text").textContent = `Strategy ${how.strategy}${at}, ${how.steps} step${how.steps === 1 ? "" : "s"}: ${how.status}.${written} ` +
    "The loss is how much the network's own predictions disagree with what you said, in nats.";
  $("losses").replaceChildren(lossChart(how.losses));
  $("show-heat").hidden = !how.pivots.length;
}

function why(i) {
  return showWhy(state, i, session.labels[i], query()).catch((error) => say(error.message));
}

function showHeat() {
  return work(async () => {
    const { heat } = await ask(`/api/photos/${state.image}/heat`, query());
    stage.showHeat(heat);
    $("stage").scrollIntoView({ block: "nearest" });
  });
}

function answer(kind, name, value) {
  return work(async () => {
    if (!state) return;
    const { revision } = state;
    const body = { session: session.session, revision, kind, name, value };
    const last = state;
    state = await tell(`/api/photos/${state.image}/answers`, query(), body);
    show(last);
  });
}

function answerQuestion(value) {
  const question = state?.questions[0];
  if (question) answer(value === "skip" ? "skip" : "label", session.labels[question.index], value === "skip" ? null : value);
}

function undo() {
  return work(async () => {
    if (!state) return;
    const body = { session: session.session, revision: state.revision };
    const last = state;
    state = await tell(`/api/photos/${state.image}/undo`, query(), body);
    show(last, state.undone ? null : "There is nothing to undo on this photo.");
  });
}

function go(step) {
  return work(async () => {
    const now = state?.image ?? Number(document.body.dataset.broken ?? 0);
    const count = session.photos.length;
    if (step > 0 && $("order").value === "useful") {
      const { image } = await ask(`/api/photos/${now}/next`, { ...query(), order: "useful" });
      if (image !== null) return open(image);
      return say("Every photo has an answer.");
    }
    return open((now + step + count) % count);
  });
}

function showChoices() {
  const option = ({ name, summary }) => element("option", { value: name, textContent: name, title: summary });
  $("choices").hidden = false;
  $("strip").hidden = false;
  $("export").hidden = true;
  $("checkpoint").replaceChildren(...session.checkpoints.map(option));
  $("checkpoint").value = session.title;
  $("strategy").replaceChildren(element("option", { value: "", textContent: "the library's choice" }), ...session.strategies.map(option));
  $("strategy").value = here().strategy ?? "";
  showStrip();
}

function showStrip() {
  const photos = session.photos.map((photo, image) => {
    const picture = element("img", { src: withQuery(`/api/photos/${image}.jpg`, { ...query(), small: 1 }), alt: photo.name, loading: "lazy" });
    const button = element("button", { type: "button", title: photo.name }, picture);
    button.dataset.image = image;
    button.addEventListener("click", () => work(() => open(image)));
    return button;
  });
  const input = element("input", { type: "file", accept: "image/*", id: "file" });
  input.addEventListener("change", () => input.files[0] && add(input.files[0]));
  $("strip").replaceChildren(...photos, element("label", {}, "Drop a photo, or choose one", input));
}

function add(file) {
  return work(async () => {
    const { image } = await upload(file);
    remember({ photo: image + 1 });
    await start();
  });
}

function typing(target) {
  return target.matches("input, select, textarea") || $("keys").open || $("why").open;
}

const KEYS = {
  y: () => answerQuestion(1), n: () => answerQuestion(0), s: () => answerQuestion("skip"), u: undo,
  w: () => state?.questions.length && state.how && why(state.questions[0].index),
  ArrowRight: () => go(1), ArrowLeft: () => go(-1),
  t: () => $("text").focus(), c: () => $("coarse").focus(), "/": () => $("filter").focus(), "?": () => $("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && typing(event.target)) event.target.blur();
  if (typing(event.target)) return;
  const job = KEYS[event.key] ?? (/^[1-9]$/.test(event.key) ? () => stage.choose(Number(event.key) - 1) : null);
  if (!job || !session) return;
  event.preventDefault();
  job();
});

for (const [id, value] of [["yes", 1], ["no", 0], ["skip", "skip"]]) $(id).addEventListener("click", () => answerQuestion(value));
$("undo").addEventListener("click", undo);
$("next").addEventListener("click", () => go(1));
$("previous").addEventListener("click", () => go(-1));
$("show-heat").addEventListener("click", showHeat);
$("show-keys").addEventListener("click", () => $("keys").showModal());
$("banner-close").addEventListener("click", () => say(null));
for (const kind of ["text", "coarse"]) {
  $(`${kind}-form`).addEventListener("submit", (event) => {
    event.preventDefault();
    const value = $(kind).value.trim();
    if (!value) return;
    $(kind).value = "";
    $(kind).blur();
    answer(kind, "", value);
  });
}
$("checkpoint").addEventListener("change", () => {
  remember({ checkpoint: $("checkpoint").value });
  $("checkpoint").blur();
  work(() => start());
});
$("strategy").addEventListener("change", () => {
  remember({ strategy: $("strategy").value });
  $("strategy").blur();
  work(() => open(state?.image ?? 0));
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.toggle("dropping", Boolean(session?.playground));
});
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file && session?.playground) add(file);
});
window.addEventListener("hashchange", () => work(() => start()));

work(() => start());
