# SPDX-License-Identifier: Apache-2.0
"""t5tasks: every task of the LLM task guide on JAX transformers, from one config file."""
