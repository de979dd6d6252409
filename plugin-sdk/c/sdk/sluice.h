/* Plugins for Sluice in C.
 *
 * A plugin is a file plugin.c with two functions, sluice_configure and sluice_judge. Memory comes from an arena that is
 * emptied when a batch has been answered: nothing has to be given back, and all texts live as long as the batch.
 */
#ifndef SLUICE_H
#define SLUICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A text in UTF-8. It does not end with a zero byte. */
typedef struct {
  const char *bytes;
  size_t size;
} sluice_text;

/* The text of a literal: SLUICE("orders"). */
#define SLUICE(literal) ((sluice_text){"" literal, sizeof(literal) - 1})

bool sluice_same(sluice_text one, sluice_text other);

/* JSON ------------------------------------------------------------------------------------------------------------ */

/* One JSON value, by its exact text: reading it makes no copy and rounds no number. An absent one has no text. The gateway
 * has checked the text, so nothing here checks it again. */
typedef struct {
  sluice_text raw;
} sluice_value;

typedef enum {
  SLUICE_ABSENT,
  SLUICE_OBJECT,
  SLUICE_ARRAY,
  SLUICE_STRING,
  SLUICE_NUMBER,
  SLUICE_BOOL,
  SLUICE_NULL
} sluice_kind;

/* The value of a JSON text. */
sluice_value sluice_json(sluice_text text);
sluice_kind sluice_kind_of(sluice_value value);
bool sluice_is_true(sluice_value value);

/* Reads a string without its quotes and escapes; false if it is no string. */
bool sluice_string(sluice_value value, sluice_text *text);
/* Whether it is a string and says this. */
bool sluice_is(sluice_value value, sluice_text text);
/* Reads a number with an integral value, however it was written: 2, 2.0 and 2e0 are all 2. False if it is no number, not
 * integral, or does not fit. No float is involved. */
bool sluice_integer(sluice_value value, int64_t *number);

/* A member of an object by its name; absent if there is none, or this is no object. */
sluice_value sluice_get(sluice_value object, sluice_text name);
/* What a JSON Pointer (RFC 6901) leads to, such as /lines/0/quantity; absent if it leads nowhere. */
sluice_value sluice_pointer(sluice_value value, sluice_text path);
/* How many elements an array or members an object has. */
size_t sluice_count(sluice_value value);

/* A walk over an array's elements or an object's members, in their sequence:
 *   sluice_walk walk = sluice_over(lines);
 *   while (sluice_next(&walk)) use(walk.value); */
typedef struct {
  size_t index;
  sluice_value name; /* a string; absent in an array */
  sluice_value value;
  sluice_text rest;
} sluice_walk;

sluice_walk sluice_over(sluice_value value);
bool sluice_next(sluice_walk *walk);

/* Texts ----------------------------------------------------------------------------------------------------------- */

/* A text that grows. Begin with {0}. */
typedef struct {
  char *bytes;
  size_t size, room;
} sluice_builder;

void sluice_put(sluice_builder *builder, sluice_text text);
void sluice_put_integer(sluice_builder *builder, int64_t number);
/* Writes a JSON string: escapes for quotes, backslashes and control characters, all else as it is. */
void sluice_put_quoted(sluice_builder *builder, sluice_text text);
sluice_text sluice_built(const sluice_builder *builder);

/* Memory that lives as long as the batch, or as the instance if it is taken in sluice_configure. */
void *sluice_take(size_t size);

/* Orders ---------------------------------------------------------------------------------------------------------- */

typedef struct {
  sluice_text name, value;
} sluice_attr;

/* An order and what is known about it. */
typedef struct {
  uint32_t seq;
  sluice_text id;
  sluice_text route;    /* path of the order's route, such as /orders */
  sluice_text kind;     /* type of the event, such as OrderCreated */
  sluice_text received; /* when it was accepted, RFC 3339 UTC with milliseconds: the only clock a plugin sees */
  uint32_t attempt;     /* counts the judgements of this order, from 1 */
  const sluice_attr *attrs;
  size_t attrs_count;
  sluice_value body; /* a JSON object, as patched by the plugins before this one */
} sluice_order;

