/** The table of connections. Only the rows that are seen are in the document, so 10,000 cost no more than 20. */

import { Bar, byId, element, Sparkline, text } from "./dom.ts";
import { bytes, CAUSES, count, plural, span, whole } from "./format.ts";
import type { Known, Model } from "./model.ts";
import type { Queue, Row } from "./types.ts";

/** Rows that are drawn above and below what is seen. */
const MARGIN = 4;
/** A wait from this time on is a stall, in milliseconds. */
const STALLED = 500;

type Key = "connection" | "waits" | "rate" | "inbox" | "outbox" | "messages" | "age";

const share = (queue: Queue) => queue.bytes / Math.max(queue.limit, 1);

/** How long it has waited by now. */
export function waits(row: Row, now: number): number {
  const [first] = row.stalls;
  return first ? Math.max(now - first.since, 0) : 0;
}

const VALUES: Record<Key, (known: Known, now: number) => number> = {
  connection: ({ row }) => row.id,
  // Those that do not wait: the busiest first.
  waits: (known, now) => {
    const waited = waits(known.row, now);
    return waited >= STALLED ? 1e12 + waited : known.rate;
  },
  rate: ({ rate }) => rate,
  inbox: ({ row }) => share(row.inbox),
  outbox: ({ row }) => share(row.outbox),
  messages: ({ row }) => row.messages_sent + row.messages_received,
  age: ({ row }, now) => now - row.since,
};

/** A row of the document. It shows one connection after another. */
class Line {
  readonly element = element("a", { class: "row", role: "row" });
  readonly #peer = element("b");
  readonly #about = element("small");
  readonly #state = element("span", { class: "cause" });
  readonly #since = element("small");
  readonly #spark = new Sparkline(90, 24);
  readonly #rate = element("span");
  readonly #inbox = new Bar();
  readonly #outbox = new Bar();
  readonly #messages = element("span");
  readonly #age = element("span");

