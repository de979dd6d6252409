// JSON as it was written: a value is a piece of text, and reading it makes no copy and rounds no number.
//
// The gateway has checked the text, so nothing here checks it again: what is no JSON is read as an absent member.

export enum Kind {
  Absent,
  Object,
  Array,
  String,
  Number,
  Boolean,
  Null,
}

const QUOTE: u8 = 0x22;
const BACKSLASH: u8 = 0x5c;
const REPLACEMENT: u32 = 0xfffd;

/** One JSON value, by its exact text. */
export class Value {
  constructor(
    /** Where the text begins in memory. */
    readonly start: usize,
    /** Where it ends. */
    readonly end: usize,
  ) {}

  /** The value of a JSON text, for tests and for values of the plugin's own. */
  static of(text: string): Value {
    const size = String.UTF8.byteLength(text);
    const bytes = heap.alloc(size);
    String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, bytes);
    const scan = new Scan(bytes, bytes + size);
    scan.space();
    return scan.value();
  }

  get kind(): Kind {
    if (this.start >= this.end) return Kind.Absent;
    const c = load<u8>(this.start);
    if (c == 0x7b) return Kind.Object;
    if (c == 0x5b) return Kind.Array;
    if (c == QUOTE) return Kind.String;
    if (c == 0x74 || c == 0x66) return Kind.Boolean;
    return c == 0x6e ? Kind.Null : Kind.Number;
  }

  get isAbsent(): bool {
    return this.kind == Kind.Absent;
  }
  get isObject(): bool {
    return this.kind == Kind.Object;
  }
  get isArray(): bool {
    return this.kind == Kind.Array;
  }
  get isString(): bool {
    return this.kind == Kind.String;
  }
  get isNumber(): bool {
    return this.kind == Kind.Number;
  }
  get isNull(): bool {
    return this.kind == Kind.Null;
  }
  get isTrue(): bool {
    return this.kind == Kind.Boolean && load<u8>(this.start) == 0x74;
  }

  /** The text as it was written: `2.50` stays `2.50`. */
  get raw(): string {
    return String.UTF8.decodeUnsafe(this.start, this.end - this.start);
  }

  /** A string without its quotes and escapes; empty if it is no string. */
  get text(): string {
    return this.kind == Kind.String ? unescaped(this.start + 1, this.end - 1) : "";
  }

  /**
   * A number with an integral value, however it was written: `2`, `2.0` and `2e0` are all 2. If it is no number, not
   * integral, or does not fit 64 bits: `otherwise`. No float is involved.
   */
  integer(otherwise: i64): i64 {
    return this.kind == Kind.Number ? integral(this.start, this.end, otherwise) : otherwise;
  }

  /** Whether it is a string and says this. */
  is(text: string): bool {
    return this.kind == Kind.String && sameText(this.start + 1, this.end - 1, text);
  }

  /** A member of an object by its name; absent if there is none, or this is no object. */
  get(name: string): Value {
    if (this.kind == Kind.Object) {
      const scan = new Scan(this.start, this.end);
      while (scan.more()) {
        const start = scan.at;
        scan.skip();
        const found = sameText(start + 1, scan.at - 1, name);
        scan.colon();
        const from = scan.at;
        scan.skip();
        if (found) return new Value(from, scan.at);
      }
    }
    return new Value(0, 0);
  }

  /** The members of an object, in their sequence; none if this is no object. */
  members(): Member[] {
    const all: Member[] = [];
    if (this.kind == Kind.Object) {
      const scan = new Scan(this.start, this.end);
      while (scan.more()) {
        const name = scan.value();
        scan.colon();
        all.push(new Member(name, scan.value()));
      }
    }
    return all;
  }

  /** The elements of an array, in their sequence; none if this is no array. */
  elements(): Value[] {
    const all: Value[] = [];
    if (this.kind == Kind.Array) {
      const scan = new Scan(this.start, this.end);
      while (scan.more()) all.push(scan.value());
    }
    return all;
  }

  /** How many elements an array or members an object has. */
  get count(): i32 {
    let n = 0;
    const kind = this.kind;
    if (kind == Kind.Object || kind == Kind.Array) {
      const scan = new Scan(this.start, this.end);
      for (; scan.more(); n++) {
        scan.skip();
        if (kind == Kind.Array) continue;
        scan.colon();
        scan.skip();
      }
    }
    return n;
  }

  /** What a JSON Pointer (RFC 6901) leads to, such as `/lines/0/quantity`; absent if it leads nowhere. */
  pointer(path: string): Value {
    if (path.length == 0) return this;
    if (path.charCodeAt(0) != 0x2f) return new Value(0, 0);
    const tokens = path.substring(1).split("/");
    let found: Value = this;
    for (let i = 0; i < tokens.length; i++) {
      const token = tokens[i].replaceAll("~1", "/").replaceAll("~0", "~");
      if (found.kind == Kind.Array) {
        const index = position(token);
        const elements = found.elements();
        if (index < 0 || index >= elements.length) return new Value(0, 0);
        found = elements[index];
      } else {
        found = found.get(token);
      }
    }
    return found;
  }
}

/** A member of an object. */
export class Member {
  constructor(
    readonly key: Value,
    readonly value: Value,
  ) {}

  get name(): string {
    return this.key.text;
  }
}

/** A walk over the parts of an object or array. */
export class Scan {
  at: usize;

  constructor(
    start: usize,
    readonly end: usize,
  ) {
    this.at = start;
  }

  /** Steps over the opening bracket or the comma; false at the closing bracket. */
  more(): bool {
    this.space();
    if (this.closed) return false;
    this.at++;
    this.space();
    return !this.closed;
  }

