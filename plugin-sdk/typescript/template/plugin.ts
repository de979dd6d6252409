/** {{name}}: refuses orders of blocked customers, and stamps the others with a priority. */

import { accept, ConfigurationError, definePlugin, enrich, problem, reject, set } from "./sdk/sluice.ts";

export default definePlugin({
  /** Called once for each batch of orders, so keep it cheap. The operator's configuration can be anything: look at it. */
  configure(config: { blocked?: unknown; express_from?: unknown }) {
    const { blocked = [], express_from: expressFrom = "1000" } = config;
    if (!Array.isArray(blocked) || typeof expressFrom !== "string" || !/^[0-9]+$/.test(expressFrom)) {
      throw new ConfigurationError(
        problem("invalid-configuration", "Invalid configuration", { detail: "blocked is a list, express_from a whole amount as text" }),
      );
    }
    const limit = cents(expressFrom);

    return {
      /** Judges one order. An exception holds this order as the plugin's fault, and no other. */
      judge(order) {
        if (blocked.includes(order.get("/customerId"))) {
          return reject(problem("customer-blocked", "This customer cannot order", { pointer: "/customerId" }));
        }
        const total = order.get("/total");
        if (typeof total !== "string" || !/^[0-9]+(\.[0-9]{1,2})?$/.test(total)) return accept();
        return enrich([set("/priority", cents(total) >= limit ? "express" : "standard")]);
      },
    };
  },
});

/** Money is text and becomes a bigint: a number would round it. */
function cents(amount: string): bigint {
  const [whole = "0", fraction = ""] = amount.split(".");
  return BigInt(whole + fraction.padEnd(2, "0"));
}
