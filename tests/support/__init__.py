# SPDX-License-Identifier: Apache-2.0
"""What the tests share: running thaw, building archives, mounting, comparing trees."""
