/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an earlier service left. The mount table says what is there, the catalogue
 * why; what the catalogue has lost is told by the links below sessions/. An
 * image that answers, or does not say whether it would, is taken to be alive; one that is
 * dead is detached, with the views over it.
 */
#include "service-internal.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include "keeper-state.h"
#include "keeper.h"
#include "mountinfo.h"
#include "overlay.h"
#include "scratch.h"
#include "service-keepers.h"
#include "thaw/mount.h"
#include "util/cleanup.h"
#include "util/paths.h"

/* -- images -- */

/* DIGEST or DIGEST-UID */
static bool parse_key(const char *key, uint8_t identity[THAW_DIGEST_SIZE], uid_t *ret_uid)
{
	char hex[THAW_DIGEST_HEX];
	char *end = NULL;

	if (strlen(key) < THAW_DIGEST_HEX - 1)
		return false;
	memcpy(hex, key, THAW_DIGEST_HEX - 1);
	hex[THAW_DIGEST_HEX - 1] = '\0';
	key += THAW_DIGEST_HEX - 1;
	*ret_uid = 0;
	if (*key == '-')
		*ret_uid = (uid_t)strtoul(key + 1, &end, 10);
	return thaw_digest_from_hex(hex, identity) &&
	       (*key == '\0' || (end && *end == '\0'));
}

static void detach_entry(struct service *service, const struct thaw_mount_entry *entry)
{
	struct thaw_error err = { 0 };

	if (thaw_overlay_detach(entry, &err) < 0)
		service_log(service, LOG_ERR, "not-detached", "directory", entry->path,
			    "why", err.text, NULL);
	else
		service_log(service, LOG_NOTICE, "detached", "directory", entry->path,
			    "why", "nobody serves it", NULL);
}

static bool lies_over(const struct thaw_mount_entry *view, const char *directory)
{
	for (const char *p = view->lower; *p; p = thaw_mountinfo_next_lower(p))
		if (strcmp(p, directory) == 0)
			return true;
	return false;
}

/* The image, and what lies over it. Marked, so that no view is taken from it. */
static void detach_dead(struct service *service, struct thaw_mount_table *table,
			size_t number)
{
	const char *directory = table->entries[number].path;

	for (size_t i = 0; i < table->count; i++) {
		struct thaw_mount_entry *entry = &table->entries[i];

		if (entry->kind != THAW_MOUNT_VIEW || !lies_over(entry, directory))
			continue;
		detach_entry(service, entry);
		entry->kind = THAW_MOUNT_OTHER;
	}
	detach_entry(service, &table->entries[number]);
	(void)rmdir(directory);
	table->entries[number].kind = THAW_MOUNT_OTHER;
}

/* False: nobody serves it. */
static bool take_keeper(struct service *service, struct image *image)
{
	struct thaw_error err = { 0 };
	int pidfd = -1, r = image_find_keeper(image, service, &err, &pidfd);

	if (r == THAW_ORPHANED) {
		service->metrics.keepers_adopted++;
		service_log(service, LOG_WARNING, "keeper-replaced", "image", image->name,
			    "identity", image->key, NULL);
	} else if (r < 0) {
		service_log(service, LOG_WARNING, "keeper-unknown", "image", image->name,
			    "identity", image->key, "why", err.text, NULL);
	}
	/* Without state, or unreadable: served by somebody all the same, if it answers. */
	if (pidfd < 0 && service_nobody_answers(image->directory))
		return false;
	image_ready(image, service, pidfd);
	if (pidfd < 0) {
		image->unknown = r < 0; /* said above */
		image_check_later(image, service);
	}
	if (learn_wanted(service, NULL)) /* it may have been, for the service before us */
		learn_begun(image, service);
	return true;
}

static void restore_images(struct service *service, struct thaw_mount_table *table)
{
	for (size_t i = 0; i < table->count; i++) {
		struct thaw_mount_entry *entry = &table->entries[i];
		uint8_t identity[THAW_DIGEST_SIZE];
		struct image *image;
		uid_t uid;

		if (!service->root)
			break; /* views are their images' mounts */
		if (entry->kind != THAW_MOUNT_IMAGE ||
		    !thaw_is_below(entry->path, service->images_directory) ||
		    !parse_key(strrchr(entry->path, '/') + 1, identity, &uid))
			continue;
		image = image_find(service, identity, uid);
		if (!image)
			image = image_new(service, identity, uid, "?");
		if (image && image->state != IMAGE_READY &&
		    !take_keeper(service, image)) {
			image->gone = true;
			service_keeper_clear(image->state_directory);
			detach_dead(service, table, i);
		}
	}
}

/* -- views -- */