  constructor() {
    const cell = (name: string, ...children: Node[]) =>
      element("div", { class: name, role: "cell" }, ...children);
    this.element.append(
      cell("c-peer", this.#peer, this.#about),
      cell("c-waits", this.#state, this.#since),
      cell("c-rate", this.#spark.element, this.#rate),
      cell("c-inbox", this.#inbox.element),
      cell("c-outbox", this.#outbox.element),
      cell("c-messages", this.#messages),
      cell("c-age", this.#age),
    );
  }

  show({ row, rate, spark }: Known, model: Model, y: number): void {
    const now = model.time();
    this.element.style.transform = `translateY(${y}px)`;
    this.element.setAttribute("href", `#/connection/${row.id}`);
    text(this.#peer, row.peer ?? `connection ${row.id}`);
    const about = [`#${row.id}`, row.principal, row.kind, row.side === "client" ? "client" : null];
    text(this.#about, about.filter((it) => it !== null).join(" · "));
    const waited = waits(row, now);
    const [stall] = row.stalls;
    const stalled = stall !== undefined && waited >= STALLED;
    this.#state.dataset.cause = stalled ? stall.cause : row.state;
    text(this.#state, stalled ? stall.words : row.state === "open" ? "moving freely" : row.state);
    text(this.#since, stalled ? `for ${span(waited)}` : "");
    this.#spark.draw(spark, model.beat);
    text(this.#rate, `${count(rate)}/s`);
    this.#inbox.draw(row.inbox.bytes, row.inbox.limit, bytes(row.inbox.bytes));
    this.#outbox.draw(row.outbox.bytes, row.outbox.limit, bytes(row.outbox.bytes));
    text(this.#messages, `${count(row.messages_received)} in, ${count(row.messages_sent)} out`);
    text(this.#age, span(now - row.since));
  }
}

export class Table {
  readonly #model: Model;
  readonly #box = byId("rows");
  readonly #room = byId("room");
  readonly #filter = byId<HTMLInputElement>("filter");
  readonly #chips = byId("chips");
  readonly #lines: Line[] = [];
  #sort: { key: Key; down: boolean } = { key: "waits", down: true };
  #cause = "";
  #shown: Known[] = [];

  constructor(model: Model) {
    this.#model = model;
    this.#box.addEventListener("scroll", () => this.#draw(), { passive: true });
    new ResizeObserver(() => this.#draw()).observe(this.#box);
    this.#filter.addEventListener("input", () => {
      this.#box.scrollTop = 0;
      this.draw();
    });
    this.#chips.addEventListener("click", (event) => {
      const chip = (event.target as Element).closest("button");
      if (!chip) return;
      this.#cause = chip.dataset.cause ?? "";
      this.draw();
    });
    byId("heads").addEventListener("click", (event) => {
      const head = (event.target as Element).closest("button");
      if (!head) return;
      const key = head.dataset.key as Key;
      this.#sort = { key, down: this.#sort.key === key ? !this.#sort.down : key !== "connection" };
      this.draw();
    });
  }

  /** Chooses and sorts the rows anew. */
  draw(): void {
    const now = this.#model.time();
    const { key, down } = this.#sort;
    const value = VALUES[key];
    const words = this.#filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen: { known: Known; value: number }[] = [];
    const counts = new Map<string, number>();
    let waiting = 0;
    for (const known of this.#model.rows.values()) {
      const { row } = known;
      const [stall] = row.stalls;
      const cause = stall && waits(row, now) >= STALLED ? stall.cause : "";
      if (cause !== "") {
        waiting += 1;
        counts.set(cause, (counts.get(cause) ?? 0) + 1);
      }
      const wanted =
        this.#cause === "" || this.#cause === cause || (this.#cause === "any" && cause !== "");
      if (wanted && matches(row, words)) chosen.push({ known, value: value(known, now) });
    }
    const sign = down ? -1 : 1;
    chosen.sort((a, b) => sign * (a.value - b.value) || a.known.row.id - b.known.row.id);
    this.#shown = chosen.map((it) => it.known);
    this.#drawChips(waiting, counts);
    this.#drawHeads();
    const { size } = this.#model.rows;
    const all = this.#model.now?.connections_total ?? size;
    const some = this.#shown.length === all ? "" : `${whole(this.#shown.length)} of `;
    text(byId("counted"), some + plural(all, "connection"));
    byId("none").hidden = this.#shown.length > 0;
    text(byId("none"), size === 0 ? "No connections yet." : "No connection matches.");
    this.#draw();
  }

  #drawHeads(): void {
    for (const head of byId("heads").querySelectorAll("button")) {
      const sorted = head.dataset.key === this.#sort.key;
      head.dataset.sorted = sorted ? (this.#sort.down ? "down" : "up") : "";
      const order = this.#sort.down ? "descending" : "ascending";
      head.parentElement?.setAttribute("aria-sort", sorted ? order : "none");
    }
  }

  #drawChips(waiting: number, counts: Map<string, number>): void {
    const chips: [string, string][] = [
      ["", "all"],
      ["any", `${whole(waiting)} waiting`],
    ];
    for (const cause of this.#model.causes) {
      const number = counts.get(cause) ?? 0;
      if (number > 0 || this.#cause === cause)
        chips.push([cause, `${whole(number)} ${CAUSES[cause] ?? cause}`]);
    }
    const buttons = [...this.#chips.querySelectorAll("button")];
    chips.forEach(([cause, words], at) => {
      const button = buttons[at] ?? this.#chips.appendChild(element("button", { type: "button" }));
      button.dataset.cause = cause;
      button.setAttribute("aria-pressed", String(cause === this.#cause));
      text(button, words);
    });
    for (const button of buttons.slice(chips.length)) button.remove();
  }

  /** Draws the rows that are seen. */
  #draw(): void {
    const height = matchMedia("(max-width: 760px)").matches ? 92 : 48;
    this.#room.style.height = `${this.#shown.length * height}px`;
    const { scrollTop, clientHeight } = this.#box;
    const first = Math.max(Math.floor(scrollTop / height) - MARGIN, 0);
    const end = Math.min(Math.ceil((scrollTop + clientHeight) / height) + MARGIN, this.#shown.length);
    for (let at = first; at < end; at++) {
      // A line keeps its place while the others scroll.
      const nth = at - first;
      let line = this.#lines[nth];
      if (!line) {
        line = new Line();
        this.#lines.push(line);
      }
      if (!line.element.isConnected) this.#room.append(line.element);
      line.show(this.#shown[at]!, this.#model, at * height);
    }
    for (const line of this.#lines.slice(Math.max(end - first, 0))) line.element.remove();
  }
}

function matches(row: Row, words: string[]): boolean {
  if (words.length === 0) return true;
  const causes = row.stalls.map((stall) => stall.words).join(" ");
  const all = `#${row.id} ${row.peer ?? ""} ${row.principal ?? ""} ${row.kind} ${row.side} ${row.state} ${causes}`;
  const lower = all.toLowerCase();
  return words.every((word) => lower.includes(word));
}
