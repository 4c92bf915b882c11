/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts of images: one for each image and, for writable views, user. The first
 * view's job launches the keeper; others that want the mount meanwhile wait. It is
 * ended some seconds after its last view.
 */
#include "service-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <syslog.h>
#include <unistd.h>

#include "service-keepers.h"
#include "thaw/stat.h"
#include "util/cleanup.h"

struct image *image_find(struct service *service,
			 const uint8_t identity[THAW_DIGEST_SIZE], uid_t uid)
{
	for (struct image *image = service->images; image; image = image->next)
		if (!image->gone && !image->own && image->uid == uid &&
		    memcmp(image->identity, identity, THAW_DIGEST_SIZE) == 0)
			return image;
	return NULL;
}

static struct image *image_free(struct image *image)
{
	closep(&image->index_fd);
	free(image->name);
	free(image->directory);
	free(image->state_directory);
	free(image);
	return NULL;
}

static struct image *add(struct service *service, struct image *image, const char *name,
			 const char *directory)
{
	image->keeper_end.fd = -1;
	image->index_fd = -1;
	image->name = strdup(name);
	if (asprintf(&image->directory, "%s%s%s", directory, image->own ? "" : "/",
		     image->own ? "" : image->key) < 0)
		image->directory = NULL;
	if (asprintf(&image->state_directory, "%s/%s", service->keepers_directory,
		     image->key) < 0)
		image->state_directory = NULL;
	if (!image->name || !image->directory || !image->state_directory)
		return image_free(image);
	image->next = service->images;
	service->images = image;
	return image;
}

struct image *image_new(struct service *service, const uint8_t identity[THAW_DIGEST_SIZE],
			uid_t uid, const char *name)
{
	struct image *image = calloc(1, sizeof(*image));
	char hex[THAW_DIGEST_HEX];

	if (!image)
		return NULL;
	image->uid = uid;
	memcpy(image->identity, identity, THAW_DIGEST_SIZE);
	thaw_digest_hex(identity, hex);
	if (uid == 0)
		(void)snprintf(image->key, sizeof(image->key), "%s", hex);
	else
		(void)snprintf(image->key, sizeof(image->key), "%s-%u", hex,
			       (unsigned)uid);
	return add(service, image, name, service->images_directory);
}

struct image *image_new_own(struct service *service, const struct thaw_lease *lease)
{
	struct image *image = calloc(1, sizeof(*image));

	if (!image)
		return NULL;
	image->own = true;
	image->uid = service->uid;
	memcpy(image->identity, lease->images[0].identity, THAW_DIGEST_SIZE);
	(void)snprintf(image->key, sizeof(image->key), "%s", lease->id);
	return add(service, image, lease->images[0].name, lease->directory);
}

void images_sweep(struct service *service)
{
	struct image **at = &service->images;

	while (*at) {
		struct image *image = *at;

		/* What was given up may be in use yet, by views that are about to end. */
		if (!image->gone || image->users > 0 || image->checked) {
			at = &image->next;
			continue;
		}
		*at = image->next;
		source_remove(&image->keeper_end);
		closep(&image->keeper_end.fd);
		(void)image_free(image);
	}
}

void wake_for_image(struct service *service, struct image *image)
{
	for (struct job *job = service->jobs; job; job = job->next) {
		if (job->waits_for_image != image || job->ended)
			continue;
		job->waits_for_image = NULL;
		open_resume(job);
	}
}

void image_ready(struct image *image, struct service *service, int pidfd)
{
	image->state = IMAGE_READY;
	image->deadline = 0;
	if (image->users == 0) {
		image->deadline = thaw_boottime() + (uint64_t)service->options->linger;
		service_wake_at(service, image->deadline);
	}
	image_follow_keeper(image, service, pidfd);
	wake_for_image(service, image);
}

void image_failed(struct image *image, struct service *service)
{
	image->gone = true;
	wake_for_image(service, image);
}