static const struct thaw_mount_entry *find_view(const struct service *service,
						const struct thaw_mount_table *table,
						const char *directory)
{
	enum thaw_mount_kind kind = service->root ? THAW_MOUNT_VIEW : THAW_MOUNT_IMAGE;

	for (size_t i = table->count; i-- > 0;) /* topmost first */
		if (table->entries[i].kind == kind &&
		    strcmp(table->entries[i].path, directory) == 0)
			return &table->entries[i];
	return NULL;
}

/* Without root: the view is its image's mount. False: nobody serves it. */
static bool use_own(struct view *view)
{
	struct service *service = view->service;
	struct image *image = image_new_own(service, &view->lease);

	if (!image)
		return true;
	if (!take_keeper(service, image)) {
		image->gone = true;
		return false;
	}
	view->images[0] = image;
	image->users++;
	image->deadline = 0;
	return true;
}

/* Which images lie below it: the table has them from the top, leases from below. */
static void use_images(struct view *view, const struct thaw_mount_entry *entry)
{
	struct service *service = view->service;

	for (unsigned i = 0; i < view->lease.image_count; i++) {
		const struct thaw_lease_image *part = &view->lease.images[i];
		struct image *image = image_find(service, part->identity, 0);

		/* Of a writable view, or of a file that its user may change. */
		if (!image || !lies_over(entry, image->directory))
			image = image_find(service, part->identity, view->lease.uid);
		if (!image || !lies_over(entry, image->directory))
			continue;
		view->images[i] = image;
		image->users++;
		image->deadline = 0;
		if (strcmp(image->name, "?") == 0) {
			char *name = strdup(part->name);

			if (name) {
				free(image->name);
				image->name = name;
			}
		}
	}
}

static void begin_lease(struct view *view)
{
	struct service *service = view->service;
	struct thaw_lease *lease = &view->lease;

	if (lease->kind == THAW_LEASE_CONNECTION) {
		/* With the service its connections were lost: they have their grace. */
		lease->deadline = thaw_boottime() + (uint64_t)service->options->grace;
	} else if (lease->kind == THAW_LEASE_PROCESS) {
		int fd = (int)syscall(SYS_pidfd_open, lease->pid, 0);

		/* Its number may be another's by now. */
		if (fd >= 0 && thaw_process_began(lease->pid) != lease->pid_start)
			fd = safe_close(fd);
		if (fd < 0 || view_follow_process(view, fd, NULL) < 0)
			lease->deadline = thaw_boottime();
	}
	if (lease->deadline)
		service_wake_at(service, lease->deadline);
}

static void take_view(struct service *service, struct thaw_lease *lease,
		      const struct thaw_mount_entry *entry)
{
	struct view *view = view_new(service, lease);
	bool alive = true;

	if (!view)
		return;
	(void)snprintf(view->device, sizeof(view->device), "%s", entry->device);
	if (service->root)
		use_images(view, entry);
	else
		alive = use_own(view);
	if (view->lease.scratch &&
	    !thaw_is_below(view->lease.scratch, service->memory_directory) &&
	    thaw_scratch_adopt(view->lease.scratch, NULL, &view->scratch_lock) < 0)
		view_log(view, LOG_WARNING, "scratch-not-locked", NULL);
	view_opened(view);
	begin_lease(view);
	if (view_put_record(view, NULL) < 0)
		view_log(view, LOG_ERR, "lease-not-recorded", NULL);
	service->metrics.views_restored++;
	view_log(view, LOG_INFO, "restored", NULL);
	if (!alive)
		view_end(view, "nobody serves it");
}

/* A record without a mount: what was only for it goes too. */
static void drop_lease(struct service *service, struct thaw_lease *lease)
{
	if (lease->scratch && thaw_is_below(lease->scratch, service->memory_directory)) {
		(void)umount2(lease->scratch, MNT_DETACH | UMOUNT_NOFOLLOW);
		(void)rmdir(lease->scratch);
	} else if (lease->scratch &&
		   thaw_is_below(lease->scratch, service->scratch_directory)) {
		(void)!thaw_scratch_remove(lease->scratch);
	}
	service_log(service, LOG_NOTICE, "lease-dropped", "session", lease->session,
		    "directory", lease->directory, "why", "its view is gone", NULL);
	if (lease->made) {
		struct job job = { 0 };

		if (job_become(&job, lease->uid, lease->gid, NULL, 0) == 0)
			(void)rmdir(lease->directory);
		job_unbecome(&job);
	}
}

struct restoring {
	struct service *service;
	struct thaw_mount_table table;
};

