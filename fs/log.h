/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The log of processes that live on: standard error in the foreground, syslog
 * otherwise. One line a call; thread-safe.
 */
#include <stdbool.h>

/* Call once, before threads. */
void thaw_log_open(bool foreground);
/* priority as for syslog(3) */
void thaw_log(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));
