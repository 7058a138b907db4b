// A chart of lines on a canvas, one row for each name. Nothing but the canvas is needed.

const COLORS = ["#5cc8ff", "#ffb454", "#b794ff", "#3ddc97"];
/** What is seen, in milliseconds. */
const SPAN = 24_000;
const RIGHT = 96;
const LEFT = 20;
const TOP = 18;
const BOTTOM = 30;

export class Chart {
  #canvas;
  /** The points of each name: [time, value]. */
  #lines = new Map();
  /** When there was no connection: [from, until]. */
  #outages = [];

  constructor(canvas) {
    this.#canvas = canvas;
  }

  add(name, time, value) {
    if (!this.#lines.has(name)) this.#lines.set(name, []);
    const points = this.#lines.get(name);
    points.push([time, value]);
    // One point before the left edge is kept, so that the line reaches it.
    while (points.length > 2 && points[1][0] < time - SPAN) points.shift();
  }

  down() {
    if (this.#outages.at(-1)?.[1] !== undefined || this.#outages.length === 0)
      this.#outages.push([Date.now(), undefined]);
  }

  up() {
    const outage = this.#outages.at(-1);
    if (outage) outage[1] ??= Date.now();
  }

  draw() {
    const { width, height } = this.#fitted();
    const context = this.#canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const now = Date.now();
    const x = (time) => LEFT + ((time - now + SPAN) / SPAN) * (width - LEFT - RIGHT);
    this.#drawTimes(context, x, now, width, height);
    this.#drawOutages(context, x, now, height);
    const names = [...this.#lines.keys()].sort();
    const row = (height - TOP - BOTTOM) / Math.max(names.length, 1);
    names.forEach((name, at) => {
      if (at > 0) this.#drawRule(context, TOP + at * row, width);
      const color = COLORS[at % COLORS.length];
      this.#drawLine(context, name, color, x, TOP + at * row, row, width);
    });
  }

  /** As many pixels as the screen has. */
  #fitted() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const scale = globalThis.devicePixelRatio ?? 1;
    if (
      this.#canvas.width !== Math.round(width * scale) ||
      this.#canvas.height !== Math.round(height * scale)
    ) {
      this.#canvas.width = Math.round(width * scale);
      this.#canvas.height = Math.round(height * scale);
      this.#canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
    }
    return { width, height };
  }

  #drawTimes(context, x, now, width, height) {
    context.strokeStyle = "#222c44";
    context.fillStyle = "#8f9bb5";
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "center";
    context.lineWidth = 1;
    const step = 5_000;
    for (let time = Math.ceil((now - SPAN) / step) * step; time <= now; time += step) {
      const at = Math.round(x(time)) + 0.5;
      context.beginPath();
      context.moveTo(at, TOP);
      context.lineTo(at, height - BOTTOM);
      context.stroke();
      const words = new Date(time).toLocaleTimeString("en-GB");
      if (at > 40 && at < width - RIGHT - 10) context.fillText(words, at, height - 10);
    }
  }

  #drawRule(context, y, width) {
    context.strokeStyle = "#222c44";
    context.beginPath();
    context.moveTo(LEFT, Math.round(y) + 0.5);
    context.lineTo(width - RIGHT, Math.round(y) + 0.5);
    context.stroke();
  }

  #drawOutages(context, x, now, height) {
    this.#outages = this.#outages.filter(([, until = now]) => until > now - SPAN);
    for (const [from, until = now] of this.#outages) {
      const left = Math.max(x(from), LEFT);
      const right = Math.max(x(until), left + 2);
      context.fillStyle = "rgba(255, 107, 107, 0.13)";
      context.fillRect(left, TOP, right - left, height - TOP - BOTTOM);
      context.strokeStyle = "rgba(255, 107, 107, 0.55)";
      context.setLineDash([4, 4]);
      context.strokeRect(left, TOP, right - left, height - TOP - BOTTOM);
      context.setLineDash([]);
      context.fillStyle = "#ff8f8f";
      context.textAlign = "center";
      context.font = "12px system-ui, sans-serif";
      if (right - left > 70) context.fillText("no connection", (left + right) / 2, TOP + 16);
    }
  }

  #drawLine(context, name, color, x, top, row, width) {
    const points = this.#lines.get(name);
    const values = points.map(([, value]) => value);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = Math.max(high - low, 1e-9);
    const y = (value) => top + row * (0.86 - ((value - low) / room) * 0.62);
    context.save();
    context.beginPath();
    context.rect(LEFT, top, width - LEFT - RIGHT + 6, row);
    context.clip();
    context.beginPath();
    for (const [time, value] of points) context.lineTo(x(time), y(value));
    context.strokeStyle = color;
    context.lineWidth = 2;
    context.lineJoin = "round";
    context.stroke();
    const [lastTime, lastValue] = points.at(-1);
    context.lineTo(x(lastTime), top + row);
    context.lineTo(x(points[0][0]), top + row);
    const shade = context.createLinearGradient(0, top, 0, top + row);
    shade.addColorStop(0, `${color}38`);
    shade.addColorStop(1, `${color}00`);
    context.fillStyle = shade;
    context.fill();
    context.restore();
    this.#drawLabels(context, name, color, x(lastTime), y(lastValue), lastValue, top, width);
  }

  #drawLabels(context, name, color, x, y, value, top, width) {
    context.fillStyle = color;
    context.beginPath();
    context.arc(x, y, 4, 0, 2 * Math.PI);
    context.fill();
    context.textAlign = "left";
    context.font = "600 14px system-ui, sans-serif";
    context.fillText(name, LEFT + 8, top + 18);
    context.font = "600 16px system-ui, sans-serif";
    context.fillText(value.toFixed(value > 20 ? 3 : 5), width - RIGHT + 16, y + 5);
  }
}
