/* Builds answers and hands them over. */
#include "sluice_abi.h"

/* Memory ------------------------------------------------------------------------------------------------------------ */

#ifdef __wasm__

extern char __heap_base;
static uintptr_t heap_at, heap_kept;

static void *take(size_t size, size_t align) {
  if (heap_at == 0) heap_at = (uintptr_t)&__heap_base;
  uintptr_t start = (heap_at + align - 1) & ~(uintptr_t)(align - 1);
  size_t there = __builtin_wasm_memory_size(0) * 65536;
  if (size > SIZE_MAX - start) __builtin_trap();
  if (start + size > there) {
    size_t pages = (start + size - there + 65535) / 65536;
    if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) __builtin_trap();
  }
  heap_at = start + size;
  return (void *)start;
}

/* What was taken so far stays when the arena is emptied. */
static void keep(void) { heap_kept = heap_at; }

static void empty(void) { heap_at = heap_kept; }

#else

#include <stdlib.h>

/* Natively each piece is one of its own, so that a checker sees a step over its end. */
typedef struct block {
  struct block *next;
} block;

static block *blocks, *blocks_kept;

static void *take(size_t size, size_t align) {
  block *made = malloc(sizeof(block) + (align > sizeof(block) ? align : 0) + size);
  if (made == NULL) abort();
  made->next = blocks;
  blocks = made;
  return made + 1;
}

static void keep(void) { blocks_kept = blocks; }

static void empty(void) {
  while (blocks != blocks_kept) {
    block *next = blocks->next;
    free(blocks);
    blocks = next;
  }
}

/* For tests, which have many instances one after the other. */
void sluice_abi_forget(void) {
  blocks_kept = NULL;
  empty();
}

#endif

static void copy(void *to, const void *from, size_t size) {
  if (size > 0) __builtin_memcpy(to, from, size);
}

void *sluice_take(size_t size) { return take(size, 8); }

/* Gives room for one more item, in twice the room where it has run out. */
static void *grown(void *items, size_t count, size_t *room, size_t item) {
  if (count < *room) return items;
  *room = *room == 0 ? 4 : *room * 2;
  void *more = sluice_take(*room * item);
  copy(more, items, count * item);
  return more;
}

/* Texts ------------------------------------------------------------------------------------------------------------- */

void sluice_put(sluice_builder *builder, sluice_text text) {
  if (text.size > builder->room - builder->size) {
    size_t room = builder->room * 2 > builder->size + text.size ? builder->room * 2 : builder->size + text.size + 24;
    char *bytes = sluice_take(room);
    copy(bytes, builder->bytes, builder->size);
    builder->bytes = bytes;
    builder->room = room;
  }
  copy(builder->bytes + builder->size, text.bytes, text.size);
  builder->size += text.size;
}

void sluice_put_integer(sluice_builder *builder, int64_t number) {
  char digits[20];
  size_t at = sizeof digits;
  uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
  do digits[--at] = (char)('0' + rest % 10);
  while (rest /= 10);
  if (number < 0) digits[--at] = '-';
  sluice_put(builder, (sluice_text){digits + at, sizeof digits - at});
}

void sluice_put_quoted(sluice_builder *builder, sluice_text text) {
  const char *hex = "0123456789abcdef";
  size_t start = 0;
  sluice_put(builder, SLUICE("\""));
  for (size_t i = 0; i < text.size; i++) {
    unsigned char c = (unsigned char)text.bytes[i];
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    sluice_put(builder, (sluice_text){text.bytes + start, i - start});
    start = i + 1;
    char control[] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, escape[] = {'\\', (char)c};
    sluice_put(builder, c < 0x20 ? (sluice_text){control, 6} : (sluice_text){escape, 2});
  }
  sluice_put(builder, (sluice_text){text.bytes + start, text.size - start});
  sluice_put(builder, SLUICE("\""));
}

sluice_text sluice_built(const sluice_builder *builder) { return (sluice_text){builder->bytes, builder->size}; }

/* Answers ----------------------------------------------------------------------------------------------------------- */

struct sluice_refusal {
  sluice_problems problems;
  size_t room;
};

struct sluice_verdict {
  sluice_refusal rejection;
  sluice_ops ops;
  size_t room;
  bool is_retry, is_fault, retryable;
  uint32_t after_ms;
  sluice_text code, reason;
};

sluice_problem *sluice_refuse(sluice_refusal *refusal, sluice_text code, sluice_text title) {
  sluice_problems *all = &refusal->problems;
  all->items = grown(all->items, all->count, &refusal->room, sizeof *all->items);
  sluice_problem *problem = &all->items[all->count++];
  *problem = (sluice_problem){.code = code, .title = title};
  return problem;
}

