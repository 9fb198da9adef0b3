# SPDX-License-Identifier: Apache-2.0
"""`reefctl run`: a resource through a daemon of its own, timed.

measure.py    requests through the real way: client, ring, engine, device
report.py     what is reported of them, the warnings, the table
"""
