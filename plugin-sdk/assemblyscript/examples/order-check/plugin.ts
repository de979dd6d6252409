// Checks orders and works out their totals, exactly: amounts are ten-thousandths in 64 bits.

import { Order, Patch, Plugin, Problem, Value, Verdict, quoted, serve } from "sluice";
export { sluice_alloc, sluice_process } from "sluice";

const LINES_MAX = 500;
const QUANTITY_MAX: i64 = 100_000;
const PROBLEMS_MAX = 100;

class OrderCheck extends Plugin {
  private readonly segments: Map<string, string> = new Map();

  configure(config: Value): Problem[] {
    const invalid = [new Problem("invalid-configuration", "Invalid configuration")];
    if (!config.isObject) return invalid;
    const members = config.members();
    for (let i = 0; i < members.length; i++) {
      if (members[i].name != "segments" || !members[i].value.isObject) return invalid;
      const segments = members[i].value.members();
      for (let k = 0; k < segments.length; k++) {
        if (!segments[k].value.isString) return invalid;
        this.segments.set(segments[k].name, segments[k].value.text);
      }
    }
    return [];
  }

  judge(order: Order): Verdict {
    const problems: Problem[] = [];
    const customer = order.body.get("customerId").text;
    if (customer.length == 0) note(problems, "customer-id-missing", "The customer id is missing", "/customerId");

    let net: u64 = 0;
    let units: i64 = 0;
    const member = order.body.get("lines");
    const count = member.count;
    if (!member.isArray || count < 1 || count > LINES_MAX) {
      note(problems, "lines-invalid", "The lines are not 1 to 500", "/lines");
    } else {
      const lines = member.elements();
      for (let i = 0; i < lines.length; i++) {
        const at = "/lines/" + i.toString();
        if (!lines[i].isObject) {
          note(problems, "line-invalid", "The line is not an object", at);
          continue;
        }
        const quantity = lines[i].get("quantity").integer(0);
        const quantityIsRight = quantity >= 1 && quantity <= QUANTITY_MAX;
        if (!quantityIsRight) {
          note(problems, "quantity-invalid", "The quantity is not 1 to 100000", at + "/quantity");
        }
        const price = unitPrice(lines[i].get("unitPrice").text);
        if (price == 0) {
          note(problems, "unit-price-invalid", "The unit price is not a decimal above zero", at + "/unitPrice");
        }
        if (quantityIsRight) {
          net += price * <u64>quantity;
          units += quantity;
        }
      }
    }
    if (problems.length > 0) return Verdict.reject(problems);

    const amount = decimal(net);
    const totals = `{"net":"${amount}","units":${units},"lines":${count}}`;
    const patch = new Patch().setRaw("/totals", totals);
    if (this.segments.has(customer)) patch.setRaw("/segment", quoted(this.segments.get(customer)));
    return Verdict.enrich(patch.header("order-net", amount));
  }
}

function note(problems: Problem[], code: string, title: string, pointer: string): void {
  if (problems.length < PROBLEMS_MAX) problems.push(new Problem(code, title).at(pointer));
}

/** A price in ten-thousandths; zero if it is none, or not above zero. */
function unitPrice(text: string): u64 {
  const point = text.indexOf(".");
  const whole = point < 0 ? text : text.substring(0, point);
  const fraction = point < 0 ? "0" : text.substring(point + 1);
  if (whole.length < 1 || whole.length > 7 || fraction.length < 1 || fraction.length > 4) return 0;
  const digits = whole + fraction.padEnd(4, "0");
  let value: u64 = 0;
  for (let i = 0; i < digits.length; i++) {
    const digit = digits.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return 0;
    value = value * 10 + digit;
  }
  return value;
}

/** Ten-thousandths as a decimal with two decimals, and a third or fourth only where it is needed. */
function decimal(amount: u64): string {
  let fraction = (amount % 10_000).toString().padStart(4, "0");
  while (fraction.length > 2 && fraction.endsWith("0")) fraction = fraction.substring(0, fraction.length - 1);
  return (amount / 10_000).toString() + "." + fraction;
}

serve(new OrderCheck());
