/** The page of one connection: its figures, what happened to it, and the doctor's verdict beside the library's. */

import { Bar, byId, element, Sparkline, text } from "./dom.ts";
import { ask } from "./feed.ts";
import { bytes, CAUSES, clockMillis, count, plural, span, whole } from "./format.ts";
import type { Known, Model } from "./model.ts";
import { waits } from "./table.ts";
import type { One, Row } from "./types.ts";

/** How often the events are asked for, in milliseconds. The doctor takes a second for each answer. */
const EVERY = 3_000;

export class Detail {
  readonly #model: Model;
  readonly #panel = byId("detail");
  readonly #spark = new Sparkline(600, 60);
  readonly #inbox = new Bar();
  readonly #outbox = new Bar();
  #id: number | undefined;
  #one: One | undefined;
  #asking: number | undefined;

  constructor(model: Model) {
    this.#model = model;
    byId("d-spark").append(this.#spark.element);
    byId("d-inbox").append(this.#inbox.element);
    byId("d-outbox").append(this.#outbox.element);
    addEventListener("hashchange", () => this.#open());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#id !== undefined) location.hash = "";
    });
    this.#open();
  }

  #open(): void {
    const [, id] = /^#\/connection\/(\d+)$/.exec(location.hash) ?? [];
    clearTimeout(this.#asking);
    const was = this.#id;
    this.#id = id === undefined ? undefined : Number(id);
    this.#one = undefined;
    this.#panel.hidden = this.#id === undefined;
    document.body.classList.toggle("has-detail", this.#id !== undefined);
    if (this.#id === undefined) {
      if (was !== undefined)
        document.querySelector<HTMLElement>(`[href="#/connection/${was}"]`)?.focus();
      return;
    }
    text(byId("d-error"), "");
    byId("d-events").replaceChildren();
    text(byId("d-verdict"), "");
    text(byId("d-sentence"), "The doctor is looking…");
    text(byId("d-advice"), "");
    this.draw();
    byId("d-back").focus();
    void this.#ask(this.#id);
  }

  async #ask(id: number): Promise<void> {
    try {
      const one = await ask<One>(`/status/connections/${id}.json`);
      if (this.#id !== id) return;
      this.#one = one;
      text(byId("d-error"), "");
      this.#drawOne(one);
    } catch (error) {
      if (this.#id !== id) return;
      text(byId("d-error"), error instanceof Error ? error.message : String(error));
    }
    this.#asking = setTimeout(() => void this.#ask(id), EVERY) as unknown as number;
  }

  /** What changes each second. */
  draw(): void {
    if (this.#id === undefined) return;
    const known = this.#model.rows.get(this.#id);
    const row = known?.row ?? this.#one?.connection ?? undefined;
    text(byId("d-title"), row?.peer ?? `Connection ${this.#id}`);
    const ended = !known && this.#one?.connection === null;
    this.#panel.classList.toggle("ended", ended);
    if (!row) {
      text(byId("d-about"), ended ? `connection ${this.#id} has ended` : `connection ${this.#id}`);
      return;
    }
    const side = row.side === "server" ? "accepted here" : "dialed from here";
    const about = [`connection ${row.id}`, row.principal, row.kind, side];
    text(byId("d-about"), about.filter((it) => it !== null).join(" · "));
    this.#drawCauses(row, known?.at ?? this.#one?.now ?? 0, ended);
    if (known) this.#drawTraffic(known);
    this.#inbox.draw(row.inbox.bytes, row.inbox.limit, queue(row.inbox));
    this.#outbox.draw(row.outbox.bytes, row.outbox.limit, queue(row.outbox));
    this.#drawFigures(row);
  }

  #drawCauses(row: Row, at: number, ended: boolean): void {
    const now = this.#model.time();
    const long = row.stalls.filter((stall) => now - stall.since >= 500);
    const calm = ended ? "It has ended." : "It waits for nothing.";
    const items = long.map((stall) =>
      element(
        "li",
        { "data-cause": stall.cause },
        element("b", {}, stall.words),
        ` for ${span(now - stall.since)}`,
      ),
    );
    byId("d-causes").replaceChildren(
      ...(items.length > 0 ? items : [element("li", { class: "calm" }, calm)]),
    );
    // Present waits go on, and are not told again each second.
    const sums = new Map(Object.entries(row.stalled_ms));
    if (!ended)
      for (const { cause } of long) sums.set(cause, (sums.get(cause) ?? 0) + Math.max(now - at, 0));
    const totals = [...sums].sort(([, a], [, b]) => b - a);
    const words = totals.map(([cause, ms]) => `${CAUSES[cause] ?? cause} ${span(ms)}`);
    text(byId("d-totals"), words.length > 0 ? `In all: ${words.join(", ")}` : "It has never waited.");
  }

  #drawTraffic({ rate, byteRate, spark }: Known): void {
    this.#spark.draw(spark, this.#model.beat);
    text(byId("d-rate"), `${count(rate)} messages/s, ${bytes(byteRate)}/s`);
  }

  #drawFigures(row: Row): void {
    const now = this.#model.time();
    const figures: [string, string][] = [
      ["state", row.state],
      ["age", span(now - row.since)],
      ["received", `${plural(row.messages_received, "message")}, ${bytes(row.bytes_received)}`],
      ["sent", `${plural(row.messages_sent, "message")}, ${bytes(row.bytes_sent)}`],
      ["round trip", row.round_trip_us === null ? "–" : span(row.round_trip_us / 1_000)],
      ["connections", whole(row.connects)],
      ["resumed", plural(row.resumes, "time")],
      ["dropped", plural(row.dropped, "message")],
      ["held", bytes(row.held_bytes)],
      ["waiting for", waits(row, now) >= 500 ? span(waits(row, now)) : "–"],
    ];
    const list = byId("d-figures");
    if (list.children.length !== figures.length)
      list.replaceChildren(...figures.map(() => element("div", {}, element("dt"), element("dd"))));
    figures.forEach(([name, value], at) => {
      const [term, data] = list.children[at]!.children;
      text(term!, name);
      text(data!, value);
    });
  }

  #drawOne({ events, doctor }: One): void {
    const items = [...events]
      .reverse()
      .map(({ at, kind, text }) =>
        element(
          "li",
          { "data-kind": kind },
          element("time", {}, clockMillis(at)),
          element("span", {}, text),
        ),
      );
    byId("d-events").replaceChildren(...items);
    const verdict = byId("d-verdict");
    text(verdict, doctor ? doctor.verdict.replaceAll("_", " ") : "");
    verdict.dataset.verdict = doctor?.verdict ?? "";
    text(byId("d-sentence"), doctor?.sentence ?? "The kernel has no account of this connection.");
    text(byId("d-advice"), doctor?.advice ?? "");
    this.draw();
  }
}

function queue({ messages, bytes: held, limit, oldest_ms }: Row["inbox"]): string {
  const old = messages > 0 ? `, the oldest for ${span(oldest_ms)}` : "";
  return `${plural(messages, "message")}, ${bytes(held)} of ${bytes(limit)}${old}`;
}
