/** Figures for people. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit + 1 < UNITS.length) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(value) : short(value)} ${UNITS[unit]}`;
}

/** A count in a few characters: 950, 1.2 k, 34 M. */
export function count(number: number): string {
  if (number < 1_000)
    return number < 10 && number % 1 !== 0 ? number.toFixed(1) : String(Math.round(number));
  if (number < 1_000_000) return `${short(number / 1_000)} k`;
  if (number < 1_000_000_000) return `${short(number / 1_000_000)} M`;
  return `${short(number / 1_000_000_000)} G`;
}

const short = (value: number) => (value < 10 ? value.toFixed(1) : String(Math.round(value)));

export const whole = (number: number) => number.toLocaleString("en");

/** How long, in one or two units. */
export function span(ms: number): string {
  if (ms < 1_000) return `${ms < 10 ? Math.max(ms, 0).toFixed(1) : Math.round(ms)} ms`;
  const seconds = ms / 1_000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const clock = (at: number) => new Date(at).toLocaleTimeString("en-GB");

export function clockMillis(at: number): string {
  return `${clock(at)}.${String(Math.floor(at % 1_000)).padStart(3, "0")}`;
}

export const plural = (number: number, one: string, many = `${one}s`) =>
  `${whole(number)} ${number === 1 ? one : many}`;

/** Short names of causes, for legends. */
export const CAUSES: Record<string, string> = {
  application_not_reading: "this side not reading",
  out_of_credit: "out of credit",
  replay_full: "replay full",
  socket_full: "peer not reading",
  peer_silent: "peer silent",
  connecting: "no connection",
};
