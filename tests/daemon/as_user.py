# SPDX-License-Identifier: Apache-2.0
"""Runs something as another user: as_user.py UID reefd ARGUMENT...   or   as_user.py UID code TEXT ARGUMENT...

The interpreter may lie where that user cannot read, so everything is imported before the privileges are dropped.
"""

import difflib  # noqa: F401
import os
import shutil  # noqa: F401
import sys

import numpy  # noqa: F401

import libreef  # noqa: F401
import reefd.__main__
import reefd.daemon
import reefd.resource.load

if __name__ == "__main__":
    user, what, *arguments = sys.argv[1:]
    os.setgroups([])
    os.setresgid(int(user), int(user), int(user))
    os.setresuid(int(user), int(user), int(user))
    if what == "reefd":
        sys.exit(reefd.__main__.main(arguments))
    sys.argv = ["code", *arguments[1:]]
    exec(arguments[0])
