// The photo, what lies over it, and clicks on it.

import { element } from "/static/bars.js";

export class Stage {
  constructor(click) {
    this.stage = document.getElementById("stage");
    this.photo = document.getElementById("photo");
    this.overlay = document.getElementById("overlay");
    this.marks = document.getElementById("marks");
    this.layers = document.getElementById("layers");
    this.palette = document.getElementById("palette");
    this.layer = "after";
    this.chosen = 0;
    this.present = true;
    this.stage.addEventListener("click", (event) => {
      if (!this.maps.length || !this.state) return;
      const box = this.photo.getBoundingClientRect();
      const [height, width] = this.state.size;
      const x = Math.min(width - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * width)));
      const y = Math.min(height - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * height)));
      click(this.maps[this.chosen].index, [x, y, this.present && !event.shiftKey ? 1 : 0]);
    });
  }

  start(names, maps) {
    Object.assign(this, { names, maps, chosen: 0 });
    this.palette.hidden = !maps.length;
    this.stage.classList.toggle("clickable", maps.length > 0);
    this.drawPalette();
  }

  // Choose what a click means, by its place in the palette.
  choose(place) {
    if (place < this.maps.length) this.chosen = place;
    this.drawPalette();
  }

  drawPalette() {
    if (!this.maps.length) return;
    const labels = this.maps.map((map, place) => {
      const colour = element("i");
      colour.style.background = map.colour;
      const key = place < 9 ? [element("kbd", { textContent: place + 1 })] : [];
      const button = element("button", { type: "button" }, colour, this.names[map.index], ...key);
      button.setAttribute("aria-pressed", place === this.chosen);
      button.addEventListener("click", () => this.choose(place));
      return button;
    });
    const how = element("button", { type: "button", textContent: this.present ? "is here" : "isn't here" });
    how.title = "What a click says of the label; with the shift key it says that it isn't here";
    how.addEventListener("click", () => { this.present = !this.present; this.drawPalette(); });
    this.palette.replaceChildren("Click on the photo:", ...labels, how);
  }

  show(state, source) {
    this.state = state;
    if (!this.photo.src.endsWith(source)) this.photo.src = source;
    this.heat = null; // of what was answered before
    this.photo.alt = `The photo ${state.name}`;
    const [height, width] = state.size;
    this.photo.width = width;
    this.photo.height = height;
    this.stage.style.width = `min(100%, var(--tall) * ${width / height})`; // small photos are shown larger
    this.marks.replaceChildren(...state.clicks.map((click) => {
      const [x, y, there] = click.at;
      const mark = element("div", { className: there ? "mark" : "mark absent", title: click.label });
      mark.style.left = `${(100 * (x + 0.5)) / width}%`;
      mark.style.top = `${(100 * (y + 0.5)) / height}%`;
      const map = this.maps.find((m) => this.names[m.index] === click.label);
      if (map) mark.style.background = map.colour;
      return mark;
    }));
    this.drawLayers();
  }

  showHeat(picture) {
    this.heat = picture;
    if (picture) this.layer = "heat";
    else if (this.layer === "heat") this.layer = "after";
    this.drawLayers();
  }

  drawLayers() {
    const [map] = this.state.overlays;
    const choices = map
      ? [["after", "with what you said"], ["before", "the model alone"], ["none", "photo"]]
      : this.heat ? [["after", "photo"]] : [];
    if (this.heat) choices.push(["heat", "where the network changed"]);
    if (!choices.some(([layer]) => layer === this.layer)) this.layer = "after";
    this.layers.hidden = !choices.length;
    this.layers.replaceChildren(...choices.map(([layer, text]) => {
      const button = element("button", { type: "button", textContent: text });
      button.setAttribute("aria-pressed", layer === this.layer);
      button.addEventListener("click", () => { this.layer = layer; this.drawLayers(); });
      return button;
    }));
    const picture = this.layer === "heat" ? this.heat : map?.[this.layer];
    this.overlay.hidden = !picture;
    this.overlay.classList.toggle("heat", this.layer === "heat");
    if (picture) this.overlay.src = picture;
    else this.overlay.removeAttribute("src");
  }
}
