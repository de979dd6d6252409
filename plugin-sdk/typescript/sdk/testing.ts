/** Runs a plugin natively, in a unit test: without WebAssembly and without a gateway. */

// @ts-ignore: this file is for Node, whose types a plugin does not need
import { deepStrictEqual, strictEqual } from "node:assert";
// @ts-ignore: as above
import { readFileSync } from "node:fs";

import { type Host, type Level, bind } from "./host.ts";
import { elementsOf, membersOf, pointerNames, skipSpace } from "./json.ts";
import { Order, type OrderFacts } from "./order.ts";
import { type Definition, type Plugin, configured, judged } from "./plugin.ts";
import { toBytes } from "./text.ts";
import type { Problem, Verdict } from "./verdict.ts";

/** What a plugin may look up: by table, by key. */
export interface Tables {
  [table: string]: { [key: string]: unknown };
}

/** A plugin under test. */
export class Harness {
  /** What the plugin has logged. */
  readonly lines: { level: Level; message: string }[] = [];
  /** What it has counted and observed, as name and value. */
  readonly numbers: [name: string, value: number][] = [];
  readonly #plugin: Plugin;

  /** Configures the plugin. `tables` are those it may look things up in. Throws a `ConfigurationError`. */
  constructor(definition: Definition, config: object | string = {}, tables: Tables = {}) {
    bind(this.#host(tables));
    this.#plugin = configured(definition, asText(config));
  }

  /** Judges one order, given as JSON text or as a value. */
  judge(order: object | string, facts: Partial<OrderFacts> = {}): Verdict {
    return judged(this.#plugin, new Order({ ...FACTS, ...facts }, toBytes(asText(order))));
  }

  #host(tables: Tables): Host {
    const value = (table: string, key: string) => {
      if (!Object.hasOwn(tables, table)) throw new Error("unknown-table");
      return Object.hasOwn(tables[table]!, key) ? toBytes(JSON.stringify(tables[table]![key])) : undefined;
    };
    const note = (name: string, number: number) => void this.numbers.push([name, number]);
    return {
      log: { write: (level, message) => void this.lines.push({ level, message }) },
      metrics: { count: note, observe: note },
      lookup: { get: value, getMany: (table, keys) => keys.map((key) => value(table, key)) },
    };
  }
}

const FACTS: OrderFacts = {
  id: "01JD0000000000000000000000",
  route: "/orders",
  kind: "OrderCreated",
  received: "2026-11-25T03:26:49.000Z",
  attempt: 1,
  attrs: [],
};

const asText = (json: object | string): string => (typeof json === "string" ? json : JSON.stringify(json));

/** One line of `vectors.ndjson`: an order and what has to become of it. What `expect` leaves out is not compared. */
export interface Vector {
  name: string;
  attempt?: number;
  expect: {
    verdict: Verdict["verdict"];
    headers?: { [name: string]: string };
    problems?: { code: string; pointer?: string }[];
    reason?: string;
  };
  /** The exact texts. */
  raw: { order: string; config: string | undefined; expected: string | undefined };
}

/** Reads the vectors of a file. */
export function vectors(path = "vectors.ndjson"): Vector[] {
  const lines: string[] = readFileSync(path, "utf8").split("\n");
  return lines.filter((line) => line.trim() !== "").map((line) => {
    const members = textMembers(line);
    const expected = textMembers(members["expect"] ?? "{}")["order"];
    return { ...JSON.parse(line), raw: { order: members["order"] ?? "{}", config: members["config"], expected } };
  });
}

/** Judges a vector's order and compares. `config` is for vectors that have none. */
export function check(definition: Definition, vector: Vector, config: object | string = {}): void {
  const verdict = new Harness(definition, vector.raw.config ?? config).judge(vector.raw.order, { attempt: vector.attempt ?? 1 });
  const { expect } = vector;
  strictEqual(verdict.verdict, expect.verdict, JSON.stringify(verdict));
  if (expect.problems) deepStrictEqual(problemsOf(verdict).map(brief), expect.problems.map(brief));
  if (expect.headers) deepStrictEqual(headersOf(verdict), { ...expect.headers });
  if (expect.reason !== undefined) strictEqual(verdict.verdict === "retry-later" ? verdict.reason : undefined, expect.reason);
  if (vector.raw.expected !== undefined) deepStrictEqual(tree(patched(vector.raw.order, verdict)), tree(vector.raw.expected));
}

const brief = ({ code, pointer }: Pick<Problem, "code" | "pointer">) => (pointer === undefined ? { code } : { code, pointer });

function problemsOf(verdict: Verdict): readonly Problem[] {
  return verdict.verdict === "reject" ? verdict.problems : [];
}

/** The headers that a verdict gives the order's record. */
export function headersOf(verdict: Verdict): { [name: string]: string } {
  const ops = verdict.verdict === "enrich" ? verdict.patch : [];
  return Object.fromEntries(ops.flatMap((op) => ("header" in op ? [[op.header, op.value]] : [])));
}

/** The order as a verdict leaves it, as JSON text. */
export function patched(order: string, verdict: Verdict): string {
  let root = tree(order);
  for (const op of verdict.verdict === "enrich" ? verdict.patch : []) {
    if ("header" in op) continue;
    const pointer = "set" in op ? op.set : op.remove;
    const names = pointerNames(pointer);
    if (!names || names.length === 0) throw new Error(`${pointer} is not a JSON Pointer to a member`);
    root = "set" in op ? withValue(root, names, tree(op.value), pointer) : without(root, names, pointer);
  }
  return printed(root);
}

/** JSON whose scalars are their exact text. */
type Tree = string | Tree[] | Map<string, Tree>;

function tree(text: string, start = -1): Tree {
  if (start < 0) {
    JSON.parse(text);
    start = skipSpace(text, 0);
    if (text[start] !== "{" && text[start] !== "[") return text.trim();
  }
  const part = ({ start, end }: { start: number; end: number }): Tree =>
    text[start] === "{" || text[start] === "[" ? tree(text, start) : text.slice(start, end);
  if (text[start] === "[") return Array.from(elementsOf(text, start), part);
  return new Map(Array.from(membersOf(text, start), (member) => [member.name, part(member)]));
}

function printed(value: Tree): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return `[${value.map(printed).join()}]`;
  return `{${Array.from(value, ([name, member]) => `${JSON.stringify(name)}:${printed(member)}`).join()}}`;
}

