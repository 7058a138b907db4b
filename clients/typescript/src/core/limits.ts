/** Every limit of a session, with its reason. The names are those of SPEC.md, sections 14 and 18. */

export const SUBPROTOCOL = "unstall.v1";
/** The largest payload of one record. At 64 KiB the fixed cost of a frame no longer shows. */
export const MAX_RECORD = 65_536;
/** A packet with one record of that size, and its headers. */
export const MAX_PACKET = 65_600;
/** What a record costs besides its payload: it stands for the places in queues that a message takes. */
export const RECORD_OVERHEAD = 64;
/** No packet costs more than half the smallest window, so a packet can always be sent. */
export const MAX_PACKET_COST = 131_072;
export const MIN_WINDOW = 262_144;
/** A window of more than 1 GiB would bound nothing. */
export const MAX_WINDOW = 2 ** 30;
export const MIN_LARGEST_MESSAGE = 65_536;
export const MAX_LARGEST_MESSAGE = 2 ** 30;
export const MAX_REASON = 123;
/** Ten years: it bounds the field only. */
export const MAX_MILLIS = 315_360_000_000;
/** The header of a DATA packet: its kind and the first sequence number. */
export const DATA_HEADER = 9;
/** A packet is filled up to here: the fixed cost of a frame no longer shows. */
export const PACKET_FILL = 32_768;
/**
 * The room for the first packet of a session, and the first after a quiet time. A session that sends a
 * message now and then keeps little memory for it.
 */
export const SMALL_PACKET = 512;
/**
 * Acknowledge after this cost, or after as many records as cost it if each costs `ACK_RECORD`: one ACK for about
 * four packets.
 */
export const ACK_COST = 131_072;
export const ACK_RECORD = 128;
/** Or after this time: long enough to gather messages, and much shorter than what a person notices. */
export const ACK_DELAY = 20;
/** The answer to HELLO takes one round trip and a lookup. */
export const HANDSHAKE_TIMEOUT = 10_000;
/** What a peer announces is cut: the longest that load balancers give a connection to drain by default. */
export const MAX_CLOSE = 300_000;
/** An hour spreads 100,000 clients at 28 a second. */
export const MAX_GO_AWAY = 3_600_000;
/**
 * Sequence numbers and offsets are numbers of JavaScript, which are exact up to here. It is 9 PB in one
 * direction of one session: 104 days at 1 GB/s. A record beyond is `SEQUENCE_EXHAUSTED`.
 */
export const MAX_POSITION = Number.MAX_SAFE_INTEGER;

/** What a session may hold, and how long it waits. Sizes are bytes, times milliseconds. */
export interface Config {
  window: number;
  largestWindow: number;
  largestMessage: number;
  replay: number;
  expiry: number;
  acknowledgeByHand: boolean;
  /** The cost of messages after which they are acknowledged, if it does not take long. */
  acknowledgeCost: number;
}

/** A whole number in that range. */
export const between = (value: number, least: number, most: number): number =>
  Math.round(Math.min(Math.max(value, least), most));

/** The defaults of SPEC.md, section 14. A value outside its range moves to the nearest end of the range. */
export function settled(given: Partial<Config> = {}): Config {
  const window = between(given.window ?? 2 ** 20, MIN_WINDOW, MAX_WINDOW);
  const largestMessage = between(given.largestMessage ?? 2 ** 23, 0, MAX_LARGEST_MESSAGE);
  const least = messageCost(Math.max(largestMessage, MIN_LARGEST_MESSAGE)) + MAX_PACKET_COST;
  return {
    window,
    largestWindow: between(given.largestWindow ?? 2 ** 23, window, MAX_WINDOW),
    largestMessage,
    replay: Math.max(given.replay ?? 2 ** 24, least),
    expiry: between(given.expiry ?? 120_000, 0, MAX_MILLIS),
    acknowledgeByHand: given.acknowledgeByHand ?? false,
    acknowledgeCost: given.acknowledgeCost ?? ACK_COST,
  };
}

/** What a message costs, in bytes of credit and of replay. */
export const messageCost = (bytes: number): number =>
  bytes + RECORD_OVERHEAD * Math.max(Math.ceil(bytes / MAX_RECORD), 1);
