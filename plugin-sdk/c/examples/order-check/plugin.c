/* Checks orders and works out their totals, exactly: amounts are ten-thousandths in 64 bits. */
#include "sluice.h"

#define LINES_MAX 500
#define QUANTITY_MAX 100000
#define PROBLEMS_MAX 100

static sluice_value segments;

typedef struct {
  sluice_verdict *verdict;
  size_t count;
} findings;

void sluice_configure(sluice_value config, sluice_refusal *refusal) {
  bool right = sluice_kind_of(config) == SLUICE_OBJECT;
  segments = (sluice_value){{0}};
  for (sluice_walk member = sluice_over(config); sluice_next(&member);) {
    right = right && sluice_is(member.name, SLUICE("segments")) && sluice_kind_of(member.value) == SLUICE_OBJECT;
    segments = member.value;
  }
  for (sluice_walk segment = sluice_over(segments); sluice_next(&segment);)
    right = right && sluice_kind_of(segment.value) == SLUICE_STRING;
  if (!right) sluice_refuse(refusal, SLUICE("invalid-configuration"), SLUICE("Invalid configuration"));
}

static void note(findings *all, sluice_text code, sluice_text title, sluice_text pointer) {
  if (all->count++ < PROBLEMS_MAX) sluice_points_to(sluice_reject(all->verdict, code, title), pointer);
}

/* The pointer to a line, or to one of its members. */
static sluice_text at(size_t line, sluice_text member) {
  sluice_builder pointer = {0};
  sluice_put(&pointer, SLUICE("/lines/"));
  sluice_put_integer(&pointer, (int64_t)line);
  sluice_put(&pointer, member);
  return sluice_built(&pointer);
}

/* Adds digits to a number; false if one is none. */
static bool digits(sluice_text text, int64_t *number) {
  for (size_t i = 0; i < text.size; i++) {
    if (text.bytes[i] < '0' || text.bytes[i] > '9') return false;
    *number = *number * 10 + (text.bytes[i] - '0');
  }
  return true;
}

/* A price in ten-thousandths. */
static bool unit_price(sluice_value value, int64_t *price) {
  sluice_text text;
  if (!sluice_string(value, &text)) return false;
  size_t point = 0;
  while (point < text.size && text.bytes[point] != '.') point++;
  sluice_text whole = {text.bytes, point}, fraction = SLUICE("0");
  if (point < text.size) fraction = (sluice_text){text.bytes + point + 1, text.size - point - 1};
  if (whole.size < 1 || whole.size > 7 || fraction.size < 1 || fraction.size > 4) return false;
  *price = 0;
  if (!digits(whole, price) || !digits(fraction, price)) return false;
  for (size_t i = fraction.size; i < 4; i++) *price *= 10;
  return *price > 0;
}

/* Ten-thousandths with two decimals, and a third or fourth only where it is needed. */
static sluice_text decimal(int64_t amount) {
  sluice_builder text = {0};
  sluice_put_integer(&text, amount / 10000);
  sluice_put(&text, SLUICE("."));
  int64_t fraction = amount % 10000, places = 4;
  for (; places > 2 && fraction % 10 == 0; places--) fraction /= 10;
  for (int64_t ten = places == 2 ? 10 : places == 3 ? 100 : 1000; ten > 0; ten /= 10)
    sluice_put_integer(&text, fraction / ten % 10);
  return sluice_built(&text);
}

void sluice_judge(const sluice_order *order, sluice_verdict *verdict) {
  findings all = {verdict, 0};
  sluice_text customer = {0};
  if (!sluice_string(sluice_get(order->body, SLUICE("customerId")), &customer) || customer.size == 0)
    note(&all, SLUICE("customer-id-missing"), SLUICE("The customer id is missing"), SLUICE("/customerId"));

  int64_t net = 0, units = 0;
  sluice_value lines = sluice_get(order->body, SLUICE("lines"));
  size_t count = sluice_count(lines);
  if (sluice_kind_of(lines) != SLUICE_ARRAY || count < 1 || count > LINES_MAX) {
    note(&all, SLUICE("lines-invalid"), SLUICE("The lines are not 1 to 500"), SLUICE("/lines"));
    return;
  }
  for (sluice_walk line = sluice_over(lines); sluice_next(&line);) {
    int64_t quantity = 0, price = 0;
    if (sluice_kind_of(line.value) != SLUICE_OBJECT) {
      note(&all, SLUICE("line-invalid"), SLUICE("The line is not an object"), at(line.index, SLUICE("")));
      continue;
    }
    bool counted = sluice_integer(sluice_get(line.value, SLUICE("quantity")), &quantity);
    if (!counted || quantity < 1 || quantity > QUANTITY_MAX) {
      sluice_text title = SLUICE("The quantity is not 1 to 100000");
      note(&all, SLUICE("quantity-invalid"), title, at(line.index, SLUICE("/quantity")));
      quantity = 0;
    }
    if (!unit_price(sluice_get(line.value, SLUICE("unitPrice")), &price)) {
      sluice_text title = SLUICE("The unit price is not a decimal above zero");
      note(&all, SLUICE("unit-price-invalid"), title, at(line.index, SLUICE("/unitPrice")));
      price = 0;
    }
    net += price * quantity;
    units += quantity;
  }
  if (all.count > 0) return;

  sluice_text amount = decimal(net), segment;
  sluice_builder totals = {0};
  sluice_put(&totals, SLUICE("{\"net\":\""));
  sluice_put(&totals, amount);
  sluice_put(&totals, SLUICE("\",\"units\":"));
  sluice_put_integer(&totals, units);
  sluice_put(&totals, SLUICE(",\"lines\":"));
  sluice_put_integer(&totals, (int64_t)count);
  sluice_put(&totals, SLUICE("}"));
  sluice_set_raw(verdict, SLUICE("/totals"), sluice_built(&totals));
  if (sluice_string(sluice_get(segments, customer), &segment)) sluice_set_text(verdict, SLUICE("/segment"), segment);
  sluice_header(verdict, SLUICE("order-net"), amount);
}
