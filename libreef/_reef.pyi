# SPDX-License-Identifier: Apache-2.0
"""The cffi binding of reef.h and reef_abi.h (python/build_cffi.py): `lib.reef_open`, `ffi.new("struct reef_loan *")`"""

from typing import Any

ffi: Any
lib: Any
