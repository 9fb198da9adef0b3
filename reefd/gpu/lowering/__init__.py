# SPDX-License-Identifier: Apache-2.0
"""Operators of a schedule as GPU kernels, one function for each; `reefd.gpu.lower` has the table."""
