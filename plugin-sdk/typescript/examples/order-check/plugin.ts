/** Checks orders and works out their totals: the reference plugin, see `plugin-sdk/order-check.md`. */

import {
  ConfigurationError,
  type Exact,
  JsonNumber,
  type Problem,
  definePlugin,
  enrich,
  header,
  problem,
  reject,
  set,
  setRaw,
} from "../../sdk/sluice.ts";

const PROBLEMS_MAX = 100;
const LINES_MAX = 500;
const QUANTITY_MAX = 100_000n;
const PRICE = /^([0-9]{1,7})(?:\.([0-9]{1,4}))?$/;

export default definePlugin({
  configure(config: unknown) {
    const segments = segmentsOf(config);
    return {
      judge(order) {
        const { customerId, lines } = order.exact;
        const problems: Problem[] = [];
        if (typeof customerId !== "string" || customerId === "") {
          problems.push(problem("customer-id-missing", "The customer id is missing", { pointer: "/customerId" }));
        }
        const totals = totalsOf(lines, problems);
        if (problems.length > 0) return reject(problems);

        const net = decimal(totals.net);
        const patch = [set("/totals", { net, units: totals.units, lines: totals.lines })];
        const segment = segments.get(customerId as string);
        if (segment !== undefined) patch.push(setRaw("/segment", quoted(segment)));
        return enrich([...patch, header("order-net", net)]);
      },
    };
  },
});

function segmentsOf(config: unknown): Map<string, string> {
  const { segments = {}, ...others } = config as { segments?: unknown };
  const isObject = typeof segments === "object" && segments !== null && !Array.isArray(segments);
  if (!isObject || Object.keys(others).length > 0 || Object.values(segments).some((value) => typeof value !== "string")) {
    throw new ConfigurationError(problem("invalid-configuration", "Invalid configuration"));
  }
  return new Map(Object.entries(segments));
}

/** Sums up the lines, net in ten-thousandths. Stops at the last problem that is reported. */
function totalsOf(lines: Exact | undefined, problems: Problem[]): { net: bigint; units: bigint; lines: number } {
  let net = 0n;
  let units = 0n;
  if (!Array.isArray(lines) || lines.length < 1 || lines.length > LINES_MAX) {
    problems.push(problem("lines-invalid", "The lines are not 1 to 500", { pointer: "/lines" }));
    return { net, units, lines: 0 };
  }
  const found = (code: string, title: string, pointer: string) => {
    if (problems.length < PROBLEMS_MAX) problems.push(problem(code, title, { pointer }));
  };
  for (const [index, line] of lines.entries()) {
    if (problems.length >= PROBLEMS_MAX) break;
    if (typeof line !== "object" || line === null || Array.isArray(line) || line instanceof JsonNumber) {
      found("line-invalid", "The line is not an object", `/lines/${index}`);
      continue;
    }
    const quantity = quantityOf(line["quantity"]);
    if (quantity === undefined) found("quantity-invalid", "The quantity is not 1 to 100000", `/lines/${index}/quantity`);
    const price = priceOf(line["unitPrice"]);
    if (price === undefined) found("unit-price-invalid", "The unit price is not a decimal above zero", `/lines/${index}/unitPrice`);
    if (quantity === undefined || price === undefined) continue;
    net += quantity * price;
    units += quantity;
  }
  return { net, units, lines: lines.length };
}

function quantityOf(value: Exact | undefined): bigint | undefined {
  const quantity = value instanceof JsonNumber ? value.integer() : undefined;
  return quantity !== undefined && quantity >= 1n && quantity <= QUANTITY_MAX ? quantity : undefined;
}

/** In ten-thousandths. */
function priceOf(value: Exact | undefined): bigint | undefined {
  const match = typeof value === "string" ? PRICE.exec(value) : null;
  if (match === null) return undefined;
  const price = BigInt(match[1] + (match[2] ?? "").padEnd(4, "0"));
  return price > 0n ? price : undefined;
}

/** Ten-thousandths as a decimal: two places, a third or fourth where it is needed. */
function decimal(tenThousandths: bigint): string {
  const digits = tenThousandths.toString().padStart(5, "0");
  const fraction = digits.slice(-4).replace(/0{1,2}$/, "");
  return `${digits.slice(0, -4)}.${fraction}`;
}

/** A JSON string in the form that the specification asks for: not every engine's own has it. */
function quoted(text: string): string {
  const escaped = text.replace(/["\\\0-\x1f]/g, (unit) =>
    unit === '"' || unit === "\\" ? `\\${unit}` : `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return `"${escaped}"`;
}
