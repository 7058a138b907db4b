export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
export const unhex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));
/** One byte many times. */
export const repeated = (repeat: { byte: number; length: number }): Uint8Array =>
  new Uint8Array(repeat.length).fill(repeat.byte);

/** A packet as the vectors write it. */
export function packetValue(packet: Uint8Array): unknown {
  if (packet.length <= 256) return hex(packet);
  // FNV-1a of 64 bits, in two halves: with bigint it would take most of the time of the tests.
  let high = 0xcbf29ce4;
  let low = 0x84222325;
  for (const byte of packet) {
    low = (low ^ byte) >>> 0;
    const product = low * 0x1b3;
    high = (Math.imul(high, 0x1b3) + Math.floor(product / 2 ** 32) + (low << 8)) >>> 0;
    low = product >>> 0;
  }
  return {
    begins: hex(packet.subarray(0, 64)),
    length: packet.length,
    fnv1a: [high, low].map((half) => half.toString(16).padStart(8, "0")).join(""),
  };
}

/** A payload as the vectors write it. */
export function payloadValue(data: string | Uint8Array): Record<string, unknown> {
  const bytes = typeof data === "string" ? Buffer.from(data) : data;
  if (bytes.length > 64) return { repeat: { byte: bytes[0], length: bytes.length } };
  return typeof data === "string" ? { text: data } : { hex: hex(data) };
}
