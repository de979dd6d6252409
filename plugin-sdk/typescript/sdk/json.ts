/**
 * JSON without loss: the exact text of a member, and numbers that keep their digits.
 *
 * Everything here expects a valid document, as the gateway hands it over; `parseExact` checks it, `rawAt` does not.
 */

/** Digits of a number that `JsonNumber.scaled` works with at most; a longer one has no value there. */
const DIGITS_MAX = 1000;

const ZEROS = "0".repeat(64);

const NUMBER = /^(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?$/;
const INDEX = /^(?:0|[1-9][0-9]*)$/;

/** A number as it was written. */
export class JsonNumber {
  /** The digits as they stand in the document, such as `12.50` or `2e0`. */
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  /** The value if it is integral, however it is written: `2`, `2.0` and `2e0` are `2n`. */
  integer(): bigint | undefined {
    return this.scaled(0);
  }

  /** The value times ten to the power of `decimals`, if that is integral: `12.50` with 2 decimals is `1250n`. */
  scaled(decimals: number): bigint | undefined {
    const match = NUMBER.exec(this.text);
    if (match === null) return undefined;
    const fraction = match[3] ?? "";
    const digits = match[2] + fraction;
    let start = 0;
    let end = digits.length;
    // In strides, as an order may have a number of many thousand zeros.
    while (digits.startsWith(ZEROS, start)) start += ZEROS.length;
    while (start < end && digits.charCodeAt(start) === 48) start++;
    if (start === end) return 0n;
    while (digits.endsWith(ZEROS, end)) end -= ZEROS.length;
    while (digits.charCodeAt(end - 1) === 48) end--;
    const zeros = Number(match[4] ?? 0) - fraction.length + decimals + (digits.length - end);
    if (zeros < 0 || end - start + zeros > DIGITS_MAX) return undefined;
    const value = BigInt(digits.slice(start, end) + "0".repeat(zeros));
    return match[1] === "" ? value : -value;
  }

  /** The nearest double. Not for money. */
  valueOf(): number {
    return Number(this.text);
  }

  toString(): string {
    return this.text;
  }

  toJSON(): number {
    return Number(this.text);
  }
}

/** A JSON value whose numbers keep their digits. */
export type Exact = null | boolean | string | JsonNumber | Exact[] | { [name: string]: Exact };

type Reviver = (this: unknown, name: string, value: unknown, context?: { source?: string }) => unknown;

/** QuickJS and newer Nodes hand the source text of a number to a reviver. */
const HAS_SOURCE = (() => {
  let source: string | undefined;
  const note: Reviver = (_name, _value, context) => (source = context?.source);
  JSON.parse("1.50", note);
  return source === "1.50";
})();

const withSource: Reviver = (_name, value, context) =>
  typeof value === "number" ? new JsonNumber(context?.source ?? String(value)) : value;

/** Parses a document; its numbers become `JsonNumber`. Throws a `SyntaxError` where it is none. */
export function parseExact(text: string): Exact {
  if (HAS_SOURCE) return JSON.parse(text, withSource);
  JSON.parse(text);
  return parseByScan(text);
}

/** The same for engines without source texts. The document has been checked. */
export function parseByScan(text: string): Exact {
  return exactAt(text, skipSpace(text, 0));
}

function exactAt(text: string, start: number): Exact {
  switch (text[start]) {
    case "{": {
      const members: { [name: string]: Exact } = {};
      for (const member of membersOf(text, start)) {
        // A plain assignment would not make a member called `__proto__`.
        const value = exactAt(text, member.start);
        Object.defineProperty(members, member.name, { value, writable: true, enumerable: true, configurable: true });
      }
      return members;
    }
    case "[":
      return Array.from(elementsOf(text, start), (element) => exactAt(text, element.start));
    case '"':
      return JSON.parse(text.slice(start, skipString(text, start)));
    case "t":
      return true;
    case "f":
      return false;
    case "n":
      return null;
    default:
      return new JsonNumber(text.slice(start, skipValue(text, start)));
  }
}

/** The exact text of the value under a JSON Pointer (RFC 6901); `undefined` if there is none. */
export function rawAt(text: string, pointer: string): string | undefined {
  const names = pointerNames(pointer);
  let start = skipSpace(text, 0);
  for (const name of names ?? []) {
    let found = -1;
    if (text[start] === "{") {
      for (const member of membersOf(text, start)) {
        if (member.name !== name) continue;
        found = member.start;
        break;
      }
    } else if (text[start] === "[" && INDEX.test(name)) {
      let left = Number(name);
      for (const element of elementsOf(text, start)) {
        if (left-- > 0) continue;
        found = element.start;
        break;
      }
    }
    if (found < 0) return undefined;
    start = found;
  }
  return names && text.slice(start, skipValue(text, start));
}

/** The value under a JSON Pointer (RFC 6901) in what `JSON.parse` or `parseExact` gave. */
export function valueAt(value: unknown, pointer: string): unknown {
  const names = pointerNames(pointer);
  if (names === undefined) return undefined;
  for (const name of names) {
    if (Array.isArray(value)) {
      value = INDEX.test(name) ? value[Number(name)] : undefined;
    } else if (typeof value === "object" && value !== null && !(value instanceof JsonNumber)) {
      value = Object.hasOwn(value, name) ? (value as { [name: string]: unknown })[name] : undefined;
    } else {
      return undefined;
    }
  }
  return value;
}

/** The names of a JSON Pointer; `undefined` if it is none. */
export function pointerNames(pointer: string): string[] | undefined {
  if (pointer === "") return [];
  if (!pointer.startsWith("/")) return undefined;
  return pointer.slice(1).split("/").map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** A name as it stands in a JSON Pointer. */
export function pointerName(name: string): string {
  return name.replaceAll("~", "~0").replaceAll("/", "~1");
}

/**
 * The JSON of a value, without white space: what `JSON.stringify` gives, with `bigint` and `JsonNumber` in their digits.
 * Throws where a value has no JSON form, such as `NaN`, `undefined` or a function.
 */
export function toJson(value: unknown): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value);
    case "bigint":
      return value.toString();
    case "boolean":
      return value ? "true" : "false";
    case "number":
      if (Number.isFinite(value)) return JSON.stringify(value);
      break;
    case "object": {
      if (value === null) return "null";
      if (value instanceof JsonNumber) return value.text;
      if ("toJSON" in value && typeof value.toJSON === "function") return toJson(value.toJSON());
      if (Array.isArray(value)) return `[${value.map(toJson).join()}]`;
      if (value instanceof Map || value instanceof Set) break;
      const members = Object.entries(value).filter(([, member]) => member !== undefined);
      return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${toJson(member)}`).join()}}`;
    }
  }
  throw new TypeError(`${kindOf(value)} has no JSON form`);
}

