/** What the page knows. */

import type {
  Changes,
  History,
  Now,
  Point,
  Recovery,
  Row,
  Status,
  SubscriptionRow,
  Told,
} from "./types.ts";

/** Points of a sparkline: a minute. */
export const SPARK = 60;
/** Points of the history: 15 minutes. */
export const POINTS = 900;

/** A connection, and what the page has seen of it. */
export interface Known {
  row: Row;
  /** The time of the server when it was as the row says. */
  at: number;
  /** Messages a second, both ways. The newest is at {@link Model.beat}. */
  spark: Float32Array;
  /** The messages and bytes at the beat before. */
  messages: number;
  bytes: number;
  rate: number;
  byteRate: number;
}

const messagesOf = (row: Row) => row.messages_sent + row.messages_received;
const bytesOf = (row: Row) => row.bytes_sent + row.bytes_received;

export class Model {
  now: Now | undefined;
  position: string | undefined;
  readonly rows = new Map<number, Known>();
  subscriptions: SubscriptionRow[] = [];
  points: Point[] = [];
  recoveries: Recovery[] = [];
  causes: string[] = [];
  /** Counts the seconds; the place of the newest value in each sparkline. */
  beat = 0;
  /** The clock of the server minus that of this machine. */
  #ahead = 0;
  #toldAt = 0;

  /** The time of the server. */
  time(): number {
    return Date.now() + this.#ahead;
  }

  begin(status: Status, history: History): void {
    this.#ahead = status.now - Date.now();
    this.#toldAt = status.now;
    this.now = status;
    this.position = status.position;
    this.subscriptions = status.subscriptions;
    this.points = history.points.slice(-POINTS);
    this.recoveries = history.recoveries;
    this.causes = history.causes;
    const before = new Map(this.rows);
    this.rows.clear();
    for (const row of status.connections) this.#add(row, before.get(row.id));
  }

  #add(row: Row, before?: Known): void {
    // After a restart of the process its numbers begin anew.
    const same = before && before.row.since === row.since;
    this.rows.set(row.id, {
      row,
      at: this.time(),
      spark: same ? before.spark : new Float32Array(SPARK),
      messages: messagesOf(row),
      bytes: bytesOf(row),
      rate: 0,
      byteRate: 0,
    });
  }

  change({ born, changed, gone }: Changes): void {
    for (const row of born) this.#add(row);
    for (const row of changed) {
      const known = this.rows.get(row.id);
      if (known) [known.row, known.at] = [row, this.time()];
      else this.#add(row);
    }
    for (const id of gone) this.rows.delete(id);
  }

  tell(told: Told): void {
    const seconds = Math.max((told.now - this.#toldAt) / 1_000, 0.2);
    this.#ahead = told.now - Date.now();
    this.#toldAt = told.now;
    this.now = told;
    this.points.push(told.point);
    if (this.points.length > POINTS) this.points.splice(0, this.points.length - POINTS);
    this.recoveries.push(...told.recoveries.filter((it) => it.at > (this.recoveries.at(-1)?.at ?? 0)));
    if (this.recoveries.length > 1_000) this.recoveries.splice(0, this.recoveries.length - 1_000);
    if (told.subscriptions_total === 0) this.subscriptions = [];
    this.beat = (this.beat + 1) % SPARK;
    for (const known of this.rows.values()) {
      const [messages, bytes] = [messagesOf(known.row), bytesOf(known.row)];
      known.rate = Math.max(messages - known.messages, 0) / seconds;
      known.byteRate = Math.max(bytes - known.bytes, 0) / seconds;
      known.messages = messages;
      known.bytes = bytes;
      known.spark[this.beat] = known.rate;
    }
  }
}
