/** Topics and filters: SPEC-TOPICS.md, section 3. */

import { utf8 } from "../bytes.ts";
import { MAX_NAME, MAX_TOKENS } from "./limits.ts";

/** Half of a surrogate pair has no form in UTF-8. */
const TOKEN = /^[^\p{White_Space}\p{Cc}\p{Cs}.*>]+$/u;

function isName(name: string, isPlain: (token: string, isLast: boolean) => boolean): boolean {
  const tokens = name.split(".");
  const last = tokens.length - 1;
  return (
    last < MAX_TOKENS &&
    tokens.every((token, at) => isPlain(token, at === last)) &&
    (name.length * 3 <= MAX_NAME || utf8(name).length <= MAX_NAME)
  );
}

/** Whether messages can be published under this name. */
export function isTopic(name: string): boolean {
  return isName(name, (token) => TOKEN.test(token));
}

/** Whether this is a topic or a pattern of topics. */
export function isFilter(name: string): boolean {
  return isName(
    name,
    (token, isLast) => token === "*" || (isLast && token === ">") || TOKEN.test(token),
  );
}

/** Whether a filter matches a topic. */
export function matches(filter: string, topic: string): boolean {
  const pattern = filter.split(".");
  const tokens = topic.split(".");
  const open = pattern.at(-1) === ">";
  if (open) pattern.pop();
  return (
    (open ? tokens.length > pattern.length : tokens.length === pattern.length) &&
    pattern.every((token, at) => token === "*" || token === tokens[at])
  );
}
