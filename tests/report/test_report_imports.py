"""A report never opens a model."""

import subprocess
import sys


def test_report_does_not_import_torch_or_methods():
    code = (
        "import sys, ostiary.report\n"
        "names = {n for n in sys.modules if n.startswith(('torch', 'ostiary.'))}\n"
        "print(sorted(n for n in names if not n.startswith(('ostiary.report', 'ostiary.core'))))\n"
        "print('ostiary.core.records' in names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
