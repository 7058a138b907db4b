/** The page of unstall-dashboard. */

import { Chart, forgetColors, type Series, spanOf } from "./charts.ts";
import { Detail } from "./detail.ts";
import { byId, element, text } from "./dom.ts";
import { Feed, type Link, setToken } from "./feed.ts";
import { bytes, CAUSES, clock, count, plural, span, whole } from "./format.ts";
import { Model } from "./model.ts";
import { Table } from "./table.ts";

const model = new Model();
const table = new Table(model);
const detail = new Detail(model);
const charts = {
  throughput: new Chart(byId<HTMLCanvasElement>("throughput")),
  connections: new Chart(byId<HTMLCanvasElement>("connections")),
  stalls: new Chart(byId<HTMLCanvasElement>("stalls")),
  recoveries: new Chart(byId<HTMLCanvasElement>("recoveries")),
};

let link: Link = { state: "lost", why: "connecting" };
let lostAt: number | undefined;

function draw(): void {
  if (!model.now) return;
  drawHead();
  drawTiles();
  drawCharts();
  table.draw();
  drawSubscriptions();
  detail.draw();
}

function drawHead(): void {
  const { process } = model.now!;
  text(byId("name"), process.name);
  const version = process.version === "" ? "" : `${process.version} · `;
  text(byId("about"), `${version}pid ${process.pid} · up ${span(model.time() - process.started)}`);
  const waiting = model.now!.totals.stalled;
  document.title = `${waiting > 0 ? `(${waiting}) ` : ""}${process.name}`;
}

function drawTiles(): void {
  const { totals, rates, causes, server } = model.now!;
  text(byId("t-rate"), `${count(rates.messages_sent + rates.messages_received)}/s`);
  text(
    byId("t-rate-more"),
    `${count(rates.messages_received)} in, ${count(rates.messages_sent)} out · ${bytes(rates.bytes_sent + rates.bytes_received)}/s`,
  );
  const alive = totals.open + totals.connecting + totals.closing;
  text(byId("t-connections"), whole(alive));
  const lost = totals.connecting > 0 ? ` · ${whole(totals.connecting)} without a connection` : "";
  text(
    byId("t-connections-more"),
    `${plural(totals.sessions, "session")}, ${whole(totals.plain)} plain${lost}`,
  );
  text(byId("t-stalled"), whole(totals.stalled));
  byId("t-stalled").dataset.some = String(totals.stalled > 0);
  const worst = [...causes].sort((a, b) => b.connections - a.connections)[0];
  const why = worst && totals.stalled > 0 ? `mostly: ${worst.words}` : "everything moves";
  text(byId("t-stalled-more"), why);
  text(byId("t-memory"), bytes(totals.held_bytes));
  const limit = server ? `of ${bytes(server.held_limit_bytes)} for clients` : "held for connections";
  text(byId("t-memory-more"), limit);
}

const sum = (names: ("messages_sent" | "messages_received")[]): Series["value"] => {
  return (point) => names.reduce((sum, name) => sum + point[name], 0);
};

function drawCharts(): void {
  const { points, recoveries } = model;
  drawLegend();
  const now = model.time();
  charts.throughput.plot(points, now, {
    series: [
      { name: "received/s", color: "--in", value: sum(["messages_received"]) },
      { name: "sent/s", color: "--out", value: sum(["messages_sent"]) },
    ],
  });
  charts.connections.plot(points, now, {
    series: [{ name: "connections", color: "--calm", value: (point) => point.connections }],
    least: 4,
  });
  const series = model.causes.map((cause, at) => ({
    name: CAUSES[cause] ?? cause,
    color: colorOf(cause),
    value: (point: { stalled: number[] }) => point.stalled[at] ?? 0,
  }));
  charts.stalls.plot(points, now, { series, stacked: true });
  charts.recoveries.dots(recoveries, now, spanOf(points[0]?.at ?? now, now), span);
  const recent = recoveries.filter((it) => it.at > now - 900_000).map((it) => it.ms);
  recent.sort((a, b) => a - b);
  const median = recent[Math.floor(recent.length / 2)];
  const words = median === undefined ? "none" : `${whole(recent.length)}, median ${span(median)}`;
  text(byId("h-recoveries"), words);
}

/** It is there before the charts, which take the room that it leaves. */
function drawLegend(): void {
  const legend = byId("legend");
  if (legend.children.length === model.causes.length) return;
  const items = model.causes.map((cause) => {
    const dot = element("i");
    dot.style.background = `var(${colorOf(cause)})`;
    return element("span", {}, dot, CAUSES[cause] ?? cause);
  });
  legend.replaceChildren(...items);
}

const colorOf = (cause: string) => `--${cause.replaceAll("_", "-")}`;

function drawSubscriptions(): void {
  const { subscriptions, now } = model;
  const card = byId("subscriptions");
  card.hidden = !now?.log;
  if (!now?.log) return;
  const all = plural(now.subscriptions_total, "subscription");
  const range =
    now.log.last >= now.log.first ? `${whole(now.log.first)}–${whole(now.log.last)}` : "empty";
  text(byId("s-about"), `${all} · log ${range}`);
  const rows = subscriptions.slice(0, 100).map((it) => {
    const who = it.connection === null ? "–" : `#${it.connection}`;
    const link = element("a", {}, who);
    if (it.connection !== null) link.setAttribute("href", `#/connection/${it.connection}`);
    const credit = it.waits_for_credit ? "waits for its reader" : it.state;
    const state = element("span", { class: "cause" }, credit);
    state.dataset.cause = it.waits_for_credit ? "out_of_credit" : "open";
    const cells = [
      element("code", {}, it.filter),
      link,
      state,
      whole(it.lag),
      whole(it.offset),
      bytes(it.credit_bytes),
    ];
    return element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
  });
  byId("s-rows").replaceChildren(...rows);
  byId("s-table").hidden = rows.length === 0;
}

function drawLink(): void {
  const pill = byId("link");
  pill.dataset.state = link.state;
  const since = lostAt === undefined ? "" : ` since ${clock(lostAt)}`;
  const words = {
    live: "live",
    lost: `no connection${since}, trying again`,
    refused: "a token is needed",
  };
  text(byId("link-words"), words[link.state]);
  pill.title = link.why;
  document.body.classList.toggle("stale", link.state !== "live" && model.now !== undefined);
  byId("gone").hidden = link.state !== "lost" || model.now === undefined;
  const name = model.now?.process.name ?? "the server";
  text(
    byId("gone"),
    `${name} has not answered${since}. What you see is how it was. This page goes on by itself.`,
  );
  byId("enter").hidden = link.state !== "refused";
  text(byId("enter-why"), link.why);
  byId("main").hidden = model.now === undefined;
}

function linked(next: Link): void {
  if (next.state === link.state && next.why === link.why) return;
  if (next.state !== "live") lostAt ??= Date.now();
  else lostAt = undefined;
  link = next;
  drawLink();
}

// However much happens, the page is drawn once a frame.
let asked = false;
function changed(): void {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
    drawLink();
  });
}

const feed = new Feed(model, changed, linked);
byId("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId<HTMLInputElement>("token").value);
  feed.again();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  forgetColors();
  changed();
});
addEventListener("resize", changed);
drawLink();
void feed.run();
