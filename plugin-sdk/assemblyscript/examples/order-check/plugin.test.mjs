// Unit tests of the built plugin. `sluice plugin test` judges the orders in vectors.ndjson besides.

import assert from "node:assert/strict";
import { test } from "node:test";

const { load } = await import(process.env.SLUICE_TESTING ?? "../../sdk/testing.mjs");
const plugin = load(process.env.SLUICE_PLUGIN ?? "order-check.wasm");

test("an order gets its totals and its customer's segment, in exactly these bytes", () => {
  const order =
    '{"customerId":"17850","lines":[{"quantity":6,"unitPrice":"2.55"},{"quantity":2.0,"unitPrice":"0.10"}]}';
  const { raw } = plugin.judge('{"segments":{"17850":"whole\\u0001\\"sale"}}', order);
  const totals = '{"set":"/totals","value":{"net":"15.50","units":8,"lines":2}}';
  const segment = '{"set":"/segment","value":"whole\\u0001\\"sale"}';
  const header = '{"header":"order-net","value":"15.50"}';
  assert.equal(raw, `{"outcomes":[{"seq":0,"verdict":"enrich","patch":[${totals},${segment},${header}]}]}`);
});

test("numbers are integers by their value and not by their form", () => {
  const units = (quantity) => {
    const order = `{"customerId":"x","lines":[{"quantity":${quantity},"unitPrice":"1"}]}`;
    return plugin.judge("{}", order).patch?.[0].value.units;
  };
  for (const two of ["2", "2.0", "2e0", "20E-1", "0.00002e+5", "2000000000000000000000000000e-27"]) {
    assert.equal(units(two), 2, two);
  }
  for (const none of ["1.5", "-2", "0", "1e6", "1e-400", "1.0000000000000000000001", '"2"', "null", "true"]) {
    assert.equal(units(none), undefined, none);
  }
});

test("the largest order that is right has an exact total", () => {
  const lines = Array(500).fill('{"quantity":1e5,"unitPrice":"9999999.9999"}');
  const { patch } = plugin.judge("{}", `{"customerId":"x","lines":[${lines}]}`);
  assert.equal(patch[0].value.net, "499999999995000.00");
});

test("a configuration that is not understood is refused", () => {
  for (const config of ['{"x":1}', '{"segments":[]}', '{"segments":{"a":1}}', '{"segments":null}']) {
    assert.deepEqual(plugin.refused(config), [
      { code: "invalid-configuration", title: "Invalid configuration" },
    ]);
  }
});
