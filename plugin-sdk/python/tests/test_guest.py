"""The side that faces the gateway, against the bindings that the toolchain makes of the contract."""

import json
import subprocess
import sys
import tempfile
import types as python_types
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent


def setUpModule():
    """Makes the bindings and imports the guest, whose guards of the sandbox stay open here."""
    global bindings, guest, sdk, wit, Ok, Err
    toolchain = subprocess.run([HERE.parent / "build", "--install"], check=True, capture_output=True, text=True).stdout.strip()
    bindings = tempfile.TemporaryDirectory()
    command = [f"{toolchain}/bin/componentize-py", "-q", "-d", HERE.parents[1] / "wit/1.1.0", "-w", "enricher", "bindings", bindings.name]
    subprocess.run(command, check=True, capture_output=True)
    sys.path.insert(0, bindings.name)
    import sdk
    from componentize_py_types import Err, Ok
    from sdk import sandbox

    # The guards are tested by themselves; here they would also hold for the tests.
    sandbox.install = sandbox.enter = lambda: None
    from sdk import guest
    from wit_world.imports import types as wit


def tearDownModule():
    sys.path.remove(bindings.name)
    bindings.cleanup()


def exports(judge, configure=None):
    module = python_types.ModuleType("plugin")
    members = {"judge": lambda self, order: judge(order), "__module__": "plugin"}
    if configure:
        members["configure"] = lambda self, config: configure(config)
    module.Mine = type("Mine", (sdk.Plugin,), members)
    return [kind() for kind in guest.export(module)]


def answer(judge, body="{}"):
    """What the gateway gets for one order."""
    lifecycle, processor = exports(judge)
    out, err = sys.stdout, sys.stderr
    try:
        lifecycle.configure(b"{}")
        event = wit.Event(7, "1", "/orders", "OrderCreated", "", 2, [("traceparent", "00")], body.encode())
        [outcome] = processor.process([event])
    finally:
        sys.stdout, sys.stderr = out, err
    assert outcome.seq == 7
    return outcome.verdict


