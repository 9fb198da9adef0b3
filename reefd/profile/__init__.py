# SPDX-License-Identifier: Apache-2.0
"""Measuring a resource on this machine: what its kernels cost, and what follows from that (docs/profile.md).

machine.py    where a profile holds
measure.py    the times of kernels and blocks on the CPU
padding.py    how many compute units best-effort work may use beside each run of kernels
gpu.py        how many of a GPU's it may use beside the whole model
report.py     a profile in words

The file itself is `reefd.resource.profile`; what a manifest promises from it, `reefd.promises`.
"""
