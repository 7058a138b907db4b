/** The constants of SPEC-TOPICS.md, section 16, and the defaults of a client, each with its reason. */

/** The subprotocol of WebSocket. */
export const SUBPROTOCOL = "unstall.topics.v1";
export const MAX_PACKET = 66_560;
export const MAX_RECORD = 65_536;
/** What a record costs beside its payload and its topic. */
export const RECORD_OVERHEAD = 64;
export const MIN_CREDIT = 131_072;
export const MIN_WINDOW = 262_144;
export const MIN_PUBLISH_WINDOW = 262_144;
export const MIN_LARGEST_MESSAGE = 65_536;
export const MAX_LARGEST_MESSAGE = 1_073_741_824;
export const MAX_NAME = 255;
export const MAX_TOKENS = 32;
export const MAX_TOKEN = 8_192;
export const MAX_TEXT = 123;
/** Ten years, in milliseconds. */
export const MAX_MILLIS = 315_360_000_000;
/** Offsets and the times of messages are below this. */
export const OFFSETS = 1n << 62n;

/** Up to this size a packet is filled with records. It bounds how long other packets wait. */
export const FILL = 32_768;
/** What a subscription holds in memory: SPEC-TOPICS.md, section 8. */
export const WINDOW = 1 << 20;
/** The largest message that is received by default. A browser tab holds it with ease. */
export const LARGEST_MESSAGE = 16 << 20;
/** How many topics of a subscription are known as valid without a look. A name is short, so this
 * is below 1 MiB. */
export const KNOWN_TOPICS = 4_096;
