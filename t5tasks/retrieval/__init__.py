# SPDX-License-Identifier: Apache-2.0
"""Documents come in, are kept, and the passages that bear on a question go out."""
