/**
 * Plugins for Sluice in TypeScript and JavaScript.
 *
 * A plugin judges orders: `export default definePlugin({ judge(order) { return accept(); } })`. The README shows the rest.
 */

export { type Definition, type Plugin, definePlugin } from "./plugin.ts";
export { Order, type OrderFacts } from "./order.ts";
export {
  ConfigurationError,
  type PatchOp,
  type Problem,
  type Verdict,
  accept,
  enrich,
  fault,
  header,
  problem,
  reject,
  remove,
  retryLater,
  set,
  setRaw,
} from "./verdict.ts";
export { type Exact, JsonNumber, pointerName, toJson } from "./json.ts";
export { LookupError, log, lookup, metrics } from "./host.ts";
