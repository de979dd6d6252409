/** What a plugin may ask of the gateway: its log, numbers for the operator, and tables to look things up in. */

import { type Exact, parseExact } from "./json.ts";
import { toText } from "./text.ts";

export type Level = "debug" | "info" | "warn" | "error";

/** The imports of the contract, as the gateway gives them. In a native test `testing.ts` stands in. */
export interface Host {
  log: { write(level: Level, message: string): void };
  metrics?: { count(name: string, by: number): void; observe(name: string, value: number): void };
  lookup?: {
    get(table: string, key: string): Uint8Array | null | undefined;
    getMany(table: string, keys: string[]): (Uint8Array | null | undefined)[];
  };
}

let host: Host = { log: { write: () => {} } };

/** Says who answers from now on. */
export function bind(to: Host): void {
  host = to;
}

const line = (level: Level) => (message: unknown): void => host.log.write(level, String(message).toWellFormed());

/** Writes a line to the gateway's log, with the plugin's name beside it. Long lines are cut, too many are dropped. */
export const log = { debug: line("debug"), info: line("info"), warn: line("warn"), error: line("error") };

/** Numbers for the operator, in `/metrics` of the gateway. World `enricher`, to be granted by the operator. */
export const metrics = {
  /** Adds to a counter: a whole number from 0. */
  count(name: string, by = 1): void {
    if (!Number.isInteger(by) || by < 0 || by > 0xffff_ffff) {
      throw new RangeError(`metrics.count: ${by} is not a whole number from 0 to 4294967295`);
    }
    granted(host.metrics, "metrics").count(name.toWellFormed(), by);
  },
  /** Notes one value of a distribution. */
  observe(name: string, value: number): void {
    granted(host.metrics, "metrics").observe(name.toWellFormed(), Number(value));
  },
};

/** A look-up that the gateway does not answer. Where nobody catches it, it becomes the plugin's fault. */
export class LookupError extends Error {
  /** `unknown-table`: the gateway has no such table. `too-many`: the batch has used up its look-ups. */
  readonly code: string;

  constructor(code: string, table: string) {
    super(`look-up in the table ${table}: ${code}`);
    this.name = "LookupError";
    this.code = code;
  }
}

/** Tables that the operator keeps in the gateway's memory. World `enricher`, to be granted by the operator. */
export const lookup = {
  /** The value under a key; `undefined` if the table does not have it. Its numbers are doubles. */
  get(table: string, key: string): any {
    return read(lookup.raw(table, key));
  },
  /** The same with numbers that keep their digits. */
  exact(table: string, key: string): Exact | undefined {
    const text = lookup.raw(table, key);
    return text === undefined ? undefined : parseExact(text);
  },
  /** The JSON text under a key. */
  raw(table: string, key: string): string | undefined {
    return text(ask(table, (tables) => tables.get(table.toWellFormed(), key.toWellFormed())));
  },
  /** The values under many keys, in their sequence; cheaper than one by one. */
  getMany(table: string, keys: string[]): any[] {
    const wanted = keys.map((key) => key.toWellFormed());
    return ask(table, (tables) => tables.getMany(table.toWellFormed(), wanted)).map((value) => read(text(value)));
  },
};

const text = (bytes: Uint8Array | null | undefined) => (bytes == null ? undefined : toText(bytes));
const read = (json: string | undefined) => (json === undefined ? undefined : JSON.parse(json));

function ask<T>(table: string, question: (tables: NonNullable<Host["lookup"]>) => T): T {
  const tables = granted(host.lookup, "lookup");
  try {
    return question(tables);
  } catch (error) {
    // The engine throws the name of the contract's error as a message.
    throw new LookupError(error instanceof Error ? error.message : String(error), table);
  }
}

function granted<T>(part: T | undefined, name: string): T {
  if (part === undefined) throw new Error(`${name} is not there: set world = "enricher" in plugin.toml`);
  return part;
}
