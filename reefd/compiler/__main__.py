# SPDX-License-Identifier: Apache-2.0
"""`python -m reefd.compiler MODEL.onnx -o DIR`: as `reefctl compile`."""

import sys

from cyclopts import App

from reefd.cli_compile import compile_model

app = App(name="python -m reefd.compiler")
app.default(compile_model)
sys.exit(app())
