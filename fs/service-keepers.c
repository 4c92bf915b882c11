/* SPDX-License-Identifier: Apache-2.0 */
/* Keepers as the service sees them: launched by jobs, found again, replaced. */
#include "service-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper.h"
#include "service-keepers.h"

int service_keeper_launch(const struct service_launch *launch, struct thaw_error *err,
			  pid_t *ret_keeper)
{
	char image[64], warm[64];
	int status;
	pid_t pid;

	(void)snprintf(image, sizeof(image), "/proc/self/fd/%d", launch->image_fd);
	(void)snprintf(warm, sizeof(warm), "--warm=%s", launch->warm ? launch->warm : "all");
	pid = fork();
	if (pid == 0) {
		(void)fcntl(launch->image_fd, F_SETFD, 0);
		execl("/proc/self/exe", "thaw", "mount", warm, image, launch->directory, NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
		return thaw_io(err, -EIO, "the image cannot be mounted");
	*ret_keeper = 0;
	return 0;
}

pid_t image_keeper(const struct image *image, struct service *service)
{
	return 0;
}

void image_check(struct image *image, struct service *service)
{
}