static int restore_lease(void *userdata, const char *id, json_t *record)
{
	struct restoring *restoring = userdata;
	struct service *service = restoring->service;
	const struct thaw_mount_entry *entry;
	struct thaw_lease lease;

	if (thaw_lease_from_record(record, &lease) < 0) {
		service_log(service, LOG_WARNING, "record-dropped", "id", id, NULL);
		(void)!thaw_catalogue_remove_lease(service->catalogue, id, NULL);
		return 0;
	}
	entry = find_view(service, &restoring->table, lease.directory);
	if (entry && !view_at(service, lease.directory)) {
		take_view(service, &lease, entry);
	} else {
		drop_lease(service, &lease);
		(void)!thaw_catalogue_remove_lease(service->catalogue, id, NULL);
	}
	thaw_lease_deinit(&lease);
	return 0;
}

/* -- links: below sessions/, for what the catalogue has lost -- */

/*
 * The scratch layer of a view, as its mount tells: "...,upperdir=DIRECTORY/upper,...",
 * in which the kernel writes odd characters as a backslash and three octal digits.
 */
static char *scratch_of(const struct thaw_mount_entry *entry)
{
	_cleanup_(closefp) FILE *file = fopen("/proc/self/mountinfo", "re");
	_cleanup_(freep) char *line = NULL;
	char *found = NULL, *from, *to;
	size_t capacity = 0;

	while (file && !found && getline(&line, &capacity, file) > 0) {
		if (atoi(line) != entry->id || !(from = strstr(line, ",upperdir=")))
			continue;
		from += strlen(",upperdir=");
		from[strcspn(from, ",\n")] = '\0';
		found = to = strdup(from);
		for (; found && *from; from++)
			if (from[0] == '\\' && strspn(from + 1, "01234567") >= 3) {
				*to++ = (char)((from[1] - '0') << 6 |
					       (from[2] - '0') << 3 | (from[3] - '0'));
				from += 3;
			} else {
				*to++ = *from;
			}
		if (found)
			*to = '\0';
	}
	to = found ? strrchr(found, '/') : NULL;
	if (to && strcmp(to, "/upper") == 0)
		*to = '\0';
	return found;
}

static void take_unknown(struct service *service, const struct thaw_mount_entry *entry,
			 const char *session, const struct stat *owner)
{
	struct thaw_lease lease = {
		.session = strdup(session),
		.directory = strdup(entry->path),
		.uid = owner ? owner->st_uid : 0,
		.gid = owner ? owner->st_gid : 0,
		.kind = THAW_LEASE_TTL, /* until closed: nobody says better */
	};
	unsigned count = 0;

	/* From below: the table has them from the top. */
	for (const char *p = entry->lower; *p; p = thaw_mountinfo_next_lower(p))
		count += thaw_is_below(p, service->images_directory);
	for (const char *p = entry->lower; *p && count <= THAW_LAYERS_MAX + 1;
	     p = thaw_mountinfo_next_lower(p)) {
		uid_t uid;

		if (!thaw_is_below(p, service->images_directory) || count == 0)
			continue;
		count--;
		if (parse_key(strrchr(p, '/') + 1, lease.images[count].identity, &uid)) {
			lease.images[count].name = strdup("?");
			lease.image_count++;
		}
	}
	if (!lease.session || !lease.directory || lease.image_count == 0 ||
	    thaw_lease_id(lease.session, lease.directory, lease.id) < 0) {
		thaw_lease_deinit(&lease);
		return;
	}
	lease.scratch = scratch_of(entry);
	lease.writable = lease.scratch != NULL;
	take_view(service, &lease, entry);
	thaw_lease_deinit(&lease);
}

static void look_at_link(struct restoring *restoring, const char *session,
			 const char *path)
{
	struct service *service = restoring->service;
	const struct thaw_mount_entry *entry;
	char target[4096];
	struct stat st;
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	struct view *view;

	if (n <= 0 || lstat(path, &st) < 0)
		return;
	target[n] = '\0';
	view = view_at(service, target);
	if (view && view->link && strcmp(view->link, path) == 0)
		return;
	entry = view ? NULL : find_view(service, &restoring->table, target);
	(void)unlink(path); /* made anew by whoever takes the view */
	if (entry && service->root && thaw_session_name_valid(session))
		take_unknown(service, entry, session, &st);
}

static void look_at_session(struct restoring *restoring, const char *session)
{
	_cleanup_(freep) char *path = NULL;
	const struct dirent *entry;
	DIR *directory;

	if (asprintf(&path, "%s/%s", restoring->service->sessions_directory, session) <
	    0) {
		path = NULL;
		return;
	}
	directory = opendir(path);
	while (directory && (entry = readdir(directory)) != NULL) {
		_cleanup_(freep) char *link = NULL;

		if (entry->d_name[0] == '.' &&
		    (entry->d_name[1] == '\0' || strcmp(entry->d_name, "..") == 0))
			continue;
		if (asprintf(&link, "%s/%s", path, entry->d_name) < 0)
			link = NULL;
		else
			look_at_link(restoring, session, link);
	}
	if (directory)
		(void)closedir(directory);
	(void)rmdir(path); /* when it is empty */
}

