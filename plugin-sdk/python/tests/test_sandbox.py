"""The guards, each in a process of its own: they hold for all of Python there."""

import subprocess
import sys
import unittest

PROGRAM = """
from sdk import sandbox
sandbox.install()
import datetime, io, os, pathlib, random, time, traceback, uuid
from datetime import date, datetime as moment
assert time.time() > 0 and random.random() < 1 and moment.now() and open(os.devnull)
sandbox.enter()
{}
"""


class SandboxTest(unittest.TestCase):
    def outcome(self, statement):
        run = subprocess.run([sys.executable, "-c", PROGRAM.format(statement)], capture_output=True, text=True)
        return run.stderr.strip().rpartition("\n")[2] or run.stdout.strip()

    def test_what_is_not_there_says_so(self):
        cases = {
            "a plugin has no clock": [
                *("time.time()", "time.monotonic_ns()", "time.sleep(1)", "time.localtime()", "moment.now()", "moment.utcnow()"),
                *("moment.today()", "date.today()", "datetime.datetime.now(datetime.timezone.utc)"),
            ],
            "a plugin has no randomness": ["random.random()", "random.shuffle([1])", "os.urandom(4)", "uuid.uuid4()", "random.SystemRandom().random()"],
            "a plugin has no files": ["open('x')", "io.open('x')", "pathlib.Path('x').read_text()", "os.listdir('.')", "os.stat('x')"],
            "import it at the top of plugin.py": ["import statistics", "import xml.dom"],
        }
        for message, statements in cases.items():
            for statement in statements:
                with self.subTest(statement):
                    self.assertIn(message, self.outcome(statement))

    def test_what_needs_neither_clock_nor_chance_works(self):
        cases = {
            "print(moment.fromisoformat('2026-11-25T03:26:49+00:00').date())": "2026-11-25",
            "print(moment.strptime('25.11.2026', '%d.%m.%Y') - moment(2026, 11, 24))": "1 day, 0:00:00",
            "print(type(moment(2026, 1, 1) + datetime.timedelta(1)).__name__, isinstance(date(2026, 1, 1), datetime.date))": "datetime True",
            "print(random.Random(1).random() == random.Random(1).random())": "True",
            "print(os.path.exists('/'))": "False",
            "try: 1 / 0\nexcept ZeroDivisionError: print('ZeroDivisionError' in traceback.format_exc())": "True",
            "import math; print(math.gcd(4, 6))": "2",
        }
        for statement, output in cases.items():
            with self.subTest(statement):
                self.assertEqual(self.outcome(statement), output)
