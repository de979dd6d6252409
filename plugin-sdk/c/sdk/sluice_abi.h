/* What the gateway and the plugin hand to each other, as the component model lays it out: see wit/1.1.0/plugin.wit. The
 * structures have this layout where a pointer has 32 bits; natively, in tests, any layout will do. */
#ifndef SLUICE_ABI_H
#define SLUICE_ABI_H

#include "sluice.h"

typedef struct {
  uint8_t kind; /* set, remove, header */
  sluice_text target, value;
} sluice_op;

enum { SLUICE_OP_SET, SLUICE_OP_REMOVE, SLUICE_OP_HEADER };

typedef struct {
  sluice_op *items;
  size_t count;
} sluice_ops;

typedef struct {
  sluice_problem *items;
  size_t count;
} sluice_problems;

enum { SLUICE_ACCEPT, SLUICE_ENRICH, SLUICE_REJECT, SLUICE_RETRY_LATER };

typedef struct {
  uint8_t kind;
  union {
    sluice_ops ops;
    sluice_problems problems;
    struct {
      uint32_t after_ms;
      sluice_text reason;
    } retry;
    struct {
      sluice_text name, data;
    } extension;
  } as;
} sluice_abi_verdict;

typedef struct {
  uint32_t seq;
  uint8_t is_fault;
  union {
    sluice_abi_verdict verdict;
    struct {
      sluice_text code, detail;
      bool retryable;
    } fault;
  } as;
} sluice_outcome;

typedef struct {
  uint8_t is_error;
  sluice_problems problems;
} sluice_configured;

typedef struct {
  sluice_outcome *items;
  size_t count;
} sluice_outcomes;

sluice_configured *sluice_abi_configure(char *config, size_t size);
sluice_outcomes *sluice_abi_process(sluice_order *orders, size_t count);

#ifdef __wasm__
_Static_assert(sizeof(sluice_order) == 56, "an event");
_Static_assert(sizeof(sluice_problem) == 40, "a problem");
_Static_assert(sizeof(sluice_op) == 20, "a change");
_Static_assert(sizeof(sluice_abi_verdict) == 20, "a verdict");
_Static_assert(sizeof(sluice_outcome) == 28, "an outcome");
_Static_assert(sizeof(sluice_configured) == 12, "a result of configure");
#endif

#endif
