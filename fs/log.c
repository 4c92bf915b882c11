/* SPDX-License-Identifier: Apache-2.0 */
/* Where log lines go. */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>
#include <time.h>

static bool to_stderr = true; /* process-wide, like the descriptors behind it */

void thaw_log_open(bool foreground)
{
	to_stderr = foreground;
	if (!foreground)
		openlog("thaw", LOG_PID, LOG_DAEMON);
}

void thaw_log_open_now(bool foreground)
{
	to_stderr = foreground;
	tzset(); /* reads a file, and lines carry the time */
	if (!foreground)
		openlog("thaw", LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

void thaw_log_close(void)
{
	closelog();
}

void thaw_log(int priority, const char *format, ...)
{
	char line[2048];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(line, sizeof(line), format, args); /* a longer line is cut */
	va_end(args);
	if (to_stderr)
		(void)fprintf(stderr, "thaw: %s\n", line); /* nobody else to tell */
	else
		syslog(priority, "%s", line);
}
