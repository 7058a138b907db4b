export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
export const unhex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));
/** One byte many times. */
export const repeated = (repeat: { byte: number; length: number }): Uint8Array =>
  new Uint8Array(repeat.length).fill(repeat.byte);

/** A packet as the vectors write it. */
export function packetValue(packet: Uint8Array): unknown {
  if (packet.length <= 256) return hex(packet);
  let hash = 0xcbf29ce484222325n;
  for (const byte of packet) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
  return {
    begins: hex(packet.subarray(0, 64)),
    length: packet.length,
    fnv1a: hash.toString(16).padStart(16, "0"),
  };
}

/** A payload as the vectors write it. */
export function payloadValue(data: string | Uint8Array): Record<string, unknown> {
  const bytes = typeof data === "string" ? Buffer.from(data) : data;
  if (bytes.length > 64) return { repeat: { byte: bytes[0], length: bytes.length } };
  return typeof data === "string" ? { text: data } : { hex: hex(data) };
}
