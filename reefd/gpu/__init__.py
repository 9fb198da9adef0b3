# SPDX-License-Identifier: Apache-2.0
"""GPU kernels as text: instances with fixed shapes, the source of a model, and its compilation without a GPU."""
