// Shows the answer that an agent publishes piece by piece to the topic answer.N. The text so far and the position
// behind it are kept in the tab's session storage, as one entry. So a refresh shows the text at once, and goes on
// behind it: no piece is missing, and none comes twice.

import { savedPosition, Topics } from "../../dist/index.js";

const number = new URLSearchParams(location.search).get("n") ?? "1";
const topic = `answer.${number}`;
const saved = savedPosition(topic);
const topics = new Topics("/topics", { reconnect: { max: 1_000 } });
const answer = document.getElementById("answer");
const status = document.getElementById("status");

let text = saved.state?.text ?? "";
let isComplete = saved.state?.isComplete ?? false;
answer.textContent = text;

if (!isComplete) {
  for await (const delivery of topics.subscribe(topic, { after: saved.after })) {
    if (delivery.type === "message") {
      text += delivery.data;
      isComplete = delivery.final;
    } else {
      text += "\n[a part of the answer is missing]\n";
    }
    answer.textContent = text;
    status.textContent = "the agent is writing";
    saved.save(delivery, { text, isComplete });
  }
}
status.textContent = "the answer is complete";
await topics.close();