/* The value of an attribute, such as traceparent; empty if it is absent. */
sluice_text sluice_attr_of(const sluice_order *order, sluice_text name);

/* Answers --------------------------------------------------------------------------------------------------------- */

typedef struct sluice_verdict sluice_verdict;
typedef struct sluice_refusal sluice_refusal;

typedef struct {
  bool there;
  sluice_text text;
} sluice_maybe;

/* One finding: a stable word for programs, a short text for people that is the same for each order, what is wrong with this
 * one, and the JSON Pointer to the member at fault. */
typedef struct {
  sluice_text code, title;
  sluice_maybe detail, pointer;
} sluice_problem;

/* The author's: called once, before all else, with the operator's configuration, a JSON object. */
void sluice_configure(sluice_value config, sluice_refusal *refusal);
/* The author's: judges one order. Without any of the calls below, the order is accepted. */
void sluice_judge(const sluice_order *order, sluice_verdict *verdict);

/* Refuses the order for good, with one more problem. Give detail and pointer, if there are any, to what comes back. */
sluice_problem *sluice_reject(sluice_verdict *verdict, sluice_text code, sluice_text title);
/* The same for the configuration: the plugin is not used with it. */
sluice_problem *sluice_refuse(sluice_refusal *refusal, sluice_text code, sluice_text title);
void sluice_detail(sluice_problem *problem, sluice_text detail);
void sluice_points_to(sluice_problem *problem, sluice_text pointer);

/* Creates or replaces a member, or appends to an array with "-"; missing objects on the way are created. The value is JSON,
 * its bytes are kept. */
void sluice_set_raw(sluice_verdict *verdict, sluice_text pointer, sluice_text json);
void sluice_set_text(sluice_verdict *verdict, sluice_text pointer, sluice_text value);
void sluice_set_integer(sluice_verdict *verdict, sluice_text pointer, int64_t value);
void sluice_remove(sluice_verdict *verdict, sluice_text pointer);
/* Gives the order's record a header. */
void sluice_header(sluice_verdict *verdict, sluice_text name, sluice_text value);

/* "Ask me again": the order is held and judged anew, not before this has passed. The client sees the reason. */
void sluice_retry_later(sluice_verdict *verdict, uint32_t after_ms, sluice_text reason);
/* The plugin itself has failed. The order is held. */
void sluice_fault(sluice_verdict *verdict, sluice_text code, sluice_text detail, bool retryable);

/* The gateway ----------------------------------------------------------------------------------------------------- */

typedef enum { SLUICE_DEBUG, SLUICE_INFO, SLUICE_WARN, SLUICE_ERROR } sluice_level;

/* Writes to the gateway's log. Long lines are cut, too many are dropped. */
void sluice_log(sluice_level level, sluice_text line);

/* What follows has to be granted by the operator: metrics, lookup. A plugin that calls none of it asks for none. */

/* Adds to a counter. Names are lower-case words of letters, digits and _. */
void sluice_metric_count(sluice_text name, uint32_t by);
/* Notes one value of a distribution. */
void sluice_metric_observe(sluice_text name, double value);

typedef enum { SLUICE_FOUND, SLUICE_NOT_FOUND, SLUICE_UNKNOWN_TABLE, SLUICE_TOO_MANY_LOOKUPS } sluice_looked;

/* The value under a key of one of the operator's tables. */
sluice_looked sluice_lookup(sluice_text table, sluice_text key, sluice_value *value);
/* The same for many keys, cheaper than one by one: FOUND fills in a value for each key, absent where there is none. */
sluice_looked sluice_lookup_many(sluice_text table, const sluice_text *keys, size_t count, sluice_value *values);

#endif
