import { deepStrictEqual, strictEqual } from "node:assert";
import { test } from "node:test";

import { guest } from "../sdk/guest.ts";
import type { Host } from "../sdk/host.ts";
import * as sluice from "../sdk/sluice.ts";
import { toBytes, toText } from "../sdk/text.ts";

const lines: string[] = [];
const host: Host = { log: { write: (level, message) => void lines.push(`${level}: ${message}`) } };

/** What the gateway gets for one order. */
function answer(judge: (order: sluice.Order) => unknown, body = "{}", with_: Partial<Host> = {}): any {
  const exports = guest(sluice.definePlugin({ judge: judge as (order: sluice.Order) => sluice.Verdict }), { ...host, ...with_ });
  exports.lifecycle.configure(toBytes("{}"));
  const event = { seq: 7, id: "1", route: "/orders", kind: "OrderCreated", received: "", attempt: 2, attrs: [["traceparent", "00"]] as [string, string][] };
  const [outcome] = exports.processor.process([{ ...event, body: toBytes(body) }]);
  strictEqual(outcome!.seq, 7);
  return outcome!.verdict;
}

/** Runs checks where a plugin judges: a check that fails there becomes a fault, which fails here. */
function within(checks: (order: sluice.Order) => void, body = "{}", with_: Partial<Host> = {}): void {
  deepStrictEqual(answer((order) => (checks(order), sluice.accept()), body, with_), ok({ tag: "accept" }));
}

const ok = (val: unknown) => ({ tag: "ok", val });
const fault = (code: string, detail: string, retryable = false) => ({ tag: "err", val: { code, detail, retryable } });

test("each verdict has the form of the contract", () => {
  deepStrictEqual(answer(() => sluice.accept()), ok({ tag: "accept" }));
  deepStrictEqual(answer(() => sluice.enrich([])), ok({ tag: "accept" }));
  const { set, setRaw, remove, header } = sluice;
  deepStrictEqual(answer(() => sluice.enrich([set("/a", { b: 1n }), setRaw("/c", "1.50"), remove("/d"), header("e", "é")])), ok({
    tag: "enrich",
    val: [
      { tag: "set", val: ["/a", toBytes('{"b":1}')] },
      { tag: "set", val: ["/c", toBytes("1.50")] },
      { tag: "remove", val: "/d" },
      { tag: "header", val: ["e", "é"] },
    ],
  }));
  deepStrictEqual(answer(() => sluice.reject(sluice.problem("c", "t", { pointer: "/x" }))), ok({
    tag: "reject",
    val: [{ code: "c", title: "t", detail: null, pointer: "/x" }],
  }));
  deepStrictEqual(answer(() => sluice.retryLater(1000, "soon")), ok({ tag: "retry-later", val: { afterMs: 1000, reason: "soon" } }));
  deepStrictEqual(answer(() => sluice.fault("c", "d", { retryable: true })), fault("c", "d", true));
});

test("an exception becomes a fault with its message, and its place is logged", () => {
  lines.length = 0;
  const verdict = answer(function judge() {
    throw new TypeError("no such thing");
  });
  deepStrictEqual(verdict, fault("exception", "TypeError: no such thing"));
  strictEqual(lines.length, 1);
  strictEqual(lines[0]!.startsWith("error: TypeError: no such thing"), true);
  strictEqual(lines[0]!.includes("judge"), true);
  deepStrictEqual(answer(() => { throw "text"; }), fault("exception", "text"));
});

test("an answer that is no verdict is a fault that says so", () => {
  deepStrictEqual(answer(() => undefined), fault("no-verdict", "judge returned undefined instead of a verdict"));
  deepStrictEqual(answer(async () => sluice.accept()), fault("no-verdict", "judge returned Promise instead of a verdict"));
  deepStrictEqual(answer(() => ({ verdict: "maybe" })), fault("invalid-verdict", "TypeError: there is no verdict maybe"));
  deepStrictEqual(answer(() => sluice.reject([])), fault("exception", "RangeError: reject: at least one problem has to say why"));
  deepStrictEqual(answer(() => sluice.retryLater(0.5, "x")), fault("exception", "RangeError: retryLater: 0.5 is not a whole number of milliseconds"));
  deepStrictEqual(answer(() => sluice.enrich([sluice.header("n", 5 as unknown as string)])), fault("invalid-verdict", "TypeError: a header's value has to be a string"));
  deepStrictEqual(answer(() => sluice.enrich([sluice.set("/a", NaN)])), fault("exception", "TypeError: NaN has no JSON form"));
});

