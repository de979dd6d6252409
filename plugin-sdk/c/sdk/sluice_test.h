/* Judges single orders natively, in unit tests, without a gateway. */
#ifndef SLUICE_TEST_H
#define SLUICE_TEST_H

#include "sluice.h"

/* Makes a new plugin with a configuration, a JSON object. Gives its problems as a JSON array, or "[]". */
const char *sluice_test_configure(const char *config);
/* Lets it judge an order, a JSON object. Gives the outcome as JSON, such as {"verdict":"accept"}. */
const char *sluice_test_judge(const char *order);
/* A table for look-ups: an object with any values. */
void sluice_test_table(const char *name, const char *json);
/* What the plugin has logged and measured since it was configured, one line each. */
const char *sluice_test_noted(void);

/* Says so if a text is not the one that is expected. */
#define SLUICE_EXPECT(got, wanted) sluice_test_expect(__FILE__, __LINE__, got, wanted)
void sluice_test_expect(const char *file, int line, const char *got, const char *wanted);
/* Says how many texts were as expected; the exit code of main. */
int sluice_test_done(void);

#endif
