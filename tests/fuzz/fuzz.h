/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A fuzz target is one function, as libFuzzer wants it. Without an engine,
 * fuzz-main.c calls it for each file of a corpus.
 */
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
