// Ticks of a few pairs, live. The hub may be killed and come back: the lines go on where they stopped, and the
// counts below the chart show that no tick is missing and none came twice.

import { Topics } from "../../dist/index.js";
import { Chart } from "./chart.js";

const show = (id, value) => {
  document.getElementById(id).textContent = value;
};

const status = (state, words) => {
  const element = document.getElementById("status");
  element.dataset.state = state;
  element.querySelector("span").textContent = words;
};

const chart = new Chart(document.getElementById("chart"));
const topics = new Topics("/topics", { reconnect: { max: 1_000 } });
topics.addEventListener("welcomed", () => {
  status("live", "live");
  show("connections", topics.stats.connections);
  chart.up();
});
topics.addEventListener("disconnected", () => {
  status("down", "connection lost, trying again");
  chart.down();
});

const counts = { received: 0, missing: 0, twice: 0 };
/** The number of the last tick of each topic. */
const last = new Map();

/** Each tick has a number, which is one more than that of the tick before. */
function count(topic, number) {
  const expected = (last.get(topic) ?? number - 1) + 1;
  counts.received += 1;
  if (number < expected) counts.twice += 1;
  else {
    counts.missing += number - expected;
    last.set(topic, number);
  }
}

const ticks = topics.subscribe("ticks.>", { from: { last: 600 } });
// The chart is drawn once a frame, however many ticks there are.
const draw = () => {
  chart.draw();
  for (const [id, value] of Object.entries(counts)) show(id, value.toLocaleString("en"));
  show("position", ticks.position ?? "–");
  requestAnimationFrame(draw);
};
requestAnimationFrame(draw);

for await (const delivery of ticks) {
  if (delivery.type === "gap") {
    counts.missing += delivery.through - delivery.after;
    continue;
  }
  const { number, price, time } = JSON.parse(delivery.data);
  count(delivery.topic, number);
  chart.add(delivery.topic.replace("ticks.", ""), time, price);
}
