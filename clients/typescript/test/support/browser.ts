/** Chromium for tests. */

import { findChromium } from "../../proof/chromium.mjs";

export { openChromium } from "../../proof/chromium.mjs";

export const hasChromium = findChromium() !== undefined;