static void restore_links(struct restoring *restoring)
{
	DIR *directory = opendir(restoring->service->sessions_directory);
	const struct dirent *entry;

	while (directory && (entry = readdir(directory)) != NULL)
		if (entry->d_name[0] != '.')
			look_at_session(restoring, entry->d_name);
	if (directory)
		(void)closedir(directory);
}

/* Views over our images that neither record nor link tells of: taken to be in use. */
static void restore_unknown(struct restoring *restoring)
{
	struct service *service = restoring->service;

	for (size_t i = 0; i < restoring->table.count; i++) {
		const struct thaw_mount_entry *entry = &restoring->table.entries[i];
		bool ours = false;

		if (entry->kind != THAW_MOUNT_VIEW)
			continue;
		for (const char *p = entry->lower; *p; p = thaw_mountinfo_next_lower(p))
			ours = ours || thaw_is_below(p, service->images_directory);
		if (ours && !view_at(service, entry->path))
			take_unknown(service, entry, "recovered", NULL);
	}
}

static void clear_away_memory(struct service *service, const char *path)
{
	(void)umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
	(void)rmdir(path);
}

/* No other service is about, nor a job of one: what no view has, nobody has. */
static void clear_away_scratch(struct service *service, const char *path)
{
	if (thaw_scratch_remove(path) < 0)
		service_log(service, LOG_WARNING, "scratch-stays", "directory", path,
			    NULL);
}

/* Fails when it is mounted. */
static void clear_away_image(struct service *service, const char *path)
{
	(void)rmdir(path);
}

/* Of a keeper that nobody has found: whatever it keeps is no mount of ours any more. */
static void clear_away_keeper(struct service *service, const char *path)
{
	for (const struct image *image = service->images; image; image = image->next)
		if (!image->gone && strcmp(image->state_directory, path) == 0)
			return;
	service_keeper_clear(path);
}

/* What an earlier service made for views that are gone. */
static void clear(struct service *service, const char *base,
		  void (*away)(struct service *service, const char *path))
{
	DIR *directory = opendir(base);
	const struct dirent *entry;

	while (directory && (entry = readdir(directory)) != NULL) {
		char path[4096];
		bool used = false;

		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", base, entry->d_name);
		for (const struct view *view = service->views; view; view = view->next)
			used = used || (view->lease.scratch &&
					strcmp(view->lease.scratch, path) == 0);
		if (!used)
			away(service, path);
	}
	if (directory)
		(void)closedir(directory);
}

int service_restore(struct service *service, struct thaw_error *err)
{
	struct restoring restoring = { .service = service };
	unsigned dropped = 0;
	char number[16];
	int r;

	r = thaw_mount_table_read(&restoring.table, err);
	if (r < 0)
		return r;
	restore_images(service, &restoring.table);
	r = thaw_catalogue_each_lease(service->catalogue, restore_lease, &restoring, err,
				      &dropped);
	if (r == 0 && dropped > 0) {
		(void)snprintf(number, sizeof(number), "%u", dropped);
		service_log(service, LOG_WARNING, "records-damaged", "count", number,
			    NULL);
	}
	if (r == 0) {
		restore_links(&restoring);
		if (service->root)
			restore_unknown(&restoring);
		clear(service, service->memory_directory, clear_away_memory);
		clear(service, service->scratch_directory, clear_away_scratch);
		clear(service, service->images_directory, clear_away_image);
		clear(service, service->keepers_directory, clear_away_keeper);
	}
	thaw_mount_table_deinit(&restoring.table);
	return r;
}

/* -- later: mounts that others take away -- */

static bool still_there(const struct view *view, const struct thaw_mount_table *table)
{
	for (size_t i = 0; i < table->count; i++)
		if (strcmp(table->entries[i].device, view->device) == 0 &&
		    strcmp(table->entries[i].path, view->lease.directory) == 0)
			return true;
	return false;
}

void service_look_at_mounts(struct service *service)
{
	struct thaw_mount_table table = { 0 };
	struct thaw_error err = { 0 };

	if (thaw_mount_table_read(&table, &err) < 0) {
		service_log(service, LOG_ERR, "mount-table", "why", err.text, NULL);
		return;
	}
	for (struct view *view = service->views; view; view = view->next) {
		if (view->gone || view->state != VIEW_OPEN || still_there(view, &table))
			continue;
		service->metrics.views_lost++;
		event_send(service, "lost", view);
		view_end(view, "somebody else has unmounted it");
	}
	thaw_mount_table_deinit(&table);
}