test("lone surrogates, which the contract cannot carry, are replaced", () => {
  deepStrictEqual(answer(() => sluice.reject(sluice.problem("c", "t", { detail: "a\ud800" }))).val.val[0].detail, "a\ufffd");
});

test("one order's exception does not touch the others", () => {
  const exports = guest(sluice.definePlugin({ judge: (order) => order.get("/bad") ? (null as any).x : sluice.accept() }), host);
  exports.lifecycle.configure(toBytes("{}"));
  const event = (seq: number, body: string) => ({ seq, id: "", route: "", kind: "", received: "", attempt: 1, attrs: [], body: toBytes(body) });
  const outcomes = exports.processor.process([event(0, "{}"), event(1, '{"bad":1}'), event(2, "{}")]);
  deepStrictEqual(outcomes.map(({ seq, verdict }) => [seq, verdict.tag]), [[0, "ok"], [1, "err"], [2, "ok"]]);
});

test("an order gives its facts, its text and its members", () => {
  within((order) => {
    deepStrictEqual([order.id, order.attempt, order.attr("traceparent"), order.attr("x")], ["1", 2, "00", undefined]);
    deepStrictEqual(order.get("/a/1"), 2.5);
    strictEqual(order.raw("/a/1"), "2.50");
    strictEqual(String((order.exact["a"] as unknown[])[1]), "2.50");
    strictEqual(order.text, '{"a":[1,2.50]}');
  }, '{"a":[1,2.50]}');
});

test("a configuration that is refused shows its problems", () => {
  const refused = (definition: unknown, config = "{}"): unknown => {
    try {
      guest(definition as sluice.Definition, host).lifecycle.configure(toBytes(config));
    } catch (problems) {
      return problems;
    }
    return "taken";
  };
  const invalid = (detail: string | null) => [{ code: "invalid-configuration", title: "Invalid configuration", detail, pointer: null }];
  deepStrictEqual(refused({ configure: () => { throw new Error("no"); } }), invalid("Error: no"));
  deepStrictEqual(refused({ configure: () => ({}) }), invalid("Error: configure did not return { judge(order) { ... } }"));
  deepStrictEqual(refused({ judge() {} }, "[]"), invalid("Error: expected a JSON object"));
  deepStrictEqual(refused(undefined), invalid('the module has no "export default definePlugin({ ... })"'));
  const problems = [sluice.problem("a", "A", { pointer: "/a" }), sluice.problem("b", "B")];
  deepStrictEqual((refused({ configure: () => { throw new sluice.ConfigurationError(problems); } }) as { code: string }[]).map(({ code }) => code), ["a", "b"]);
  strictEqual(refused({ configure: () => ({ judge() {} }) }), "taken");
});

test("numbers and tables are there where the world has them", () => {
  const counted: unknown[] = [];
  const tables = new Map([["k", toBytes('{"limit":1.50}')]]);
  const enricher: Partial<Host> = {
    metrics: { count: (...all) => void counted.push(all), observe: (...all) => void counted.push(all) },
    lookup: {
      get: (table, key) => { if (table !== "t") throw new Error("unknown-table"); return tables.get(key) ?? null; },
      getMany: (_table, keys) => keys.map((key) => tables.get(key)),
    },
  };
  within(() => {
    sluice.metrics.count("seen");
    sluice.metrics.observe("size", 2.5);
    deepStrictEqual(sluice.lookup.get("t", "k"), { limit: 1.5 });
    strictEqual(sluice.lookup.raw("t", "k"), '{"limit":1.50}');
    strictEqual(String((sluice.lookup.exact("t", "k") as any).limit), "1.50");
    strictEqual(sluice.lookup.get("t", "none"), undefined);
    deepStrictEqual(sluice.lookup.getMany("t", ["none", "k"]), [undefined, { limit: 1.5 }]);
  }, "{}", enricher);
  deepStrictEqual(counted, [["seen", 1], ["size", 2.5]]);
  deepStrictEqual(answer(() => sluice.lookup.get("x", "k"), "{}", enricher), fault("unknown-table", "LookupError: look-up in the table x: unknown-table"));
  deepStrictEqual(answer(() => sluice.metrics.count("n", 0.5) as any, "{}", enricher).val.code, "exception");
  deepStrictEqual(answer(() => sluice.lookup.get("t", "k")), fault("exception", 'Error: lookup is not there: set world = "enricher" in plugin.toml'));
});

test("the log takes what it is given", () => {
  lines.length = 0;
  within(() => sluice.log.warn("é\ud800"));
  deepStrictEqual(lines, ["warn: é\ufffd"]);
  strictEqual(toText(toBytes("é")), "é");
});