/** What a value is, for messages. */
export function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (typeof value === "object") return value.constructor?.name ?? "an object";
  return typeof value === "number" || typeof value === "boolean" ? String(value) : typeof value;
}

/** The members of the object that begins at `start`. */
export function* membersOf(text: string, start: number): Generator<{ name: string; start: number; end: number }> {
  let here = skipSpace(text, start + 1);
  while (text[here] === '"') {
    const nameEnd = skipString(text, here);
    const written = text.slice(here + 1, nameEnd - 1);
    const name: string = written.includes("\\") ? JSON.parse(`"${written}"`) : written;
    const value = skipSpace(text, skipSpace(text, nameEnd) + 1);
    const end = skipValue(text, value);
    yield { name, start: value, end };
    here = skipSpace(text, end);
    if (text[here] !== ",") return;
    here = skipSpace(text, here + 1);
  }
}

/** The elements of the array that begins at `start`. */
export function* elementsOf(text: string, start: number): Generator<{ start: number; end: number }> {
  let here = skipSpace(text, start + 1);
  while (here < text.length && text[here] !== "]") {
    const end = skipValue(text, here);
    yield { start: here, end };
    here = skipSpace(text, end);
    if (text[here] !== ",") return;
    here = skipSpace(text, here + 1);
  }
}

export function skipSpace(text: string, here: number): number {
  for (;;) {
    const unit = text.charCodeAt(here);
    if (unit !== 32 && unit !== 10 && unit !== 13 && unit !== 9) return here;
    here++;
  }
}

/** Behind the string that begins at `start`. */
function skipString(text: string, start: number): number {
  for (let here = start + 1; ; ) {
    const quote = text.indexOf('"', here);
    if (quote < 0) throw new SyntaxError(`a string without an end at ${start}`);
    let slashes = 0;
    while (text.charCodeAt(quote - 1 - slashes) === 92) slashes++;
    here = quote + 1;
    if (slashes % 2 === 0) return here;
  }
}

/** Behind the value that begins at `start`. */
function skipValue(text: string, start: number): number {
  const first = text[start];
  if (first === '"') return skipString(text, start);
  if (first !== "{" && first !== "[") {
    const end = /[,\]}\s]|$/g;
    end.lastIndex = start;
    return end.exec(text)?.index ?? text.length;
  }
  const next = /["{}[\]]/g;
  let depth = 0;
  for (let here = start; ; ) {
    next.lastIndex = here;
    const match = next.exec(text);
    if (match === null) throw new SyntaxError(`a value without an end at ${start}`);
    here = match.index + 1;
    if (match[0] === '"') here = skipString(text, match.index);
    else if (match[0] === "{" || match[0] === "[") depth++;
    else if (--depth === 0) return here;
  }
}
