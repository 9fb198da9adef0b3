# SPDX-License-Identifier: Apache-2.0
"""`pytest --hypothesis-profile=nightly` tries as many random graphs as a night allows."""

from hypothesis import settings

settings.register_profile("nightly", max_examples=5_000, deadline=None)