function textMembers(object: string): { [name: string]: string } {
  const members = membersOf(object, skipSpace(object, 0));
  return Object.fromEntries(Array.from(members, ({ name, start, end }) => [name, object.slice(start, end)]));
}

function withValue(at: Tree | undefined, [name, ...rest]: string[], value: Tree, pointer: string): Tree {
  if (name === undefined) return value;
  if (at === undefined) return new Map([[name, withValue(undefined, rest, value, pointer)]]);
  if (at instanceof Map) return new Map(at).set(name, withValue(at.get(name), rest, value, pointer));
  if (typeof at === "string") throw new Error(`${pointer}: a value on the way is neither an object nor an array`);
  const index = name === "-" ? at.length : Number(name);
  if (!Number.isInteger(index) || index > at.length) throw new Error(`${pointer}: no element of the array`);
  const copy = [...at];
  copy[index] = withValue(at[index], rest, value, pointer);
  return copy;
}

function without(at: Tree | undefined, [name, ...rest]: string[], pointer: string): Tree {
  const child = at instanceof Map ? at.get(name!) : Array.isArray(at) ? at[Number(name)] : undefined;
  if (child === undefined) throw new Error(`${pointer}: there is nothing to remove`);
  if (at instanceof Map) {
    const copy = new Map(at);
    if (rest.length > 0) copy.set(name!, without(child, rest, pointer));
    else copy.delete(name!);
    return copy;
  }
  const index = Number(name);
  const elements = at as Tree[];
  return rest.length > 0 ? elements.with(index, without(child, rest, pointer)) : elements.toSpliced(index, 1);
}
