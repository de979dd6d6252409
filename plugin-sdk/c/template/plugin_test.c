/* Unit tests. `sluice plugin test` judges the orders in vectors.ndjson besides. */
#include "sluice_test.h"

int main(void) {
  SLUICE_EXPECT(sluice_test_configure("{\"lines_max\":2}"), "[]");
  SLUICE_EXPECT(sluice_test_judge("{\"lines\":[1,2]}"),
                "{\"verdict\":\"enrich\",\"patch\":[{\"set\":\"/lineCount\",\"value\":2}]}");
  SLUICE_EXPECT(sluice_test_judge("{\"lines\":[1,2,3]}"),
                "{\"verdict\":\"reject\",\"problems\":[{\"code\":\"too-many-lines\",\"title\":\"The order has too many lines\","
                "\"detail\":\"3 lines, at most 2 are allowed\",\"pointer\":\"/lines\"}]}");
  SLUICE_EXPECT(sluice_test_noted(), "info 3 lines, at most 2 are allowed\n");
  SLUICE_EXPECT(sluice_test_configure("{\"lines_max\":\"many\"}"),
                "[{\"code\":\"invalid-configuration\",\"title\":\"Invalid configuration\","
                "\"detail\":\"lines_max is not a whole number from 0\",\"pointer\":\"/lines_max\"}]");
  return sluice_test_done();
}
