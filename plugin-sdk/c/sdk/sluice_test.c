/* The gateway's side in native tests. */
#include "sluice_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sluice_abi.h"

void sluice_abi_answered(void);
void sluice_abi_forget(void);

#define TABLES_MAX 16

static struct {
  const char *name, *json;
} tables[TABLES_MAX];
static size_t tables_count;
static char *noted;
static int right, wrong;

static sluice_text text_of(const char *zero_ended) { return (sluice_text){zero_ended, strlen(zero_ended)}; }

/* A copy that ends with a zero byte and outlives the batch; the process is short. */
static char *kept(sluice_text text) {
  char *bytes = malloc(text.size + 1);
  if (bytes == NULL) abort();
  if (text.size > 0) memcpy(bytes, text.bytes, text.size);
  bytes[text.size] = 0;
  return bytes;
}

/* The outcome as JSON ----------------------------------------------------------------------------------------------- */

static void put_member(sluice_builder *out, const char *name, sluice_text text) {
  sluice_put(out, SLUICE(",\""));
  sluice_put(out, text_of(name));
  sluice_put(out, SLUICE("\":"));
  sluice_put_quoted(out, text);
}

static void put_problems(sluice_builder *out, sluice_problems problems) {
  sluice_put(out, SLUICE("["));
  for (size_t i = 0; i < problems.count; i++) {
    const sluice_problem *problem = &problems.items[i];
    sluice_put(out, i > 0 ? SLUICE(",{\"code\":") : SLUICE("{\"code\":"));
    sluice_put_quoted(out, problem->code);
    put_member(out, "title", problem->title);
    if (problem->detail.there) put_member(out, "detail", problem->detail.text);
    if (problem->pointer.there) put_member(out, "pointer", problem->pointer.text);
    sluice_put(out, SLUICE("}"));
  }
  sluice_put(out, SLUICE("]"));
}

static void put_ops(sluice_builder *out, sluice_ops ops) {
  static const char *const names[] = {"{\"set\":", "{\"remove\":", "{\"header\":"};
  sluice_put(out, SLUICE("["));
  for (size_t i = 0; i < ops.count; i++) {
    const sluice_op *op = &ops.items[i];
    if (i > 0) sluice_put(out, SLUICE(","));
    sluice_put(out, text_of(names[op->kind]));
    sluice_put_quoted(out, op->target);
    if (op->kind == SLUICE_OP_HEADER) put_member(out, "value", op->value);
    if (op->kind == SLUICE_OP_SET) {
      sluice_put(out, SLUICE(",\"value\":"));
      sluice_put(out, op->value);
    }
    sluice_put(out, SLUICE("}"));
  }
  sluice_put(out, SLUICE("]"));
}

static void put_outcome(sluice_builder *out, const sluice_outcome *outcome) {
  const sluice_abi_verdict *verdict = &outcome->as.verdict;
  if (outcome->is_fault) {
    sluice_put(out, SLUICE("{\"verdict\":\"fault\""));
    put_member(out, "code", outcome->as.fault.code);
    put_member(out, "detail", outcome->as.fault.detail);
    sluice_put(out, outcome->as.fault.retryable ? SLUICE(",\"retryable\":true") : SLUICE(",\"retryable\":false"));
  } else if (verdict->kind == SLUICE_ENRICH) {
    sluice_put(out, SLUICE("{\"verdict\":\"enrich\",\"patch\":"));
    put_ops(out, verdict->as.ops);
  } else if (verdict->kind == SLUICE_REJECT) {
    sluice_put(out, SLUICE("{\"verdict\":\"reject\",\"problems\":"));
    put_problems(out, verdict->as.problems);
  } else if (verdict->kind == SLUICE_RETRY_LATER) {
    sluice_put(out, SLUICE("{\"verdict\":\"retry-later\",\"afterMs\":"));
    sluice_put_integer(out, verdict->as.retry.after_ms);
    put_member(out, "reason", verdict->as.retry.reason);
  } else {
    sluice_put(out, SLUICE("{\"verdict\":\"accept\""));
  }
  sluice_put(out, SLUICE("}"));
}

