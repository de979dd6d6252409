// Native unit tests: no WebAssembly, no gateway. Run them with `sdk/build --test .`, or with a Node that reads
// TypeScript (22.18 and newer): `node --test`.

import { deepStrictEqual, throws } from "node:assert";
import { test } from "node:test";

import plugin from "./plugin.ts";
import { accept, enrich, set } from "./sdk/sluice.ts";
import { Harness, check, vectors } from "./sdk/testing.ts";

const config = { blocked: ["mallory"], express_from: "1000" };

for (const vector of vectors()) test(vector.name, () => check(plugin, vector, config));

test("an order without a total passes as it is", () => {
  deepStrictEqual(new Harness(plugin, config).judge({ customerId: "alice" }), accept());
});

test("the limit belongs to express", () => {
  deepStrictEqual(new Harness(plugin, config).judge({ total: "1000.00" }), enrich([set("/priority", "express")]));
});

test("a configuration of another form is refused", () => {
  throws(() => new Harness(plugin, { blocked: "mallory" }));
});
