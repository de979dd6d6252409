import { deepStrictEqual, strictEqual, throws } from "node:assert";
import { test } from "node:test";

import { JsonNumber, parseByScan, parseExact, rawAt, toJson, valueAt } from "../sdk/json.ts";
import { toBytes, toText } from "../sdk/text.ts";

const DOCUMENT = ` {"a":{"b/c":[10, 1.50 ,{"~":null}], "":"x"},"n":123456789012345678901234567890,"s":"a\\"]}\\\\","é\\u00e9":[[],{}],"__proto__":{"x":1}} `;

test("members are found by pointer with their exact text", () => {
  const cases: [string, string | undefined][] = [
    ["", DOCUMENT.trim()],
    ["/a/b~1c/0", "10"],
    ["/a/b~1c/1", "1.50"],
    ["/a/b~1c/2/~0", "null"],
    ["/a/", '"x"'],
    ["/n", "123456789012345678901234567890"],
    ["/s", '"a\\"]}\\\\"'],
    ["/éé/0", "[]"],
    ["/éé/1", "{}"],
    ["/__proto__/x", "1"],
  ];
  for (const [pointer, text] of cases) strictEqual(rawAt(DOCUMENT, pointer), text, pointer);
});

test("what is not there is undefined", () => {
  for (const pointer of ["/x", "/a/b", "/a/b~1c/3", "/a/b~1c/01", "/a/b~1c/-", "/n/0", "/s/0", "a", "/constructor", "/éé/0/0"]) {
    strictEqual(rawAt(DOCUMENT, pointer), undefined, pointer);
    strictEqual(valueAt(JSON.parse(DOCUMENT), pointer), undefined, pointer);
    strictEqual(valueAt(parseExact(DOCUMENT), pointer), undefined, pointer);
  }
});

test("an exact document is the plain one with other numbers", () => {
  const plain = JSON.parse(DOCUMENT, (_name, value) => (typeof value === "number" ? "number" : value));
  for (const parse of [parseExact, parseByScan]) {
    const marked = (value: unknown): unknown => {
      if (value instanceof JsonNumber) return "number";
      if (Array.isArray(value)) return value.map(marked);
      if (typeof value !== "object" || value === null) return value;
      return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, marked(member)]));
    };
    deepStrictEqual(marked(parse(DOCUMENT)), plain);
    deepStrictEqual(Object.keys(parse(DOCUMENT) as object), Object.keys(plain));
    strictEqual(String(valueAt(parse(DOCUMENT), "/n")), "123456789012345678901234567890");
    strictEqual(String(valueAt(parse("[1.50,-0,1E5]"), "/0")), "1.50");
    strictEqual(toJson(parse("[1.50,-0,1E5, true,false,null]")), "[1.50,-0,1E5,true,false,null]");
  }
  throws(() => parseExact('{"a":}'), SyntaxError);
});

test("every text that is printed is read again as the same", () => {
  // A small generator with a seed of its own, so that a failure can be repeated.
  let state = 7;
  const next = (below: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % below;
  };
  const pick = <T>(all: T[]): T => all[next(all.length)]!;
  const text = (depth: number): string => {
    const space = pick(["", "", " ", "\n\t"]);
    switch (next(depth > 4 ? 3 : 5)) {
      case 0: return space + pick(["0", "-1.50", "1e5", "0.1E-7", "99999999999999999999", "true", "false", "null"]) + space;
      case 1: return space + pick(['""', '"a"', '"\\\\"', '"\\""', '"é]}{["', '"\\u00e9\\n"']) + space;
      case 2: return pick(["[]", "{}", "[ ]", "{ }"]);
      case 3: return `[${Array.from({ length: next(4) }, () => text(depth + 1)).join()}]`;
      default: return `{${Array.from({ length: next(4) }, (_, n) => `${space}"${pick(["k", "\\u006b", "é"])}${n}"${space}:${text(depth + 1)}`).join()}}`;
    }
  };
  for (let round = 0; round < 500; round++) {
    const json = text(0);
    const members = (value: unknown, at: string): void => {
      const raw = rawAt(json, at);
      deepStrictEqual(JSON.parse(raw!), value, `${at} of ${json}`);
      if (typeof value !== "object" || value === null) return;
      for (const [name, member] of Object.entries(value)) members(member, `${at}/${name}`);
    };
    members(JSON.parse(json), "");
    deepStrictEqual(JSON.parse(toJson(parseByScan(json))), JSON.parse(json), json);
  }
});

test("a number has its exact value", () => {
  const cases: [string, number, bigint | undefined][] = [
    ["2", 0, 2n], ["2.0", 0, 2n], ["2e0", 0, 2n], ["20e-1", 0, 2n], ["0.2E+1", 0, 2n], ["1.5", 0, undefined],
    ["-7", 0, -7n], ["-0", 0, 0n], ["0e-999999999999999999999", 0, 0n], ["0.000", 0, 0n], ["1e-400", 0, undefined],
    ["1.00000000000000000000000000000001", 0, undefined], ["12.50", 2, 1250n], ["12.505", 2, undefined], ["1e3", 2, 100000n],
    ["1e999", 0, 10n ** 999n], ["1e1000", 0, undefined], ["1e999999999999999999999", 0, undefined], ["007", 0, 7n], ["x", 0, undefined], ["", 0, undefined],
    [`2.${"0".repeat(1000)}`, 0, 2n], [`0.${"0".repeat(200)}1e201`, 0, 1n], [`1${"0".repeat(640)}`, 0, 10n ** 640n], ["0".repeat(64), 0, 0n],
  ];
  for (const [text, decimals, value] of cases) strictEqual(new JsonNumber(text).scaled(decimals), value, text);
  strictEqual(new JsonNumber("2.0").integer(), 2n);
  strictEqual(+new JsonNumber("2.5"), 2.5);
});

test("a value is printed without loss, and what has no JSON form is refused", () => {
  const value = { a: [1, 2.5, "é\n", null, true, 10n ** 20n, new JsonNumber("1.50")], gone: undefined, when: new Date(0) };
  strictEqual(toJson(value), '{"a":[1,2.5,"é\\n",null,true,100000000000000000000,1.50],"when":"1970-01-01T00:00:00.000Z"}');
  for (const bad of [NaN, Infinity, undefined, () => 1, Symbol("x"), new Map(), { a: [NaN] }, [undefined]]) throws(() => toJson(bad), TypeError);
});

test("text becomes UTF-8 and text again", () => {
  const encoder = new TextEncoder();
  for (const text of ["", "plain", "é", "中文 😀", "a".repeat(20_000) + "é", "\0\x7f\x80"]) {
    deepStrictEqual(toBytes(text), encoder.encode(text));
    strictEqual(toText(encoder.encode(text)), text);
  }
  deepStrictEqual(toBytes("a\ud800b"), encoder.encode("a\ufffdb"));
  throws(() => toText(Uint8Array.of(0xff)), URIError);
});
