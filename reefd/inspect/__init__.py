# SPDX-License-Identifier: Apache-2.0
"""`reefctl inspect`: what a resource consists of and what that costs.

cost.py       arithmetic and memory traffic of a kernel, from its shapes
memory.py     the activation arena, beside what any plan for the schedule needs
report.py     all of it in one structure, and the table
plot.py       the figure
"""
