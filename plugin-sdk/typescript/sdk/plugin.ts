/** From what an author writes to a plugin that answers each order, whatever goes wrong in it. */

import { kindOf } from "./json.ts";
import { log } from "./host.ts";
import type { Order } from "./order.ts";
import { ConfigurationError, type Problem, type Verdict, fault, problem } from "./verdict.ts";

/** A plugin that is configured. */
export interface Plugin {
  /** Judges one order. An exception holds the order and counts as the plugin's fault. */
  judge(order: Order): Verdict;
}

/** What an author writes: `configure`, which makes the plugin from the operator's configuration, or `judge` alone. */
export type Definition<Config = any> = Plugin | {
  /**
   * Makes the plugin. Called once for each batch of orders, so keep it cheap. The configuration is a JSON object; an
   * exception refuses the plugin. Its declared type is not checked: look before you trust.
   */
  configure(config: Config): Plugin;
};

/** Declares the plugin of this project: `export default definePlugin({ ... })`. */
export function definePlugin<Config = any>(definition: Definition<Config>): Definition<Config> {
  return definition;
}

/** Makes the plugin from the JSON of its configuration. Throws a `ConfigurationError`, whatever went wrong. */
export function configured(definition: Definition, json: string): Plugin {
  if (typeof definition !== "object" || definition === null) {
    throw new ConfigurationError(invalid('the module has no "export default definePlugin({ ... })"'));
  }
  try {
    const config: unknown = JSON.parse(json);
    if (typeof config !== "object" || config === null || Array.isArray(config)) throw new Error("expected a JSON object");
    const plugin = "configure" in definition ? definition.configure(config) : definition;
    if (typeof plugin?.judge !== "function") throw new Error("configure did not return { judge(order) { ... } }");
    return plugin;
  } catch (error) {
    if (error instanceof ConfigurationError && error.problems.length > 0) throw error;
    throw new ConfigurationError(invalid(messageOf(error)));
  }
}

const invalid = (detail: string): Problem => problem("invalid-configuration", "Invalid configuration", { detail });

/** Judges one order; an exception becomes a fault with its message, and its place goes to the log. */
export function judged(plugin: Plugin, order: Order): Verdict {
  try {
    const verdict: unknown = plugin.judge(order);
    return isVerdict(verdict) ? verdict : fault("no-verdict", `judge returned ${kindOf(verdict)} instead of a verdict`);
  } catch (error) {
    if (error instanceof Error && error.stack) log.error(`${messageOf(error)}\n${error.stack}`);
    const hasCode = error instanceof Error && "code" in error && typeof error.code === "string";
    return fault(hasCode ? (error.code as string) : "exception", messageOf(error));
  }
}

function isVerdict(value: unknown): value is Verdict {
  return typeof value === "object" && value !== null && "verdict" in value;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}