sluice_problem *sluice_reject(sluice_verdict *verdict, sluice_text code, sluice_text title) {
  return sluice_refuse(&verdict->rejection, code, title);
}

void sluice_detail(sluice_problem *problem, sluice_text detail) { problem->detail = (sluice_maybe){true, detail}; }

void sluice_points_to(sluice_problem *problem, sluice_text pointer) { problem->pointer = (sluice_maybe){true, pointer}; }

static void change(sluice_verdict *verdict, uint8_t kind, sluice_text target, sluice_text value) {
  sluice_ops *all = &verdict->ops;
  all->items = grown(all->items, all->count, &verdict->room, sizeof *all->items);
  all->items[all->count++] = (sluice_op){kind, target, value};
}

void sluice_set_raw(sluice_verdict *verdict, sluice_text pointer, sluice_text json) {
  change(verdict, SLUICE_OP_SET, pointer, json);
}

void sluice_set_text(sluice_verdict *verdict, sluice_text pointer, sluice_text value) {
  sluice_builder json = {0};
  sluice_put_quoted(&json, value);
  sluice_set_raw(verdict, pointer, sluice_built(&json));
}

void sluice_set_integer(sluice_verdict *verdict, sluice_text pointer, int64_t value) {
  sluice_builder json = {0};
  sluice_put_integer(&json, value);
  sluice_set_raw(verdict, pointer, sluice_built(&json));
}

void sluice_remove(sluice_verdict *verdict, sluice_text pointer) {
  change(verdict, SLUICE_OP_REMOVE, pointer, (sluice_text){0});
}

void sluice_header(sluice_verdict *verdict, sluice_text name, sluice_text value) {
  change(verdict, SLUICE_OP_HEADER, name, value);
}

void sluice_retry_later(sluice_verdict *verdict, uint32_t after_ms, sluice_text reason) {
  verdict->is_retry = true;
  verdict->after_ms = after_ms;
  verdict->reason = reason;
}

void sluice_fault(sluice_verdict *verdict, sluice_text code, sluice_text detail, bool retryable) {
  verdict->is_fault = true;
  verdict->code = code;
  verdict->reason = detail;
  verdict->retryable = retryable;
}

sluice_text sluice_attr_of(const sluice_order *order, sluice_text name) {
  for (size_t i = 0; i < order->attrs_count; i++)
    if (sluice_same(order->attrs[i].name, name)) return order->attrs[i].value;
  return (sluice_text){0};
}

/* A fault outweighs all else, then come the wish to be asked later, problems, and changes. */
static void conclude(const sluice_verdict *verdict, sluice_outcome *outcome) {
  sluice_abi_verdict *answer = &outcome->as.verdict;
  if (verdict->is_fault) {
    outcome->is_fault = 1;
    outcome->as.fault.code = verdict->code;
    outcome->as.fault.detail = verdict->reason;
    outcome->as.fault.retryable = verdict->retryable;
  } else if (verdict->is_retry) {
    answer->kind = SLUICE_RETRY_LATER;
    answer->as.retry.after_ms = verdict->after_ms;
    answer->as.retry.reason = verdict->reason;
  } else if (verdict->rejection.problems.count > 0) {
    answer->kind = SLUICE_REJECT;
    answer->as.problems = verdict->rejection.problems;
  } else if (verdict->ops.count > 0) {
    answer->kind = SLUICE_ENRICH;
    answer->as.ops = verdict->ops;
  } else {
    answer->kind = SLUICE_ACCEPT;
  }
}

sluice_configured *sluice_abi_configure(char *config, size_t size) {
  sluice_refusal refusal = {0};
  sluice_configure(sluice_json((sluice_text){config, size}), &refusal);
  sluice_configured *result = sluice_take(sizeof *result);
  *result = (sluice_configured){refusal.problems.count > 0, refusal.problems};
  keep();
  return result;
}

sluice_outcomes *sluice_abi_process(sluice_order *orders, size_t count) {
  sluice_outcomes *all = sluice_take(sizeof *all);
  all->items = sluice_take(count * sizeof *all->items);
  all->count = count;
  for (size_t i = 0; i < count; i++) {
    sluice_verdict verdict = {0};
    orders[i].body = sluice_json(orders[i].body.raw);
    sluice_judge(&orders[i], &verdict);
    all->items[i] = (sluice_outcome){.seq = orders[i].seq};
    conclude(&verdict, &all->items[i]);
  }
  return all;
}

void sluice_abi_answered(void) { empty(); }