const char *sluice_test_configure(const char *config) {
  sluice_abi_forget();
  free(noted);
  noted = NULL;
  char *lasting = kept(text_of(config));
  sluice_configured *result = sluice_abi_configure(lasting, strlen(lasting));
  sluice_builder out = {0};
  put_problems(&out, result->problems);
  return kept(sluice_built(&out));
}

const char *sluice_test_judge(const char *order) {
  /* A copy of just its length, so that a checker sees a step over its end. */
  char *body = malloc(strlen(order) + 1);
  if (body == NULL) abort();
  memcpy(body, order, strlen(order));
  sluice_order event = {
      .id = SLUICE("an-order"),
      .route = SLUICE("/orders"),
      .kind = SLUICE("OrderCreated"),
      .received = SLUICE("2026-01-02T03:04:05.678Z"),
      .attempt = 1,
      .body = {{body, strlen(order)}},
  };
  sluice_outcomes *all = sluice_abi_process(&event, 1);
  sluice_builder out = {0};
  put_outcome(&out, &all->items[0]);
  const char *answer = kept(sluice_built(&out));
  sluice_abi_answered();
  free(body);
  return answer;
}

/* What the gateway offers ------------------------------------------------------------------------------------------- */

static void note(const char *what, sluice_text text, const char *value) {
  size_t before = noted == NULL ? 0 : strlen(noted), size = before + strlen(what) + text.size + strlen(value) + 4;
  char *more = malloc(size);
  if (more == NULL) abort();
  snprintf(more, size, "%s%s %.*s%s\n", noted == NULL ? "" : noted, what, (int)text.size, text.bytes, value);
  free(noted);
  noted = more;
}

const char *sluice_test_noted(void) { return noted == NULL ? "" : noted; }

void sluice_log(sluice_level level, sluice_text line) {
  static const char *const levels[] = {"debug", "info", "warn", "error"};
  note(levels[level], line, "");
}

void sluice_metric_count(sluice_text name, uint32_t by) {
  char value[16];
  snprintf(value, sizeof value, " %u", by);
  note("count", name, value);
}

void sluice_metric_observe(sluice_text name, double value) {
  char shown[40];
  snprintf(shown, sizeof shown, " %g", value);
  note("observe", name, shown);
}

void sluice_test_table(const char *name, const char *json) {
  if (tables_count == TABLES_MAX) abort();
  tables[tables_count].name = name;
  tables[tables_count++].json = json;
}

sluice_looked sluice_lookup(sluice_text table, sluice_text key, sluice_value *value) {
  for (size_t i = 0; i < tables_count; i++) {
    if (!sluice_same(text_of(tables[i].name), table)) continue;
    *value = sluice_get(sluice_json(text_of(tables[i].json)), key);
    return sluice_kind_of(*value) == SLUICE_ABSENT ? SLUICE_NOT_FOUND : SLUICE_FOUND;
  }
  return SLUICE_UNKNOWN_TABLE;
}

sluice_looked sluice_lookup_many(sluice_text table, const sluice_text *keys, size_t count, sluice_value *values) {
  for (size_t i = 0; i < count; i++)
    if (sluice_lookup(table, keys[i], &values[i]) == SLUICE_UNKNOWN_TABLE) return SLUICE_UNKNOWN_TABLE;
  return SLUICE_FOUND;
}

/* Expectations ------------------------------------------------------------------------------------------------------ */

void sluice_test_expect(const char *file, int line, const char *got, const char *wanted) {
  if (strcmp(got, wanted) == 0) {
    right++;
    return;
  }
  wrong++;
  printf("%s:%d: got\n  %s\nand not\n  %s\n", file, line, got, wanted);
}

int sluice_test_done(void) {
  printf("%d passed, %d failed\n", right, wrong);
  return wrong > 0 || right == 0 ? 1 : 0;
}
