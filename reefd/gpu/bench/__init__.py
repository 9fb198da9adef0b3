# SPDX-License-Identifier: Apache-2.0
"""Tunes and measures whole networks on a CUDA device, beside PyTorch: `python -m reefd.gpu.bench`."""
