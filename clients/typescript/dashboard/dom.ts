/** Elements by hand. */

type Attributes = Record<string, string>;

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const byId = <T extends HTMLElement = HTMLElement>(id: string) =>
  document.getElementById(id) as T;

/** Sets a text, if it is another one. */
export function text(node: Element, words: string): void {
  if (node.textContent !== words) node.textContent = words;
}

const SVG = "http://www.w3.org/2000/svg";

/** A small line of values, the newest at the right. */
export class Sparkline {
  readonly element = document.createElementNS(SVG, "svg");
  readonly #line = document.createElementNS(SVG, "polyline");
  readonly #width: number;
  readonly #height: number;

  constructor(width: number, height: number) {
    this.#width = width;
    this.#height = height;
    this.element.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.element.setAttribute("preserveAspectRatio", "none");
    this.element.setAttribute("class", "spark");
    this.element.setAttribute("aria-hidden", "true");
    this.element.append(this.#line);
  }

  draw(values: Float32Array, newest: number): void {
    let most = 0;
    for (const value of values) if (value > most) most = value;
    const step = this.#width / (values.length - 1);
    const room = this.#height - 2;
    let points = "";
    for (let at = 0; at < values.length; at++) {
      const value = values[(newest + 1 + at) % values.length]!;
      const y = most === 0 ? this.#height - 1 : 1 + room * (1 - value / most);
      points += `${(at * step).toFixed(1)},${y.toFixed(1)} `;
    }
    this.#line.setAttribute("points", points);
    this.element.classList.toggle("flat", most === 0);
  }
}

/** A bar against a limit. */
export class Bar {
  readonly element = element("div", { class: "bar" });
  readonly #fill = element("i");
  readonly #words = element("span");

  constructor() {
    this.element.append(element("div", { class: "track" }, this.#fill), this.#words);
  }

  draw(value: number, limit: number, words: string): void {
    const share = limit > 0 ? Math.min(value / limit, 1) : 0;
    this.#fill.style.width = `${(share * 100).toFixed(1)}%`;
    this.#fill.dataset.level = share > 0.9 ? "full" : share > 0.5 ? "high" : "low";
    text(this.#words, words);
  }
}
