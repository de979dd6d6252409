/** What a plugin answers. */

import { toJson } from "./json.ts";

/** One finding about an order, or about the plugin's configuration. */
export interface Problem {
  /** Stable word for programs, such as `quantity-not-positive`. */
  readonly code: string;
  /** Short text for people, the same for each order. */
  readonly title: string;
  /** What is wrong with this order. */
  readonly detail?: string | undefined;
  /** JSON Pointer (RFC 6901) to the member at fault. */
  readonly pointer?: string | undefined;
}

/** One change of an order. `value` is JSON text. */
export type PatchOp =
  | { readonly set: string; readonly value: string }
  | { readonly remove: string }
  | { readonly header: string; readonly value: string };

/** What becomes of an order. */
export type Verdict =
  | { readonly verdict: "accept" }
  | { readonly verdict: "enrich"; readonly patch: readonly PatchOp[] }
  | { readonly verdict: "reject"; readonly problems: readonly Problem[] }
  | { readonly verdict: "retry-later"; readonly afterMs: number; readonly reason: string }
  | { readonly verdict: "fault"; readonly code: string; readonly detail: string; readonly retryable: boolean };

/** The order may pass as it is. */
export function accept(): Verdict {
  return { verdict: "accept" };
}

/** The order may pass with these changes, applied in this sequence; without any it is accepted. */
export function enrich(patch: readonly PatchOp[]): Verdict {
  return patch.length === 0 ? accept() : { verdict: "enrich", patch };
}

/** The order is refused for good, with at least one problem. */
export function reject(problems: Problem | readonly Problem[]): Verdict {
  const all: readonly Problem[] = "code" in problems ? [problems] : problems;
  if (all.length === 0) throw new RangeError("reject: at least one problem has to say why");
  return { verdict: "reject", problems: all };
}

/** "Ask me again": the order is held and judged anew, not before this many milliseconds. The client sees the reason. */
export function retryLater(afterMs: number, reason: string): Verdict {
  if (!Number.isInteger(afterMs) || afterMs < 0 || afterMs > 0xffff_ffff) {
    throw new RangeError(`retryLater: ${afterMs} is not a whole number of milliseconds`);
  }
  return { verdict: "retry-later", afterMs, reason };
}

/** The plugin itself has failed; the order is held. An exception becomes one by itself. */
export function fault(code: string, detail: string, options: { retryable?: boolean } = {}): Verdict {
  return { verdict: "fault", code, detail, retryable: options.retryable ?? false };
}

/** A finding. */
export function problem(code: string, title: string, more: { detail?: string; pointer?: string } = {}): Problem {
  return { code, title, detail: more.detail, pointer: more.pointer };
}

/**
 * Creates or replaces a member, or appends to an array with `-`; missing objects on the way are created.
 * The value may hold `bigint` and `JsonNumber`, which keep their digits.
 */
export function set(pointer: string, value: unknown): PatchOp {
  return { set: pointer, value: toJson(value) };
}

/** The same with the JSON text of the value, which is kept as it is. */
export function setRaw(pointer: string, json: string): PatchOp {
  return { set: pointer, value: json };
}

/** Removes a member. */
export function remove(pointer: string): PatchOp {
  return { remove: pointer };
}

/** Gives the order's record a header. */
export function header(name: string, value: string): PatchOp {
  return { header: name, value };
}

/** Thrown by `configure`: the gateway refuses the plugin and shows the problems. */
export class ConfigurationError extends Error {
  readonly problems: readonly Problem[];

  constructor(problems: Problem | readonly Problem[]) {
    const all: readonly Problem[] = "code" in problems ? [problems] : problems;
    super(all.map((one) => one.detail ?? one.title).join("; "));
    this.name = "ConfigurationError";
    this.problems = all;
  }
}
