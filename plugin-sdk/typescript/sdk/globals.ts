/**
 * What the sandbox does not have says so, instead of a bare trap: the clock and chance. `console` goes to the gateway's log.
 * Only for the built plugin; native tests keep Node's own.
 */

import { type Level, log } from "./host.ts";

const none = (what: string, instead: string) => (): never => {
  throw new Error(`${what}: a plugin has no ${instead}`);
};

const SystemDate = Date;
const noClock = none("Date", "clock; the order has `received`");

function PluginDate(this: unknown, ...parts: unknown[]): Date {
  if (new.target === undefined || parts.length === 0) noClock();
  return Reflect.construct(SystemDate, parts, new.target!);
}
PluginDate.prototype = SystemDate.prototype;
PluginDate.prototype.constructor = PluginDate as unknown as DateConstructor;

Object.assign(PluginDate, { parse: SystemDate.parse, UTC: SystemDate.UTC, now: noClock });
Object.assign(globalThis, { Date: PluginDate, performance: { now: noClock } });
Math.random = none("Math.random", "randomness; what it answers depends on its configuration and on the order alone");

const line = (level: Level) => (...parts: unknown[]): void => {
  log[level](parts.map((part) => (typeof part === "string" ? part : shown(part))).join(" "));
};

function shown(part: unknown): string {
  if (part instanceof Error) return `${part.name}: ${part.message}\n${part.stack ?? ""}`;
  try {
    return JSON.stringify(part) ?? String(part);
  } catch {
    return String(part);
  }
}

Object.assign(globalThis, {
  console: { debug: line("debug"), log: line("info"), info: line("info"), warn: line("warn"), error: line("error") },
});
