# SPDX-License-Identifier: Apache-2.0
"""Sources, tokenizers and tasks' pieces in, batches of arrays out."""
