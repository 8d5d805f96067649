// A small chart of the evidence loss after each step.

const SVG = "http://www.w3.org/2000/svg";

function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export function lossChart(losses) {
  const [width, height, left, bottom, top] = [420, 150, 46, 26, 14];
  const most = Math.max(...losses, 1e-9);
  const x = (step) => left + ((width - left - 14) * step) / Math.max(losses.length - 1, 1);
  const y = (loss) => height - bottom - ((height - bottom - top) * Math.max(loss, 0)) / most;
  const chart = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  chart.append(drawn("title", {}, `Evidence loss by step, from ${losses[0]} to ${losses.at(-1)} nats`));
  const style = { "font-size": 12, fill: "#5b6377" };
  chart.append(
    drawn("path", { d: `M${left} ${top}V${height - bottom}H${width - 10}`, fill: "none", stroke: "#cfd3e0" }),
    drawn("text", { x: left - 6, y: top + 9, "text-anchor": "end", ...style }, most.toPrecision(2)),
    drawn("text", { x: left - 6, y: height - bottom, "text-anchor": "end", ...style }, "0"),
    drawn("text", { x: left, y: height - 7, ...style }, "step 0"),
    drawn("text", { x: width - 10, y: height - 7, "text-anchor": "end", ...style }, `step ${losses.length - 1}`),
    drawn("polyline", {
      points: losses.map((loss, step) => `${x(step)},${y(loss)}`).join(" "),
      fill: "none", stroke: "#4338ca", "stroke-width": 2.5, "stroke-linejoin": "round",
    }),
    ...losses.map((loss, step) => drawn("circle", { cx: x(step), cy: y(loss), r: 3.2, fill: "#4338ca" })),
  );
  return chart;
}
