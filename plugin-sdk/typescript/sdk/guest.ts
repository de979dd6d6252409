/** The side that faces the gateway: from the contract's types to the SDK's and back. `build` makes the entry that calls it. */

import { type Host, bind } from "./host.ts";
import { Order, type OrderFacts } from "./order.ts";
import { type Definition, type Plugin, configured, judged } from "./plugin.ts";
import { toBytes, toText } from "./text.ts";
import { ConfigurationError, type PatchOp, type Problem, type Verdict, fault } from "./verdict.ts";

interface Event extends OrderFacts {
  seq: number;
  body: Uint8Array;
}

/** A variant or a result of the contract. */
interface Tagged {
  tag: string;
  val?: unknown;
}

/** The exports of the contract for one plugin. */
export function guest(definition: Definition, host: Host) {
  let plugin: Plugin | undefined;
  bind(host);
  return {
    lifecycle: {
      configure(config: Uint8Array): void {
        try {
          plugin = configured(definition, toText(config));
        } catch (error) {
          // A function of the contract that may fail throws the payload of its error.
          throw error instanceof ConfigurationError ? error.problems.map(toProblem) : error;
        }
      },
    },
    processor: {
      process(batch: Event[]): { seq: number; verdict: Tagged }[] {
        return batch.map((event) => ({ seq: event.seq, verdict: answered(plugin, event) }));
      },
    },
  };
}

function answered(plugin: Plugin | undefined, event: Event): Tagged {
  try {
    return toResult(plugin ? judged(plugin, new Order(event, event.body)) : fault("not-configured", "not configured"));
  } catch (error) {
    return toResult(fault("invalid-verdict", String(error)));
  }
}

function toResult(verdict: Verdict): Tagged {
  switch (verdict.verdict) {
    case "accept":
      return ok({ tag: "accept" });
    case "enrich":
      return ok({ tag: "enrich", val: verdict.patch.map(toPatchOp) });
    case "reject":
      return ok({ tag: "reject", val: verdict.problems.map(toProblem) });
    case "retry-later":
      return ok({ tag: "retry-later", val: { afterMs: verdict.afterMs, reason: word(verdict.reason, "a reason") } });
    case "fault":
      return {
        tag: "err",
        val: { code: String(verdict.code), detail: String(verdict.detail).toWellFormed(), retryable: verdict.retryable === true },
      };
    default:
      throw new TypeError(`there is no verdict ${String((verdict as { verdict: unknown }).verdict)}`);
  }
}

const ok = (val: Tagged): Tagged => ({ tag: "ok", val });

function toPatchOp(op: PatchOp): Tagged {
  if ("set" in op) return { tag: "set", val: [word(op.set, "a pointer"), toBytes(word(op.value, "a value"))] };
  if ("remove" in op) return { tag: "remove", val: word(op.remove, "a pointer") };
  return { tag: "header", val: [word(op.header, "a header's name"), word(op.value, "a header's value")] };
}

function toProblem(one: Problem) {
  return {
    code: word(one.code, "a problem's code"),
    title: word(one.title, "a problem's title"),
    detail: one.detail == null ? null : word(one.detail, "a problem's detail"),
    pointer: one.pointer == null ? null : word(one.pointer, "a problem's pointer"),
  };
}

/** Text that the contract can carry: the engine would turn anything else into a bare trap. */
function word(text: unknown, what: string): string {
  if (typeof text !== "string") throw new TypeError(`${what} has to be a string`);
  return text.toWellFormed();
}