  private get closed(): bool {
    if (this.at >= this.end) return true;
    const c = load<u8>(this.at);
    return c == 0x5d || c == 0x7d;
  }

  colon(): void {
    this.space();
    this.at++;
    this.space();
  }

  space(): void {
    while (this.at < this.end && load<u8>(this.at) <= 0x20) this.at++;
  }

  value(): Value {
    const start = this.at;
    this.skip();
    return new Value(start, this.at);
  }

  /** Steps over one value. */
  skip(): void {
    const end = this.end;
    let at = this.at;
    let depth = 0;
    while (at < end) {
      const c = load<u8>(at);
      if (c == QUOTE) {
        at = endOfString(at, end);
        if (depth == 0) break;
        continue;
      }
      if (c == 0x7b || c == 0x5b) {
        depth++;
      } else if (c == 0x7d || c == 0x5d) {
        if (depth == 0) break;
        if (--depth == 0) {
          at++;
          break;
        }
      } else if (depth == 0 && (c == 0x2c || c == 0x3a || c <= 0x20)) {
        break;
      }
      at++;
    }
    this.at = at;
  }
}

function endOfString(start: usize, end: usize): usize {
  let at = start + 1;
  while (at < end) {
    const c = load<u8>(at);
    if (c == QUOTE) return at + 1;
    at += c == BACKSLASH ? 2 : 1;
  }
  return end;
}

/** Whether a string, given without its quotes, says this. */
function sameText(start: usize, end: usize, text: string): bool {
  const size = <usize>text.length;
  for (let i: usize = 0; start + i < end; i++) {
    const own = load<u8>(start + i);
    if (own == BACKSLASH || own >= 0x80) return unescaped(start, end) == text;
    if (i >= size || load<u16>(changetype<usize>(text) + (i << 1)) != own) return false;
  }
  return end - start == size;
}

function unescaped(start: usize, end: usize): string {
  let at = start;
  while (at < end && load<u8>(at) != BACKSLASH) at++;
  if (at >= end) return String.UTF8.decodeUnsafe(start, end - start);
  // An escape is never shorter than what it stands for.
  const units = heap.alloc((end - start) << 1);
  let out = units;
  at = start;
  while (at < end) {
    let run = at;
    while (run < end && load<u8>(run) != BACKSLASH) run++;
    if (run > at) {
      const piece = String.UTF8.decodeUnsafe(at, run - at);
      memory.copy(out, changetype<usize>(piece), <usize>piece.length << 1);
      out += <usize>piece.length << 1;
      at = run;
      continue;
    }
    const escape = load<u8>(at + 1);
    at += 2;
    let unit: u32 = escape;
    if (escape == 0x75) {
      unit = hex(at, end);
      at += 4;
    } else if (escape == 0x6e) unit = 0x0a;
    else if (escape == 0x74) unit = 0x09;
    else if (escape == 0x72) unit = 0x0d;
    else if (escape == 0x62) unit = 0x08;
    else if (escape == 0x66) unit = 0x0c;
    store<u16>(out, unit);
    out += 2;
  }
  const text = String.UTF16.decodeUnsafe(units, out - units);
  heap.free(units);
  return text;
}

function hex(at: usize, end: usize): u32 {
  if (at + 4 > end) return REPLACEMENT;
  let unit: u32 = 0;
  for (let i: usize = 0; i < 4; i++) {
    const c = <u32>load<u8>(at + i);
    unit = (unit << 4) | (c <= 0x39 ? c - 0x30 : (c | 0x20) - 0x61 + 10);
  }
  return unit;
}

function position(token: string): i32 {
  if (token.length == 0 || token.length > 9 || (token.length > 1 && token.charCodeAt(0) == 0x30)) return -1;
  let value = 0;
  for (let i = 0; i < token.length; i++) {
    const digit = token.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value;
}

/** The value of a number that has no fraction. */
function integral(start: usize, end: usize, otherwise: i64): i64 {
  const far: i64 = 1_000_000_000;
  const negative = load<u8>(start) == 0x2d;
  let exponent: i64 = 0;
  // Digits from the first to the last that is not zero, and how many zeros come after it.
  let significant: u64 = 0;
  let zeros: i64 = 0;
  let afterPoint = false;
  let tooLong = false;
  for (let at = start; at < end; at++) {
    const c = load<u8>(at);
    if (c == 0x2e) afterPoint = true;
    if ((c | 0x20) == 0x65) {
      exponent += power(at + 1, end, far);
      break;
    }
    if (c < 0x30 || c > 0x39) continue;
    if (afterPoint) exponent--;
    zeros++;
    if (c == 0x30) continue;
    for (; zeros > 0 && !tooLong; zeros--) {
      tooLong = significant > u64.MAX_VALUE / 10;
      significant *= 10;
    }
    zeros = 0;
    const digit = <u64>(c - 0x30);
    tooLong = tooLong || significant > u64.MAX_VALUE - digit;
    significant += digit;
  }
  if (tooLong) return otherwise;
  if (significant == 0) return 0;
  exponent += zeros;
  if (exponent < 0) return otherwise;
  for (; exponent > 0; exponent--) {
    if (significant > u64.MAX_VALUE / 10) return otherwise;
    significant *= 10;
  }
  if (significant > <u64>i64.MAX_VALUE + (negative ? 1 : 0)) return otherwise;
  return negative ? -(<i64>significant) : <i64>significant;
}

function power(start: usize, end: usize, far: i64): i64 {
  let value: i64 = 0;
  for (let at = start; at < end; at++) {
    const c = load<u8>(at);
    if (c >= 0x30 && c <= 0x39) value = min(value * 10 + (c - 0x30), far);
  }
  return start < end && load<u8>(start) == 0x2d ? -value : value;
}
