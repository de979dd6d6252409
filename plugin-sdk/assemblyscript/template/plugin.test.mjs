// Unit tests of the built plugin. `sluice plugin test` judges the orders in vectors.ndjson besides.

import assert from "node:assert/strict";
import { test } from "node:test";

const { load } = await import(process.env.SLUICE_TESTING ?? "./sdk/testing.mjs");
const plugin = load(process.env.SLUICE_PLUGIN ?? "{{name}}.wasm");

test("the lines are counted", () => {
  const { verdict, patch } = plugin.judge('{"lines_max":2}', '{"lines":[1,2]}');
  assert.equal(verdict, "enrich");
  assert.deepEqual(patch, [{ set: "/lineCount", value: 2 }]);
});

test("one line too many is refused and noted in the log", () => {
  const { verdict, problems, lines } = plugin.judge('{"lines_max":2}', '{"lines":[1,2,3]}');
  assert.equal(verdict, "reject");
  assert.equal(problems[0].code, "too-many-lines");
  assert.equal(problems[0].detail, "3 lines, at most 2 are allowed");
  assert.deepEqual(lines, ["order an-order has 3 lines"]);
});

test("a limit that is no number is refused", () => {
  const problems = plugin.refused('{"lines_max":"many"}');
  assert.equal(problems[0].pointer, "/lines_max");
});
