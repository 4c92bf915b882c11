/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The log of processes that live on: standard error in the foreground, syslog
 * otherwise. One line a call; thread-safe.
 */
#include <stdbool.h>

/* Call before threads. */
void thaw_log_open(bool foreground);
/*
 * The same for a process that will not be able to connect later. Descriptors that
 * are closed in between without a call of thaw_log_close() first are a fault.
 */
void thaw_log_open_now(bool foreground);
void thaw_log_close(void);
/* priority as for syslog(3) */
void thaw_log(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));
