/** A page with React, for the test of `unstall/react`. It is bundled and run in Chromium. */

import { createElement, StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { Topics } from "../../src/index.ts";
import { useSubscription } from "../../src/react.ts";

const topics = new Topics(globalThis.url);
let renders = 0;

const add = (sum, delivery) => {
  if (delivery.type !== "message") return sum;
  if (delivery.data === "bad") throw new Error("not a number");
  return sum + Number(delivery.data);
};

function Sum({ topic }) {
  const { state, status, error } = useSubscription(topics, topic, add, 0);
  renders += 1;
  const words = `${topic} ${state} ${status}${error ? ` ${error.code}` : ""}`;
  return createElement("p", { id: "sum" }, words);
}

function Page() {
  const [topic, setTopic] = useState("one");
  Object.assign(globalThis, { setTopic });
  return topic ? createElement(Sum, { topic }) : null;
}

Object.assign(globalThis, {
  renders: () => renders,
  subscriptions: () => topics.stats.subscriptions,
});
const root = document.body.appendChild(document.createElement("div"));
createRoot(root).render(createElement(StrictMode, null, createElement(Page)));
