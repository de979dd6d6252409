/* Unit tests. `sluice plugin test` judges the orders in vectors.ndjson besides. */
#include <stdio.h>
#include <string.h>

#include "sluice_test.h"

#define INVALID "[{\"code\":\"invalid-configuration\",\"title\":\"Invalid configuration\"}]"
#define LINES_MAX 500

static void an_order_gets_its_totals_and_its_customers_segment(void) {
  SLUICE_EXPECT(sluice_test_configure("{\"segments\":{\"17850\":\"whole\\u0001\\\"sale\"}}"), "[]");
  const char *order = "{\"customerId\":\"17850\",\"lines\":[{\"quantity\":6,\"unitPrice\":\"2.55\"},"
                      "{\"quantity\":2.0,\"unitPrice\":\"0.10\"}]}";
  SLUICE_EXPECT(sluice_test_judge(order),
                "{\"verdict\":\"enrich\",\"patch\":[{\"set\":\"/totals\",\"value\":{\"net\":\"15.50\",\"units\":8,\"lines\":2}},"
                "{\"set\":\"/segment\",\"value\":\"whole\\u0001\\\"sale\"},{\"header\":\"order-net\",\"value\":\"15.50\"}]}");
}

static void numbers_are_integers_by_their_value_and_not_by_their_form(void) {
  static const char *const two[] = {"2", "2.0", "2e0", "20E-1", "0.00002e+5", "2000000000000000000000000000e-27"};
  static const char *const none[] = {"1.5", "-2", "0", "1e6", "1e-400", "1.0000000000000000000001", "\"2\"", "null"};
  char order[200];
  sluice_test_configure("{}");
  for (size_t i = 0; i < sizeof two / sizeof *two; i++) {
    snprintf(order, sizeof order, "{\"customerId\":\"x\",\"lines\":[{\"quantity\":%s,\"unitPrice\":\"3.3333\"}]}", two[i]);
    SLUICE_EXPECT(sluice_test_judge(order),
                  "{\"verdict\":\"enrich\",\"patch\":[{\"set\":\"/totals\",\"value\":{\"net\":\"6.6666\",\"units\":2,"
                  "\"lines\":1}},{\"header\":\"order-net\",\"value\":\"6.6666\"}]}");
  }
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    snprintf(order, sizeof order, "{\"customerId\":\"x\",\"lines\":[{\"quantity\":%s,\"unitPrice\":\"1\"}]}", none[i]);
    SLUICE_EXPECT(sluice_test_judge(order),
                  "{\"verdict\":\"reject\",\"problems\":[{\"code\":\"quantity-invalid\","
                  "\"title\":\"The quantity is not 1 to 100000\",\"pointer\":\"/lines/0/quantity\"}]}");
  }
}

static void the_largest_order_that_is_right_has_an_exact_total(void) {
  static char order[LINES_MAX * 50 + 100];
  sluice_test_configure("{}");
  strcpy(order, "{\"customerId\":\"x\",\"lines\":[");
  size_t size = strlen(order);
  for (int i = 0; i < LINES_MAX; i++) {
    const char *line = "{\"quantity\":1e5,\"unitPrice\":\"9999999.9999\"}";
    size += (size_t)sprintf(order + size, "%s%s", i > 0 ? "," : "", line);
  }
  strcpy(order + size, "]}");
  SLUICE_EXPECT(sluice_test_judge(order),
                "{\"verdict\":\"enrich\",\"patch\":[{\"set\":\"/totals\",\"value\":{\"net\":\"499999999995000.00\","
                "\"units\":50000000,\"lines\":500}},{\"header\":\"order-net\",\"value\":\"499999999995000.00\"}]}");
}

static void a_configuration_that_is_not_understood_is_refused(void) {
  SLUICE_EXPECT(sluice_test_configure("{\"x\":1}"), INVALID);
  SLUICE_EXPECT(sluice_test_configure("{\"segments\":[]}"), INVALID);
  SLUICE_EXPECT(sluice_test_configure("{\"segments\":{\"a\":1}}"), INVALID);
  SLUICE_EXPECT(sluice_test_configure("{\"segments\":null}"), INVALID);
}

int main(void) {
  an_order_gets_its_totals_and_its_customers_segment();
  numbers_are_integers_by_their_value_and_not_by_their_form();
  the_largest_order_that_is_right_has_an_exact_total();
  a_configuration_that_is_not_understood_is_refused();
  return sluice_test_done();
}
