/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* As fs/ calls it; the contract is public. */
#include "thaw/directories.h"
