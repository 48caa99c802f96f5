"""comp without what Windows lacks: fcntl, resource, fork, and descriptors that a child inherits. A hook hides
them; no Windows machine was at hand."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import TINY

HOOK = """
import os, signal, subprocess, sys  # subprocess first: it asks for msvcrt to know where it runs

class Hidden:
    def find_spec(self, name, *_):
        if name in ("fcntl", "resource", "termios", "pwd", "grp"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in ("fcntl", "resource"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())
for module, names in (
    (os, ("fork", "forkpty", "sched_getaffinity", "posix_fallocate", "O_NOFOLLOW", "killpg", "getuid")),
    (signal, ("pthread_sigmask",)),
):
    for name in names:
        delattr(module, name)

class Locks:  # msvcrt, in memory of this process alone
    LK_NBLCK = 2
    def locking(self, descriptor, mode, n_bytes):
        pass

sys.modules["msvcrt"] = Locks()
sys.platform = "linux"
import comp.artifacts.files as files
files.IS_WINDOWS = True
from comp.cli.main import main
for command in sys.argv[1].split(";"):
    code = main(command.split())
    if code:
        sys.exit(f"{command}: {code}")
assert not {"fcntl", "resource"} & set(sys.modules), "a hidden module was imported"
"""


def test_stages_and_training_in_one_process_need_no_fork_and_no_module_of_unix(tmp_path: Path):
    (tmp_path / "tiny.toml").write_text(TINY)
    stages = ("download", "folds", "train", "predict", "blend", "decide", "submit", "report")
    commands = [f"{stage} tiny.toml" for stage in stages]
    commands += ["init data/tiny/drawn --name own", "runs", "ledger", "keys rule"]
    answer = subprocess.run(
        [sys.executable, "-c", HOOK, ";".join(commands)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
    assert "F2" in answer.stdout
