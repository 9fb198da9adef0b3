# SPDX-License-Identifier: Apache-2.0
"""libreef: put inference requests into shared memory that reefd reads, without a copy."""
