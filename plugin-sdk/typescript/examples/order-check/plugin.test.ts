import { deepStrictEqual, throws } from "node:assert";
import { test } from "node:test";

import plugin from "./plugin.ts";
import { ConfigurationError } from "../../sdk/sluice.ts";
import { Harness, check, vectors } from "../../sdk/testing.ts";

for (const vector of vectors()) test(vector.name, () => check(plugin, vector));

test("the patch has exactly the bytes of the specification", () => {
  const verdict = new Harness(plugin, { segments: { c: 'a"\n' } }).judge('{"customerId":"c","lines":[{"quantity":2.0,"unitPrice":"7.75"}]}');
  deepStrictEqual(verdict, {
    verdict: "enrich",
    patch: [
      { set: "/totals", value: '{"net":"15.50","units":2,"lines":1}' },
      { set: "/segment", value: '"a\\"\\u000a"' },
      { header: "order-net", value: "15.50" },
    ],
  });
});

test("a problem has code, title and pointer, and no detail", () => {
  deepStrictEqual(new Harness(plugin).judge('{"customerId":"c"}'), {
    verdict: "reject",
    problems: [{ code: "lines-invalid", title: "The lines are not 1 to 500", detail: undefined, pointer: "/lines" }],
  });
});

test("a configuration of another form is refused with one problem", () => {
  for (const config of ['{"segments":[]}', '{"segments":null}', '{"segments":{"c":1}}', '{"segment":{}}', '{"segments":{},"more":1}', "[]"]) {
    throws(() => new Harness(plugin, config), (error) => {
      deepStrictEqual((error as ConfigurationError).problems.map(({ code, title }) => [code, title]), [["invalid-configuration", "Invalid configuration"]]);
      return true;
    }, config);
  }
});
