import unittest

from plugin import OrderCheck
from sdk import ConfigurationError, Enrich, Header, Problem, Reject, Set
from sdk.testing import Harness, check, vectors


class OrderCheckTest(unittest.TestCase):
    def test_vectors(self):
        for vector in vectors():
            with self.subTest(vector.name):
                check(self, OrderCheck, vector)

    def test_the_patch_has_exactly_the_bytes_of_the_specification(self):
        harness = Harness(OrderCheck, {"segments": {"c": 'a"\n'}})
        verdict = harness.judge('{"customerId":"c","lines":[{"quantity":2.0,"unitPrice":"7.75"}]}')
        patch = [
            Set("/totals", '{"net":"15.50","units":2,"lines":1}'),
            Set("/segment", '"a\\"\\u000a"'),
            Header("order-net", "15.50"),
        ]
        self.assertEqual(verdict, Enrich(patch))

    def test_a_problem_has_code_title_and_pointer_and_no_detail(self):
        verdict = Harness(OrderCheck).judge('{"customerId":"c"}')
        self.assertEqual(verdict, Reject(Problem("lines-invalid", "The lines are not 1 to 500", None, "/lines")))

    def test_a_configuration_of_another_form_is_refused_with_one_problem(self):
        configs = ['{"segments":[]}', '{"segments":null}', '{"segments":{"c":1}}', '{"segment":{}}', '{"segments":{},"more":1}', "[]"]
        for config in configs:
            with self.subTest(config), self.assertRaises(ConfigurationError) as raised:
                Harness(OrderCheck, config)
            problems = [(one.code, one.title) for one in raised.exception.problems]
            self.assertEqual(problems, [("invalid-configuration", "Invalid configuration")])
