"""The list of planted faults fits the code: each text is there once, and each test exists."""

import ast

import pytest

from tests.gpu.planted_faults import FAULTS, ROOT


def test_every_fault_can_be_planted():
    for fault in FAULTS:
        text = (ROOT / "comp" / fault.file).read_text()
        assert text.count(fault.old) == 1, fault
        ast.parse(text.replace(fault.old, fault.new))


def test_every_fault_names_a_test_that_exists():
    class Collected:
        names: set[str]

        def pytest_collection_finish(self, session: pytest.Session) -> None:
            self.names = {item.nodeid for item in session.items}

    collected, tests = Collected(), {fault.test for fault in FAULTS}
    files = sorted({str(ROOT / test.partition("::")[0]) for test in tests})
    options = ["--collect-only", "-n", "0", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    assert pytest.main([*options, *files], plugins=[collected]) == 0
    assert tests - collected.names == set()
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
