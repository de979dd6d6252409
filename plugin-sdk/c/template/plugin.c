/* Refuses orders with too many lines and counts the lines of the others. */
#include "sluice.h"

static int64_t lines_max = 100;

/* Called once, before all else. Keep it cheap: an instance lives for one batch of orders. */
void sluice_configure(sluice_value config, sluice_refusal *refusal) {
  sluice_value member = sluice_get(config, SLUICE("lines_max"));
  if (sluice_kind_of(member) == SLUICE_ABSENT) return;
  if (sluice_integer(member, &lines_max) && lines_max >= 0) return;
  sluice_problem *problem = sluice_refuse(refusal, SLUICE("invalid-configuration"), SLUICE("Invalid configuration"));
  sluice_detail(problem, SLUICE("lines_max is not a whole number from 0"));
  sluice_points_to(problem, SLUICE("/lines_max"));
}

/* Judges one order. A trap becomes a fault: the order is held, and nothing is lost. */
void sluice_judge(const sluice_order *order, sluice_verdict *verdict) {
  sluice_value lines = sluice_get(order->body, SLUICE("lines"));
  if (sluice_kind_of(lines) != SLUICE_ARRAY) {
    sluice_problem *problem = sluice_reject(verdict, SLUICE("lines-missing"), SLUICE("The order has no lines"));
    sluice_points_to(problem, SLUICE("/lines"));
    return;
  }
  int64_t count = (int64_t)sluice_count(lines);
  if (count > lines_max) {
    sluice_builder detail = {0};
    sluice_put_integer(&detail, count);
    sluice_put(&detail, SLUICE(" lines, at most "));
    sluice_put_integer(&detail, lines_max);
    sluice_put(&detail, SLUICE(" are allowed"));
    sluice_log(SLUICE_INFO, sluice_built(&detail));
    sluice_problem *problem = sluice_reject(verdict, SLUICE("too-many-lines"), SLUICE("The order has too many lines"));
    sluice_detail(problem, sluice_built(&detail));
    sluice_points_to(problem, SLUICE("/lines"));
    return;
  }
  sluice_set_integer(verdict, SLUICE("/lineCount"), count);
}