void image_unuse(struct image *image, struct service *service)
{
	if (--image->users > 0)
		return;
	if (image->own) {
		image->gone = true; /* was unmounted as the view that it is */
	} else if (image->state == IMAGE_READY) {
		image->deadline = thaw_boottime() + (uint64_t)service->options->linger;
		service_wake_at(service, image->deadline);
	}
}

/* -- the end -- */

/* In the child. Nobody's view is over it; whoever looks around in it may go on doing so. */
static int run_end(struct job *job, int socket)
{
	struct job_message done = { .kind = JOB_DONE };
	const char *directory = job->image->directory;
	_cleanup_(closep) int learned = -1;

	/* EINVAL: no mount (any more). */
	if (umount2(directory, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL &&
	    errno != ENOENT)
		done.result = thaw_io(&done.err, -errno, "cannot be unmounted");
	if (done.result == 0) {
		learned = learn_last(job->image);
		service_keeper_clear(job->image->state_directory);
		(void)rmdir(directory); /* made anew when it is needed */
	}
	return job_send(socket, &done, learned) < 0;
}

static void end_message(struct job *job, const struct job_message *message, int *fd)
{
	if (message->result < 0)
		service_log(job->service, LOG_ERR, "image-stays", "image",
			    job->image->name, "identity", job->image->key, "why",
			    message->err.text, NULL);
	else if (*fd >= 0)
		learn_store(job->image, job->service, *fd);
}

static void end_ended(struct job *job)
{
	struct image *image = job->image;

	service_log(job->service, LOG_INFO, "image-unmounted", "image", image->name,
		    "identity", image->key, NULL);
	image->gone = true; /* found again in the mount table, should it be there still */
	wake_for_image(job->service, image);
}

static void image_end(struct image *image, struct service *service)
{
	struct job *job = job_new(service, "unmount image", NULL);

	image->deadline = 0;
	if (job) {
		job->image = image;
		job->message = end_message;
		job->end = end_ended;
	}
	if (!job || job_start(service, job, run_end, &image->keeper_end.fd,
			      image->keeper_end.fd >= 0) < 0) {
		free(job);
		image->deadline = thaw_boottime() + 1; /* later, then */
		service_wake_at(service, image->deadline);
		return;
	}
	image->state = IMAGE_ENDING;
}

void image_abandon(struct image *image, struct service *service)
{
	if (image->own || image->state != IMAGE_READY)
		return;
	image_end(image, service);
}

void images_expire(struct service *service, uint64_t now)
{
	for (struct image *image = service->images; image; image = image->next) {
		if (image->gone || image->state != IMAGE_READY)
			continue;
		if (image->check_at && image->check_at <= now)
			image_check(image, service);
		else if (image->check_at)
			service_wake_at(service, image->check_at);
		learn_look(image, service, now);
		if (image->users > 0 || image->deadline == 0)
			continue;
		if (image->deadline <= now ||
		    (service->draining && service->view_count == 0))
			image_end(image, service);
		else
			service_wake_at(service, image->deadline);
	}
}

json_t *image_to_json(struct image *image)
{
	static const char *const states[] = { "starting", "ready", "ending" };
	char hex[THAW_DIGEST_HEX];
	json_t *object;

	image_look(image);
	thaw_digest_hex(image->identity, hex);
	object = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "image", image->name,
			   "identity", hex, "directory", image->directory, "state",
			   states[image->state], "uid", (json_int_t)image->uid, "views",
			   (json_int_t)image->users, "restarts",
			   (json_int_t)image->restarts);
	if (object && image->keeper > 0)
		(void)json_object_set_new(object, "keeper", json_integer(image->keeper));
	if (object && image->state == IMAGE_READY)
		(void)json_object_set_new(
			object, "warm_source",
			json_string(thaw_warm_source_name(image->warm_source)));
	if (object && image->failure[0])
		(void)json_object_set_new(object, "trouble", json_string(image->failure));
	return object;
}
