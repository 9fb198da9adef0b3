# SPDX-License-Identifier: Apache-2.0
"""Stage 2: ONNX operators become kernels. One room for each family; operators.py holds the table that names them
all."""