class GuestTest(unittest.TestCase):
    def setUp(self):
        self.lines = []
        guest.wit_log.write = lambda level, message: self.lines.append((level.name, message))

    def fault(self, judge, code, detail):
        self.assertEqual(answer(judge), Err(wit.Fault(code, detail, False)))

    def test_each_verdict_has_the_form_of_the_contract(self):
        self.assertEqual(answer(lambda order: sdk.Accept()), Ok(wit.Verdict_Accept()))
        self.assertEqual(answer(lambda order: sdk.Enrich()), Ok(wit.Verdict_Accept()))
        patch = sdk.Enrich().set("/a", {"b": 1}).set_raw("/c", "1.50").remove("/d").header("e", "é")
        ops = [
            wit.PatchOp_Set(("/a", b'{"b":1}')),
            wit.PatchOp_Set(("/c", b"1.50")),
            wit.PatchOp_Remove("/d"),
            wit.PatchOp_Header(("e", "é")),
        ]
        self.assertEqual(answer(lambda order: patch), Ok(wit.Verdict_Enrich(ops)))
        reject = sdk.Reject(sdk.Problem("c", "t", pointer="/x"))
        self.assertEqual(answer(lambda order: reject), Ok(wit.Verdict_Reject([wit.Problem("c", "t", None, "/x")])))
        later = wit.Verdict_RetryLater(wit.Retry(1000, "soon"))
        self.assertEqual(answer(lambda order: sdk.RetryLater(1000, "soon")), Ok(later))
        self.assertEqual(answer(lambda order: sdk.Fault("c", "d", True)), Err(wit.Fault("c", "d", True)))

    def test_an_exception_becomes_a_fault_with_its_message_and_its_place_is_logged(self):
        def judge(order):
            raise ValueError("no such thing")

        self.fault(judge, "exception", "ValueError: no such thing")
        [(level, line)] = self.lines
        self.assertEqual(level, "ERROR")
        self.assertTrue(line.startswith("ValueError: no such thing\n"))
        self.assertIn("judge (test_guest.py:", line)
        self.fault(lambda order: sys.exit(3), "exception", "SystemExit: 3")

    def test_an_answer_that_is_no_verdict_is_a_fault_that_says_so(self):
        self.fault(lambda order: None, "no-verdict", "judge returned NoneType instead of a verdict")
        self.fault(lambda order: sdk.Reject([]), "exception", "ValueError: Reject: at least one problem has to say why")
        self.fault(lambda order: sdk.RetryLater(0.5, ""), "exception", "ValueError: RetryLater: 0.5 is not a whole number of milliseconds")
        self.fault(lambda order: sdk.Enrich().header("n", 5), "invalid-verdict", "TypeError: a header's value has to be a string, not int")
        self.fault(lambda order: sdk.Enrich([5]), "invalid-verdict", "TypeError: a change has to be Set, Remove or Header, not int")
        self.fault(lambda order: sdk.Enrich().set("/a", float("nan")), "exception", "ValueError: Out of range float values are not JSON compliant")

    def test_lone_surrogates_which_the_contract_cannot_carry_are_replaced(self):
        verdict = answer(lambda order: sdk.Reject(sdk.Problem("c", "t", detail="a\ud800")))
        self.assertEqual(verdict.value.value[0].detail, "a\ufffd")

    def test_one_orders_exception_does_not_touch_the_others(self):
        lifecycle, processor = exports(lambda order: order.get("/bad").x if order.get("/bad") else sdk.Accept())
        out, err = sys.stdout, sys.stderr
        lifecycle.configure(b"{}")
        sys.stdout, sys.stderr = out, err
        events = [wit.Event(seq, "", "", "", "", 1, [], body) for seq, body in enumerate([b"{}", b'{"bad":1}', b"{}"])]
        outcomes = [(one.seq, type(one.verdict)) for one in processor.process(events)]
        self.assertEqual(outcomes, [(0, Ok), (1, Err), (2, Ok)])

    def test_an_order_gives_its_facts_its_text_and_its_members(self):
        def judge(order):
            facts = [order.id, order.attempt, order.attr("traceparent"), order.attr("x"), order.get("/a/1"), order.raw("/a/1")]
            return sdk.Fault("facts", repr([str(fact) for fact in facts]))

        verdict = answer(judge, '{"a":[1,2.50]}')
        self.assertEqual(verdict.value.detail, repr(["1", "2", "00", "None", "2.50", "2.50"]))

    def test_a_configuration_that_is_refused_shows_its_problems(self):
        def refused(configure, config=b"{}"):
            with self.assertRaises(Err) as raised:
                exports(None, configure)[0].configure(config)
            return raised.exception.value

        def wrong(config):
            return config["blocked"]

        def precise(config):
            raise sdk.ConfigurationError(sdk.Problem("a", "A", pointer="/a"), sdk.Problem("b", "B"))

        invalid = lambda detail: [wit.Problem("invalid-configuration", "Invalid configuration", detail, None)]
        out, err = sys.stdout, sys.stderr
        try:
            self.assertEqual(refused(wrong), invalid("KeyError: 'blocked'"))
            self.assertEqual(refused(None, b"[]"), invalid("ValueError: expected a JSON object"))
            self.assertEqual(refused(precise), [wit.Problem("a", "A", None, "/a"), wit.Problem("b", "B", None, None)])
        finally:
            sys.stdout, sys.stderr = out, err

    def test_numbers_and_tables_are_there(self):
        counted = []
        guest.wit_metrics.count = guest.wit_metrics.observe = lambda *all: counted.append(all)
        table = {"k": b'{"limit":1.50}'}

        def get(name, key):
            if name != "t":
                raise Err(guest.wit_lookup.LookupError.UNKNOWN_TABLE)
            return table.get(key)

        guest.wit_lookup.get = get
        guest.wit_lookup.get_many = lambda name, keys: [get(name, key) for key in keys]

        def judge(order):
            sdk.metrics.count("seen")
            sdk.metrics.observe("size", 2)
            found = [sdk.lookup.get("t", "k"), sdk.lookup.raw("t", "k"), sdk.lookup.get("t", "x", "none"), sdk.lookup.get_many("t", ["x", "k"])]
            return sdk.Fault("found", sdk.to_json(found))

        found = [{"limit": 1.5}, '{"limit":1.50}', "none", [None, {"limit": 1.5}]]
        self.assertEqual(json.loads(answer(judge).value.detail), found)
        self.assertEqual(counted, [("seen", 1), ("size", 2.0)])
        self.fault(lambda order: sdk.lookup.get("x", "k"), "unknown-table", "LookupRefused: look-up in the table x: unknown-table")
        self.assertEqual(answer(lambda order: sdk.metrics.count("n", -1)).value.code, "exception")

    def test_what_is_printed_goes_to_the_log(self):
        def judge(order):
            print("one\ntwo", 3)
            print("bad\ud800", file=sys.stderr)
            return sdk.Accept()

        answer(judge)
        self.assertEqual(self.lines, [("INFO", "one"), ("INFO", "two 3"), ("ERROR", "bad\ufffd")])

    def test_a_module_has_exactly_one_plugin(self):
        with self.assertRaisesRegex(SystemExit, "it has none"):
            guest.export(python_types.ModuleType("plugin"))


class WithoutGrantsTest(unittest.TestCase):
    def test_a_validator_is_told_what_to_set(self):
        from sdk import host

        class Validator:
            def write(self, level, message): ...

        host.bind(Validator())
        with self.assertRaisesRegex(RuntimeError, 'lookup is not there: set world = "enricher" in plugin.toml'):
            sdk.lookup.get("t", "k")
