// Refuses orders with too many lines and counts the lines of the others.

import { Order, Patch, Plugin, Problem, Value, Verdict, log, serve } from "sluice";
export { sluice_alloc, sluice_process } from "sluice";

class LineLimit extends Plugin {
  private linesMax: i64 = 100;

  // Called once, before all else. Keep it cheap: an instance lives for one batch of orders.
  configure(config: Value): Problem[] {
    const member = config.get("lines_max");
    if (member.isAbsent) return [];
    this.linesMax = member.integer(-1);
    if (this.linesMax >= 0) return [];
    const problem = new Problem("invalid-configuration", "Invalid configuration");
    return [problem.at("/lines_max").because("lines_max is not a whole number from 0")];
  }

  // Judges one order. What is thrown becomes a fault: the order is held, and nothing is lost.
  judge(order: Order): Verdict {
    const lines = order.body.get("lines");
    if (!lines.isArray) {
      return Verdict.reject([new Problem("lines-missing", "The order has no lines").at("/lines")]);
    }
    const count = lines.count;
    if (count > this.linesMax) {
      log.info(`order ${order.id} has ${count} lines`);
      const problem = new Problem("too-many-lines", "The order has too many lines").at("/lines");
      return Verdict.reject([problem.because(`${count} lines, at most ${this.linesMax} are allowed`)]);
    }
    return Verdict.enrich(new Patch().set("/lineCount", count));
  }
}

serve(new LineLimit());
