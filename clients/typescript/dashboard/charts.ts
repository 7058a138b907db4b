/** Charts of the last 15 minutes, on canvases. */

import { clock, count } from "./format.ts";
import { POINTS } from "./model.ts";
import type { Point, Recovery } from "./types.ts";

/** What is seen at most, in milliseconds: 15 minutes. */
const SPAN = POINTS * 1_000;
/** A process that has just begun is seen closer, in minutes. */
const SPANS = [1, 2, 5, 10];
const LEFT = 52;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 20;

/** A line or an area of a chart. */
export interface Series {
  name: string;
  /** The name of a color in the style sheet. */
  color: string;
  value: (point: Point) => number;
}

export interface Plot {
  series: Series[];
  /** The areas lie on each other. */
  stacked?: boolean;
  format?: (value: number) => string;
  /** The top of the axis is at least this. */
  least?: number;
}

/** A round number at or above `value`: 1, 2 or 5 and zeros. */
function round(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 5, 10].find((it) => it * power >= value * 0.999) ?? 10;
  return step * power;
}

/** How much time a chart shows, if it begins at this moment. */
export function spanOf(first: number, now: number): number {
  const minutes = SPANS.find((it) => now - first <= it * 60_000);
  return minutes === undefined ? SPAN : minutes * 60_000;
}

export class Chart {
  readonly #canvas: HTMLCanvasElement;
  readonly #tip: HTMLElement;
  #pointer: number | undefined;
  #redraw: () => void = () => {};

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas;
    this.#tip = document.createElement("div");
    this.#tip.className = "tip";
    this.#tip.hidden = true;
    canvas.after(this.#tip);
    canvas.addEventListener("pointermove", (event) => {
      this.#pointer = event.offsetX;
      this.#redraw();
    });
    canvas.addEventListener("pointerleave", () => {
      this.#pointer = undefined;
      this.#redraw();
    });
  }

