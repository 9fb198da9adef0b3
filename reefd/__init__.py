# SPDX-License-Identifier: Apache-2.0
"""The daemon that owns the device, and its tools. Importing the package imports nothing heavy."""

__version__ = "0.1.0"
