/** The answers of the server: docs/src/status.md. */

export interface Rates {
  messages_sent: number;
  bytes_sent: number;
  messages_received: number;
  bytes_received: number;
}

export interface Queue {
  messages: number;
  bytes: number;
  limit: number;
  oldest_ms: number;
}

export interface Stall {
  cause: string;
  words: string;
  since: number;
  for_ms: number;
}

export interface Row {
  id: number;
  peer: string | null;
  principal: string | null;
  kind: "session" | "plain";
  side: "server" | "client";
  since: number;
  state: string;
  messages_sent: number;
  bytes_sent: number;
  messages_received: number;
  bytes_received: number;
  inbox: Queue;
  outbox: Queue;
  held_bytes: number;
  spilled_bytes: number;
  round_trip_us: number | null;
  connects: number;
  resumes: number;
  dropped: number;
  stalls: Stall[];
  stalled_ms: Record<string, number>;
}

export interface SubscriptionRow {
  connection: number | null;
  filter: string;
  state: string;
  offset: number;
  lag: number;
  credit_bytes: number;
  waits_for_credit: boolean;
}

export interface Now {
  version: number;
  now: number;
  process: { name: string; version: string; pid: number; started: number };
  totals: {
    open: number;
    connecting: number;
    closing: number;
    stalled: number;
    sessions: number;
    plain: number;
    held_bytes: number;
    [name: string]: number;
  };
  rates: Rates;
  causes: { cause: string; words: string; connections: number; total_ms: number }[];
  server: { held_bytes: number; held_limit_bytes: number; refused: number } | null;
  log: { first: number; last: number } | null;
  connections_total: number;
  subscriptions_total: number;
}

export interface Status extends Now {
  position: string;
  connections: Row[];
  subscriptions: SubscriptionRow[];
}

export interface Point extends Rates {
  at: number;
  connections: number;
  stalled: number[];
}

export interface Recovery {
  at: number;
  ms: number;
  connection: number;
}

export interface History {
  step_ms: number;
  causes: string[];
  points: Point[];
  recoveries: Recovery[];
}

export interface Told extends Now {
  point: Point;
  recoveries: Recovery[];
}

export interface Changes {
  born: Row[];
  changed: Row[];
  gone: number[];
}

export interface One {
  now: number;
  connection: Row | null;
  events: { at: number; kind: string; text: string }[];
  doctor: { verdict: string; sentence: string; advice: string; for_ms: number } | null;
}