  #begin(
    now: number,
    span: number,
  ): { context: CanvasRenderingContext2D; width: number; height: number; x: Scale } {
    const canvas = this.#canvas;
    const scale = globalThis.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const context = canvas.getContext("2d")!;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "11px system-ui, sans-serif";
    const x: Scale = (at) => LEFT + ((at - now + span) / span) * (width - LEFT - RIGHT);
    this.#times(context, now, span, x, width, height);
    return { context, width, height, x };
  }

  #times(
    context: CanvasRenderingContext2D,
    now: number,
    span: number,
    x: Scale,
    width: number,
    height: number,
  ): void {
    context.fillStyle = color("--faint");
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    const minutes = span / 60_000;
    const step = minutes > 5 ? minutes / 5 : minutes > 2 ? 1 : minutes / 4;
    for (let at = step; at < minutes; at += step) {
      const words = step < 1 ? `−${at * 60} s` : `−${at} min`;
      context.fillText(words, x(now - at * 60_000), height - 5);
    }
    context.textAlign = "right";
    context.fillText("now", width - RIGHT, height - 5);
  }

  #rules(context: CanvasRenderingContext2D, marks: [number, string][], width: number): void {
    context.strokeStyle = color("--rule");
    context.fillStyle = color("--faint");
    context.lineWidth = 1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const [y, text] of marks) {
      context.beginPath();
      context.moveTo(LEFT, Math.round(y) + 0.5);
      context.lineTo(width - RIGHT, Math.round(y) + 0.5);
      context.stroke();
      context.fillText(text, LEFT - 6, y);
    }
  }

  /** Lines or stacked areas over time. */
  plot(points: Point[], now: number, plot: Plot): void {
    this.#redraw = () => this.plot(points, now, plot);
    const { context, width, height, x } = this.#begin(now, spanOf(points[0]?.at ?? now, now));
    const { series, stacked = false, format = count, least = 1 } = plot;
    const sum = (point: Point) => series.reduce((sum, it) => sum + it.value(point), 0);
    const most = (point: Point) =>
      stacked ? sum(point) : Math.max(...series.map((it) => it.value(point)));
    const top = round(Math.max(least, ...points.map(most)));
    const y: Scale = (value) => height - BOTTOM - (value / top) * (height - BOTTOM - TOP);
    this.#rules(
      context,
      [0, top / 2, top].map((it): [number, string] => [y(it), format(it)]),
      width,
    );
    const base = points.map(() => 0);
    // The first series is at the bottom.
    for (const it of series) {
      const tops = points.map((point, at) => (stacked ? base[at]! : 0) + it.value(point));
      area(
        context,
        points,
        x,
        (at) => y(tops[at]!),
        (at) => y(stacked ? base[at]! : 0),
        it.color,
        stacked,
      );
      if (stacked) base.splice(0, base.length, ...tops);
    }
    this.#point(context, points, now, width, height, x, (point) =>
      series.map((it): [string, string, string] => [it.color, it.name, format(it.value(point))]),
    );
  }

  /** Dots over time, on a scale of powers of ten. */
  dots(recoveries: Recovery[], now: number, span: number, format: (ms: number) => string): void {
    this.#redraw = () => this.dots(recoveries, now, span, format);
    const { context, width, height, x } = this.#begin(now, span);
    const shown = recoveries.filter((it) => it.at > now - span);
    const low = 1;
    const high = Math.max(1_000, ...shown.map((it) => it.ms));
    const decades = Math.log10(high / low);
    const y: Scale = (ms) =>
      height -
      BOTTOM -
      4 -
      (Math.log10(Math.max(ms, low) / low) / decades) * (height - BOTTOM - TOP - 8);
    const marks: [number, string][] = [];
    for (let mark = low; mark <= high; mark *= decades > 4 ? 100 : 10)
      marks.push([y(mark), format(mark)]);
    this.#rules(context, marks, width);
    context.fillStyle = color("--recovery");
    context.globalAlpha = shown.length > 200 ? 0.5 : 0.85;
    for (const { at, ms } of shown) {
      context.beginPath();
      context.arc(x(at), y(ms), 3, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
    const near = this.#pointer;
    const hit = near === undefined ? undefined : closest(shown, (it) => Math.abs(x(it.at) - near), 12);
    this.#show(
      hit && x(hit.at),
      width,
      hit && [clock(hit.at), [["--recovery", `connection ${hit.connection}`, format(hit.ms)]]],
    );
  }

  #point(
    context: CanvasRenderingContext2D,
    points: Point[],
    now: number,
    width: number,
    height: number,
    x: Scale,
    lines: (point: Point) => [string, string, string][],
  ): void {
    const near = this.#pointer;
    const point =
      near === undefined ? undefined : closest(points, (it) => Math.abs(x(it.at) - near), 30);
    if (point && now) {
      context.strokeStyle = color("--faint");
      context.beginPath();
      context.moveTo(Math.round(x(point.at)) + 0.5, TOP);
      context.lineTo(Math.round(x(point.at)) + 0.5, height - BOTTOM);
      context.stroke();
    }
    this.#show(point && x(point.at), width, point && [clock(point.at), lines(point)]);
  }

  #show(at: number | undefined, width: number, said?: [string, [string, string, string][]]): void {
    this.#tip.hidden = at === undefined || said === undefined;
    if (at === undefined || !said) return;
    const [head, lines] = said;
    const title = document.createElement("b");
    title.textContent = head;
    const rows = lines.map(([name, text, value]) => {
      const row = document.createElement("div");
      const dot = document.createElement("i");
      dot.style.background = color(name);
      row.append(dot, `${text} `, Object.assign(document.createElement("span"), { textContent: value }));
      return row;
    });
    this.#tip.replaceChildren(title, ...rows);
    const right = at > width / 2;
    this.#tip.style.left = right ? "" : `${at + 12}px`;
    this.#tip.style.right = right ? `${width - at + 12}px` : "";
  }
}

type Scale = (value: number) => number;

function closest<T>(all: T[], distance: (it: T) => number, most: number): T | undefined {
  let best: T | undefined;
  let least = most;
  for (const it of all) {
    const far = distance(it);
    if (far < least) [best, least] = [it, far];
  }
  return best;
}

function area(
  context: CanvasRenderingContext2D,
  points: Point[],
  x: Scale,
  top: (at: number) => number,
  bottom: (at: number) => number,
  name: string,
  filled: boolean,
): void {
  if (points.length === 0) return;
  context.beginPath();
  points.forEach((point, at) => {
    context.lineTo(x(point.at), top(at));
  });
  context.strokeStyle = color(name);
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  if (!filled) {
    context.stroke();
    const last = points.length - 1;
    context.beginPath();
    context.arc(x(points[last]!.at), top(last), 2.5, 0, 2 * Math.PI);
    context.fillStyle = color(name);
    context.fill();
    context.beginPath();
    points.forEach((point, at) => {
      context.lineTo(x(point.at), top(at));
    });
  }
  for (let at = points.length - 1; at >= 0; at--) context.lineTo(x(points[at]!.at), bottom(at));
  context.closePath();
  context.fillStyle = color(name);
  context.globalAlpha = filled ? 0.85 : 0.1;
  context.fill();
  context.globalAlpha = 1;
}

const colors = new Map<string, string>();

/** A color of the style sheet. */
export function color(name: string): string {
  let found = colors.get(name);
  if (found === undefined) {
    found = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    colors.set(name, found);
  }
  return found;
}

export const forgetColors = () => colors.clear();
