import json
import random
import unittest
from decimal import Decimal

from sdk.exact import parse, raw_at, to_json, value_at

DOCUMENT = (
    ' {"a":{"b/c":[10, 1.50 ,{"~":null}], "":"x"},"n":123456789012345678901234567890,'
    '"s":"a\\"]}\\\\","é\\u00e9":[[],{}]} '
)


class ExactTest(unittest.TestCase):
    def test_members_are_found_by_pointer_with_their_exact_text(self):
        cases = {
            "": DOCUMENT.strip(),
            "/a/b~1c/0": "10",
            "/a/b~1c/1": "1.50",
            "/a/b~1c/2/~0": "null",
            "/a/": '"x"',
            "/n": "123456789012345678901234567890",
            "/s": '"a\\"]}\\\\"',
            "/éé/0": "[]",
            "/éé/1": "{}",
        }
        for pointer, text in cases.items():
            self.assertEqual(raw_at(DOCUMENT, pointer), text, pointer)
            self.assertEqual(value_at(parse(DOCUMENT), pointer), parse(text), pointer)

    def test_what_is_not_there_is_none(self):
        for pointer in ["/x", "/a/b", "/a/b~1c/3", "/a/b~1c/01", "/a/b~1c/-", "/n/0", "/s/0", "a", "/éé/0/0"]:
            self.assertIsNone(raw_at(DOCUMENT, pointer), pointer)
            self.assertEqual(value_at(parse(DOCUMENT), pointer, "default"), "default", pointer)

    def test_numbers_are_exact(self):
        values = parse("[123456789012345678901,1.50,-0.0,2e0,1E-400,1e-99999999999999999999]")
        self.assertEqual(values, [123456789012345678901, Decimal("1.50"), Decimal("-0.0"), 2, Decimal("1E-400"), 0])
        self.assertEqual([str(value) for value in values[:2]], ["123456789012345678901", "1.50"])
        self.assertIs(type(values[3]), Decimal)
        for bad in ["NaN", "[Infinity]", "-Infinity", "01", "1."]:
            with self.assertRaises(ValueError, msg=bad):
                parse(bad)

    def test_every_text_is_read_and_printed_as_the_same(self):
        chance = random.Random(7)

        def text(depth):
            space = chance.choice(["", "", " ", "\n\t"])
            kind = chance.randrange(3 if depth > 4 else 5)
            if kind == 0:
                return space + chance.choice(["0", "-1.50", "1e5", "0.1E-7", "99999999999999999999", "true", "null"]) + space
            if kind == 1:
                return space + chance.choice(['""', '"a"', '"\\\\"', '"\\""', '"é]}{["', '"\\u00e9\\n"']) + space
            if kind == 2:
                return chance.choice(["[]", "{}", "[ ]", "{ }"])
            parts = [text(depth + 1) for _ in range(chance.randrange(4))]
            if kind == 3:
                return f"[{','.join(parts)}]"
            names = [f'{space}"{chance.choice(["k", chr(92) + "u006b", "é"])}{n}"{space}' for n in range(len(parts))]
            return "{" + ",".join(f"{name}:{part}" for name, part in zip(names, parts)) + "}"

        def look(document, value, at):
            self.assertEqual(parse(raw_at(document, at)), value, f"{at} of {document}")
            for name, member in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []:
                look(document, member, f"{at}/{name}")

        for _ in range(500):
            document = text(0)
            look(document, parse(document), "")
            self.assertEqual(parse(to_json(parse(document))), parse(document), document)

    def test_a_value_is_printed_without_loss_and_what_has_no_json_form_is_refused(self):
        value = {"a": [1, 2.5, 'é\n"', None, True, 10**20, Decimal("1.50"), (1,)], "b": {}}
        self.assertEqual(to_json(value), '{"a":[1,2.5,"é\\n\\"",null,true,100000000000000000000,1.50,[1]],"b":{}}')
        self.assertEqual(json.loads(to_json("\0\x7f😀")), "\0\x7f😀")
        for bad in [float("nan"), float("inf"), Decimal("NaN"), {1: 2}, {1}, object(), [b"x"]]:
            with self.assertRaises((TypeError, ValueError), msg=bad):
                to_json(bad)


if __name__ == "__main__":
    unittest.main()
