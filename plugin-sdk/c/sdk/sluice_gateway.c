/* The gateway's side of a module: what it calls, and what it offers. The names are those of the contract 1.1. */
#include "sluice_abi.h"

#ifdef __wasm__

#define CALLED_AS(name) __attribute__((export_name(name)))
#define OFFERED(module, name) __attribute__((import_module("sluice:plugin/" module "@1.1.0"), import_name(name)))

void sluice_abi_answered(void);

CALLED_AS("sluice:plugin/lifecycle@1.1.0#configure")
sluice_configured *sluice_called_configure(char *config, size_t size) { return sluice_abi_configure(config, size); }

CALLED_AS("sluice:plugin/processor@1.1.0#process")
sluice_outcomes *sluice_called_process(sluice_order *orders, size_t count) { return sluice_abi_process(orders, count); }

CALLED_AS("cabi_post_sluice:plugin/processor@1.1.0#process")
void sluice_called_answered(sluice_outcomes *all) {
  (void)all;
  sluice_abi_answered();
}

/* Room for what the gateway hands over. */
CALLED_AS("cabi_realloc")
void *sluice_called_realloc(void *old, size_t old_size, size_t align, size_t size) {
  (void)align;
  if (size <= old_size) return old;
  void *more = sluice_take(size);
  if (old_size > 0) __builtin_memcpy(more, old, old_size);
  return more;
}

OFFERED("log", "write") void sluice_offered_write(int32_t level, const char *line, size_t size);
OFFERED("metrics", "count") void sluice_offered_count(const char *name, size_t size, uint32_t by);
OFFERED("metrics", "observe") void sluice_offered_observe(const char *name, size_t size, double value);

typedef struct {
  uint8_t is_error;
  union {
    uint8_t error; /* unknown table, too many */
    sluice_maybe found;
  } as;
} looked;

typedef struct {
  uint8_t is_error;
  union {
    uint8_t error;
    struct {
      const sluice_maybe *items;
      size_t count;
    } found;
  } as;
} looked_many;

_Static_assert(sizeof(looked) == 16, "a result of get");
_Static_assert(sizeof(looked_many) == 12, "a result of get-many");

OFFERED("lookup", "get")
void sluice_offered_get(const char *table, size_t table_size, const char *key, size_t key_size, looked *result);
OFFERED("lookup", "get-many")
void sluice_offered_get_many(const char *table, size_t table_size, const sluice_text *keys, size_t count,
                             looked_many *result);

void sluice_log(sluice_level level, sluice_text line) { sluice_offered_write((int32_t)level, line.bytes, line.size); }

void sluice_metric_count(sluice_text name, uint32_t by) { sluice_offered_count(name.bytes, name.size, by); }

void sluice_metric_observe(sluice_text name, double value) { sluice_offered_observe(name.bytes, name.size, value); }

static sluice_looked failed(uint8_t error) { return error == 0 ? SLUICE_UNKNOWN_TABLE : SLUICE_TOO_MANY_LOOKUPS; }

sluice_looked sluice_lookup(sluice_text table, sluice_text key, sluice_value *value) {
  looked result;
  sluice_offered_get(table.bytes, table.size, key.bytes, key.size, &result);
  if (result.is_error) return failed(result.as.error);
  if (!result.as.found.there) return SLUICE_NOT_FOUND;
  *value = sluice_json(result.as.found.text);
  return SLUICE_FOUND;
}

sluice_looked sluice_lookup_many(sluice_text table, const sluice_text *keys, size_t count, sluice_value *values) {
  looked_many result;
  sluice_offered_get_many(table.bytes, table.size, keys, count, &result);
  if (result.is_error) return failed(result.as.error);
  for (size_t i = 0; i < count && i < result.as.found.count; i++) {
    const sluice_maybe *one = &result.as.found.items[i];
    values[i] = one->there ? sluice_json(one->text) : (sluice_value){{0}};
  }
  return SLUICE_FOUND;
}

#endif
