# SPDX-License-Identifier: Apache-2.0
"""`reefctl bench`: what reefd costs and what it protects, measured beside its peers in the same run.

cli.py        the verbs
report.py     cases, ratios, the table and the JSON object
daemon.py     a private daemon with its own instance and folders
ring.py       round trips of an echo request; ring/ is its C side, grpc_peer.py the slowest of the peers
beside.py     real-time requests alone and beside a best-effort load
"""
