"""Native unit tests: no WebAssembly, no gateway. Run them with `python3 -m unittest`."""

import unittest

from plugin import OrderPriority
from sdk import Accept, ConfigurationError, Enrich
from sdk.testing import Harness, check, vectors

CONFIG = {"blocked": ["mallory"], "express_from": "1000"}


class OrderPriorityTest(unittest.TestCase):
    def test_vectors(self):
        for vector in vectors():
            with self.subTest(vector.name):
                check(self, OrderPriority, vector, CONFIG)

    def test_an_order_without_a_total_passes_as_it_is(self):
        self.assertEqual(Harness(OrderPriority, CONFIG).judge({"customerId": "alice"}), Accept())

    def test_the_limit_belongs_to_express(self):
        verdict = Harness(OrderPriority, CONFIG).judge({"total": "1000.00"})
        self.assertEqual(verdict, Enrich().set("/priority", "express"))

    def test_a_configuration_of_another_form_is_refused(self):
        with self.assertRaises(ConfigurationError):
            Harness(OrderPriority, {"blocked": "mallory"})


if __name__ == "__main__":
    unittest.main()
