# SPDX-License-Identifier: Apache-2.0
"""Real processes for the quickstart, the benchmarks and the end-to-end tests."""
