/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the child of an Open, Swap or AddLayer does. It is told what to wait for
 * by the service, so that nothing here races with another view's beginning or end:
 *
 *	FOUND     ->           the caller's path, resolved with the caller's rights,
 *	                       and which images they are
 *	          <- GO        the place is this view's
 *	PREPARED  ->           the directory stands (made, or found empty), the scratch too
 *	WANT      ->           for each image:
 *	          <- READY     it is mounted there; or
 *	          <- LAUNCH    mount it there
 *	LAUNCHED  ->
 *	INDEX     ->           that of an image that needs a rendered layer, for the next
 *	DONE      ->
 */
#include "service-internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "mountinfo.h"
#include "overlay.h"
#include "scratch.h"
#include "service-keepers.h"
#include "service-render.h"
#include "thaw/image.h"
#include "thaw/mount.h"
#include "util/cleanup.h"
#include "util/paths.h"

struct opener {
	struct job *job;
	struct request *request;
	struct thaw_lease *lease; /* of the request, or of the view that is changed */
	int socket;
	struct thaw_error err;
	struct job_message message; /* 16 KiB: one is enough */
	uint8_t identities[1 + THAW_LAYERS_MAX][THAW_DIGEST_SIZE];
	uint8_t index_digests[1 + THAW_LAYERS_MAX][THAW_DIGEST_SIZE]; /* of new ones */
	char *directory;					      /* resolved */
	int directory_fd;
	bool missing; /* when it was first looked for */
	bool made;
	char *scratch; /* of the view */
	int scratch_lock;
	bool memory;			     /* the scratch is a mount at memory/ID */
	char *images[1 + THAW_LAYERS_MAX];   /* where they are mounted */
	char *rendered[1 + THAW_LAYERS_MAX]; /* relocated files of each, or NULL */
	bool plain[1 + THAW_LAYERS_MAX];
	int holds[1 + THAW_LAYERS_MAX]; /* warming waits for their ends */
	int index_fds[1 +
		      THAW_LAYERS_MAX]; /* decoded by an earlier job, or this; or -1 */
	int heard;			/* with the last message, or -1 */
};

static int say(struct opener *opener, enum job_message_kind kind)
{
	opener->message.kind = kind;
	return job_send(opener->socket, &opener->message, -1);
}

/* The service's answer, or an end: then it has told the caller why. */
static int hear(struct opener *opener)
{
	opener->heard = safe_close(opener->heard);
	return job_receive(opener->socket, &opener->message, &opener->heard);
}

/* -- what is asked for -- */

static int identify(struct opener *opener)
{
	for (unsigned i = opener->request->first_new; i < opener->lease->image_count;
	     i++) {
		struct thaw_source *source;
		int r = thaw_source_from_fd(opener->request->image_fds[i], &opener->err,
					    &source);

		if (r == 0)
			r = thaw_image_identify_index(source, &opener->err,
						      opener->identities[i],
						      opener->index_digests[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The directory's parent resolved, its own name as it is: that may be missing, or be a mount. */
static int resolve(struct opener *opener)
{
	_cleanup_(freep) char *copy = strdup(opener->request->directory);
	char parent[PATH_MAX], *slash;
	size_t len = copy ? strlen(copy) : 0;

	if (!copy)
		return thaw_oom(&opener->err);
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	if (len < 2 || copy[0] != '/' || thaw_leads_up(copy))
		return thaw_refused(&opener->err,
				    "\"%.300s\": must be absolute, without \"..\"", copy);
	slash = strrchr(copy, '/');
	if (strcmp(slash + 1, ".") == 0)
		return thaw_refused(&opener->err, "\"%.300s\": is no name of a directory",
				    copy);
	*slash = '\0';
	if (!realpath(slash == copy ? "/" : copy, parent))
		return thaw_io(&opener->err, -errno, "\"%.300s\"",
			       slash == copy ? "/" : copy);
	if (asprintf(&opener->directory, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent,
		     slash + 1) < 0) {
		opener->directory = NULL;
		return thaw_oom(&opener->err);
	}
	opener->missing = faccessat(AT_FDCWD, opener->directory, F_OK,
				    AT_EACCESS | AT_SYMLINK_NOFOLLOW) < 0 &&
			  errno == ENOENT;
	if (strlen(opener->directory) >= PATH_MAX)
		return thaw_io(&opener->err, -ENAMETOOLONG, "\"%.300s\"",
			       opener->directory);
	return 0;
}

/* -- the directory -- */

static int check_empty(struct opener *opener)
{
	int fd = fcntl(opener->directory_fd, F_DUPFD_CLOEXEC, 3);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	unsigned names = 0;

	if (!directory) {
		int r = thaw_io(&opener->err, -errno, "\"%.300s\"", opener->directory);

		(void)safe_close(fd);
		return r;
	}
	while ((entry = readdir(directory)) != NULL)
		names += strcmp(entry->d_name, ".") != 0 &&
			 strcmp(entry->d_name, "..") != 0;
	(void)closedir(directory);
	return names ? thaw_refused(&opener->err,
				    "\"%.300s\": is a directory that is not empty",
				    opener->directory)
		     : 0;
}

/*
 * With the caller's rights. Ours to mount on only when it is the caller's own and
 * nothing is hidden by that. Root may use anybody's.
 */
static int prepare_directory(struct opener *opener)
{
	struct stat st;

	opener->made = mkdir(opener->directory, 0755) == 0;
	if (!opener->made && errno != EEXIST)
		return thaw_io(&opener->err, -errno, "\"%.300s\" cannot be made",
			       opener->directory);
	opener->directory_fd = open(opener->directory,
				    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (opener->directory_fd < 0 && (errno == ELOOP || errno == ENOTDIR))
		return thaw_refused(&opener->err,
				    "\"%.300s\": exists and is no directory",
				    opener->directory);
	if (opener->directory_fd < 0 || fstat(opener->directory_fd, &st) < 0)
		return thaw_io(&opener->err, -errno, "\"%.300s\"", opener->directory);
	if (opener->request->uid != 0 && st.st_uid != opener->request->uid)
		return thaw_refused(&opener->err, "\"%.300s\": belongs to another user",
				    opener->directory);
	return check_empty(opener);
}

static int as_caller(struct opener *opener, int (*act)(struct opener *opener))
{
	const struct request *request = opener->request;
	int r = job_become(opener->job, request->uid, request->gid, request->groups,
			   request->group_count);

	r = r < 0 ? thaw_io(&opener->err, r, "the caller's rights cannot be taken")
		  : act(opener);
	job_unbecome(opener->job);
	return r;
}

/*
 * Which mount a path is on, and of which device. The table of mounts would tell too, but
 * reading it takes the longer the more views there are.
 */
static int look_at_mount(struct opener *opener, const char *path, struct statx *stx)
{
	if (statx(AT_FDCWD, path,
		  AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC,
		  STATX_MNT_ID | STATX_TYPE, stx) == 0)
		return 0;
	return errno == ENOENT ? THAW_NOT_FOUND
			       : thaw_io(&opener->err, -errno, "\"%.300s\"", path);
}

/* What is mounted there would be hidden, or hide us. */
static int check_unoccupied(struct opener *opener)
{
	_cleanup_(freep) char *parent = strdup(opener->directory);
	struct statx here, above;
	int r;

	if (!parent)
		return thaw_oom(&opener->err);
	parent[strrchr(parent, '/') - parent + (strrchr(parent, '/') == parent)] = '\0';
	r = look_at_mount(opener, opener->directory, &here);
	if (r != 0)
		return r < 0 ? r : 0;
	r = look_at_mount(opener, parent, &above);
	if (r == 0 && here.stx_mnt_id != above.stx_mnt_id)
		return thaw_refused(&opener->err,
				    "\"%.300s\": something is mounted there",
				    opener->directory);
	return r < 0 ? r : 0;
}

/* The device of the view that was just mounted: it stands where it was to stand, or nowhere. */
static int note_device(struct opener *opener, long type)
{
	struct statfs fs;
	struct statx stx;
	int r = look_at_mount(opener, opener->directory, &stx);

	if (r < 0)
		return r;
	if (r > 0 || statfs(opener->directory, &fs) < 0 || fs.f_type != type)
		return thaw_refused(&opener->err,
				    "\"%.300s\": was moved while the view was mounted",
				    opener->directory);
	(void)snprintf(opener->message.device, sizeof(opener->message.device), "%u:%u",
		       stx.stx_dev_major, stx.stx_dev_minor);
	return 0;
}

/* -- the scratch layer -- */

static int prepare_scratch(struct opener *opener)
{
	struct thaw_lease *lease = opener->lease;
	struct service *service = opener->job->service;

	if (!lease->writable)
		return 0;
	if (lease->scratch_size == 0)
		return thaw_scratch_new(service->scratch_directory, lease->uid,
					lease->gid, &opener->err, &opener->scratch,
					&opener->scratch_lock);
	if (asprintf(&opener->scratch, "%s/%s", service->memory_directory, lease->id) <
	    0) {
		opener->scratch = NULL;
		return thaw_oom(&opener->err);
	}
	if (mkdir(opener->scratch, 0700) < 0 && errno != EEXIST)
		return thaw_io(&opener->err, -errno, "\"%.300s\"", opener->scratch);
	opener->memory = true;
	return thaw_scratch_mount(opener->scratch, lease->scratch_size, lease->uid,
				  lease->gid, &opener->err);
}

/* -- images -- */

static int launch(struct opener *opener, unsigned number, const char *state_directory,
		  bool learn, int learned_fd, int *ret_pidfd)
{
	const struct thaw_lease *lease = opener->lease;
	const struct service *service = opener->job->service;
	const char *directory = opener->images[number];
	struct service_launch options = {
		.image_fd = opener->request->image_fds[number],
		.identity = opener->identities[number],
		.name = lease->images[number].name,
		.directory = directory,
		.state_directory = state_directory,
		.warm = lease->warm,
		.uid = geteuid(),
		.gid = getegid(),
		.scope = service->under_systemd,
		.learn = learn,
		.learned_fd = learned_fd,
	};
	int r;

	if (service->root) {
		bool own = lease->writable || opener->request->own[number];

		options.uid = own ? lease->uid : 0;
		options.gid = own ? lease->gid : 0;
		/* What is mounted there is dead, or was left by a job that was killed. */
		while (umount2(directory, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
			;
		if (mkdir(directory, 0755) < 0 && errno != EEXIST)
			return thaw_io(&opener->err, -errno, "\"%.300s\"", directory);
	}
	/* Held to the end of this job: what it mounts does not wait for the warmer's work. */
	r = service_keeper_launch(&options, &opener->err, ret_pidfd,
				  &opener->holds[number]);
	if (r < 0 && service->root)
		(void)rmdir(directory);
	return r;
}

static int want(struct opener *opener, unsigned number)
{
	_cleanup_(freep) char *state_directory = NULL;
	_cleanup_(closep) int pidfd = -1;
	int r;

	opener->message.number = number;
	memcpy(opener->message.identities[0], opener->index_digests[number],
	       THAW_DIGEST_SIZE);
	r = say(opener, JOB_WANT);
	if (r == 0)
		r = hear(opener);
	if (r < 0)
		return thaw_io(&opener->err, r, "the service has ended");
	opener->images[number] = strdup(opener->message.path);
	state_directory = strdup(opener->message.more);
	if (!opener->images[number] || !state_directory)
		return thaw_oom(&opener->err);
	if (opener->message.kind == JOB_READY) {
		opener->plain[number] = opener->message.made;
		opener->index_fds[number] = steal_fd(&opener->heard);
		return 0;
	}
	r = launch(opener, number, state_directory, opener->message.value != 0,
		   opener->heard, &pidfd);
	opener->message.kind = JOB_LAUNCHED;
	opener->message.number = number;
	opener->message.result = r;
	opener->message.err = opener->err;
	(void)!job_send(opener->socket, &opener->message,
			pidfd); /* if nobody hears it, we are killed */
	return r;
}

/*
 * As an earlier job has left it with the service, or else decoded now. It is a help for
 * later jobs: where it cannot be given, they decode it themselves.
 */
static int learn_facts(struct opener *opener, struct service_image *image,
		       unsigned number, struct thaw_facts *facts)
{
	int r;

	if (image->index_fd >= 0)
		return thaw_decoded_facts(image->index_fd, &opener->err, facts);
	r = service_decode(image, &opener->err, &image->index_fd, facts);
	if (r < 0)
		return r;
	opener->index_fds[number] = image->index_fd;
	if (facts->relocated || facts->bound) {
		opener->message.kind = JOB_INDEX;
		opener->message.number = number;
		(void)!job_send(opener->socket, &opener->message, image->index_fd);
	}
	return 0;
}

/*
 * Layers up to this size live in the run-time directory, in memory as a rule. Most are a
 * few scripts, one layer for each view, made and removed with it; and ext4 searches past
 * the inodes that were removed lately for each new one (doc/tried.md).
 */
#define SMALL_LAYER (1u << 20)

static const char *choose_store(const struct service *service, uint64_t size)
{
	return size <= SMALL_LAYER ? service->small_layers_directory
				   : service->layers_directory;
}

bool opener_is_layer(const struct service *service, const char *path)
{
	return thaw_is_below(path, service->layers_directory) ||
	       thaw_is_below(path, service->small_layers_directory);
}

static int render(struct opener *opener, unsigned number)
{
	_cleanup_(freep) char *interpreter = NULL;
	static struct thaw_facts facts; /* of this process alone; large */
	struct service_image image = {
		.fd = opener->request->image_fds[number],
		.index_fd = opener->index_fds[number],
	};
	struct thaw_layer_options options = {
		.prefix = opener->directory,
		.uid = opener->lease->writable ? opener->lease->uid : 0,
		.gid = opener->lease->writable ? opener->lease->gid : 0,
	};
	int r;

	if (opener->plain[number])
		return 0;
	memcpy(image.identity, opener->identities[number], THAW_DIGEST_SIZE);
	memcpy(image.index_digest, opener->index_digests[number], THAW_DIGEST_SIZE);
	r = learn_facts(opener, &image, number, &facts);
	if (r == 0)
		r = service_find_interpreter(&facts, &opener->err, &interpreter);
	if (r < 0)
		return r;
	image.index_size = facts.size;
	opener->plain[number] = !interpreter && !facts.relocated;
	if (opener->plain[number])
		return 0;
	options.interpreter = interpreter;
	options.store = choose_store(opener->job->service, facts.layer_size);
	return service_render(&image, &options, &opener->err, &opener->rendered[number]);
}

/* -- the view -- */

/* Top first: each image with its relocated files over it. */
static unsigned list_layers(struct opener *opener, struct thaw_overlay_layer *layers)
{
	unsigned count = 0;

	for (unsigned i = opener->lease->image_count; i-- > 0;) {
		if (opener->rendered[i])
			layers[count++] =
				(struct thaw_overlay_layer){ opener->rendered[i], -1 };
		layers[count++] = (struct thaw_overlay_layer){ opener->images[i], -1 };
	}
	return count;
}

#define LAYERS_MAX (2 * (1 + THAW_LAYERS_MAX) + 2)

static void describe(struct opener *opener, struct thaw_overlay *overlay,
		     struct thaw_overlay_layer *layers, char source[128])
{
	char hex[THAW_DIGEST_HEX];

	thaw_digest_hex(opener->identities[0], hex);
	(void)snprintf(source, 128, "%s%s", THAW_MOUNT_SOURCE_PREFIX, hex);
	*overlay = (struct thaw_overlay){
		.layers = layers,
		.count = list_layers(opener, layers),
		.scratch = opener->scratch,
		.empty = opener->job->service->empty_directory,
		.source = source,
	};
}

static int mount_view(struct opener *opener)
{
	struct thaw_overlay_layer layers[LAYERS_MAX];
	struct thaw_overlay overlay;
	char source[128], place[64];
	int r;

	describe(opener, &overlay, layers, source);
	/*
	 * By descriptor: it is this directory that was looked at, whatever its path
	 * leads to now. The dot, since the link itself must be followed.
	 */
	(void)snprintf(place, sizeof(place), "/proc/self/fd/%d/.", opener->directory_fd);
	r = thaw_overlay_mount(&overlay, place, &opener->err);
	return r < 0 ? r : note_device(opener, OVERLAYFS_SUPER_MAGIC);
}

/* Where the directory is now, if not where it was: nothing stays mounted there. */
static void unmount_view(struct opener *opener)
{
	char link[64], path[PATH_MAX];
	ssize_t n;

	if (opener->directory_fd < 0)
		return;
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", opener->directory_fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0)
		return;
	path[n] = '\0';
	(void)!thaw_overlay_unmount(path, true, NULL); /* as far as it goes */
}

static int remove_directory(struct opener *opener)
{
	(void)rmdir(opener->directory); /* as it was; may be somebody else's by now */
	return 0;
}

static void undo(struct opener *opener)
{
	if (opener->scratch && opener->memory)
		(void)umount2(opener->scratch, MNT_DETACH | UMOUNT_NOFOLLOW);
	if (opener->scratch && opener->memory)
		(void)rmdir(opener->scratch);
	else if (opener->scratch)
		(void)!thaw_scratch_remove(opener->scratch); /* swept later */
	if (opener->made)
		(void)as_caller(opener, remove_directory);
}

static int finish(struct opener *opener, int r)
{
	struct job_message *message = &opener->message;
	int fd = r == 0 ? opener->scratch_lock : -1;

	message->kind = JOB_DONE;
	message->result = r;
	message->err = opener->err;
	message->made = opener->made;
	message->value = 0;
	for (unsigned i = 0; i < opener->lease->image_count; i++)
		message->value |= (uint64_t)opener->plain[i] << i;
	return job_send(opener->socket, message, fd) < 0;
}

static int start(struct opener *opener, struct job *job, int socket)
{
	opener->job = job;
	opener->request = job->request;
	opener->socket = socket;
	opener->directory_fd = -1;
	opener->scratch_lock = -1;
	opener->heard = -1;
	memset(opener->index_fds, -1, sizeof(opener->index_fds)); /* each byte of -1 */
	(void)umask(022); /* whoever started the service */
	return 0;
}

static int found(struct opener *opener)
{
	int r = identify(opener);

	if (r == 0)
		r = as_caller(opener, resolve);
	if (r < 0)
		return r;
	memcpy(opener->message.identities, opener->identities,
	       sizeof(opener->identities));
	(void)snprintf(opener->message.path, JOB_PATH, "%s", opener->directory);
	opener->message.made = opener->missing;
	r = say(opener, JOB_FOUND);
	if (r == 0)
		r = hear(opener);
	return r < 0 ? -ESHUTDOWN : 0;
}

static int prepared(struct opener *opener)
{
	int r;

	memcpy(opener->lease->id, opener->message.more, THAW_VIEW_ID); /* with GO */
	r = check_unoccupied(opener);
	if (r == 0)
		r = as_caller(opener, prepare_directory);
	if (r == 0)
		r = prepare_scratch(opener);
	if (r < 0)
		return r;
	opener->message.made = opener->made;
	(void)snprintf(opener->message.path, JOB_PATH, "%s",
		       opener->scratch ? opener->scratch : "");
	r = say(opener, JOB_PREPARED);
	return r < 0 ? thaw_io(&opener->err, r, "the service has ended") : 0;
}

static int open_shared(struct opener *opener)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < opener->lease->image_count; i++)
		r = want(opener, i);
	for (unsigned i = 0; r == 0 && i < opener->lease->image_count; i++)
		r = render(opener, i);
	if (r == 0) {
		r = mount_view(opener);
		if (r < 0)
			unmount_view(opener);
	}
	return r;
}

/* Without root: a plain mount of our own. */
static int open_plain(struct opener *opener)
{
	int r = want(opener, 0);

	return r < 0 ? r : note_device(opener, FUSE_SUPER_MAGIC);
}

int opener_run(struct job *job, int socket)
{
	static struct opener opener; /* of this process alone */
	int r;

	r = start(&opener, job, socket);
	opener.lease = &job->request->lease;
	if (r == 0)
		r = found(&opener);
	if (r == -ESHUTDOWN)
		return 0;
	if (r == 0)
		r = prepared(&opener);
	if (r == 0)
		r = job->service->root ? open_shared(&opener) : open_plain(&opener);
	if (r < 0)
		undo(&opener);
	return finish(&opener, r);
}

/* -- Swap and AddLayer -- */

/* What is mounted now, as the mount table has it. */
static unsigned old_layers(const struct thaw_mountpoint *mounted, const char *empty,
			   struct thaw_overlay_layer *layers)
{
	unsigned count = 0;

	for (const char *p = mounted->lower; *p && count < LAYERS_MAX;
	     p = thaw_mountinfo_next_lower(p))
		if (strcmp(p, empty) != 0)
			layers[count++] = (struct thaw_overlay_layer){ p, -1 };
	return count;
}

static int replace(struct opener *opener)
{
	struct thaw_overlay_layer before[LAYERS_MAX], after[LAYERS_MAX];
	struct thaw_overlay old, new;
	struct thaw_mountpoint mounted;
	char source[128];
	int r = thaw_mountinfo_find(opener->directory, &opener->err, &mounted);

	if (r == THAW_NOT_FOUND)
		return thaw_refused(&opener->err, "\"%.300s\": the view is gone",
				    opener->directory);
	if (r < 0)
		return r;
	describe(opener, &new, after, source);
	old = new;
	old.layers = before;
	old.count = old_layers(&mounted, opener->job->service->empty_directory, before);
	old.source = mounted.source;
	r = thaw_overlay_replace(&old, &new, opener->directory, &opener->err);
	if (r == 0)
		r = thaw_mountinfo_find(opener->directory, &opener->err, &mounted);
	if (r == 0)
		(void)snprintf(opener->message.device, sizeof(opener->message.device),
			       "%s", mounted.device);
	return r < 0 ? r : 0;
}

/* The images that the view has already, by where they are mounted. */
static int take_old_images(struct opener *opener, const struct view *view)
{
	for (unsigned i = 0; i < opener->request->first_new; i++) {
		memcpy(opener->identities[i], view->lease.images[i].identity,
		       THAW_DIGEST_SIZE);
		opener->images[i] = strdup(view->images[i]->directory);
		if (!opener->images[i])
			return thaw_oom(&opener->err);
	}
	return 0;
}

/*
 * Relocated files of the images that stay: as they were rendered when the view was
 * opened, found again by what lies over them in the mount.
 */
static int take_old_layers(struct opener *opener)
{
	struct thaw_mountpoint mounted;
	const char *previous = NULL;
	int r = thaw_mountinfo_find(opener->directory, &opener->err, &mounted);

	if (r != 0)
		return r < 0 ? r
			     : thaw_refused(&opener->err, "\"%.300s\": the view is gone",
					    opener->directory);
	for (const char *p = mounted.lower; *p; p = thaw_mountinfo_next_lower(p)) {
		for (unsigned i = 0; i < opener->request->first_new; i++)
			if (strcmp(p, opener->images[i]) == 0 && previous &&
			    opener_is_layer(opener->job->service, previous)) {
				opener->rendered[i] = strdup(previous);
				if (!opener->rendered[i])
					return thaw_oom(&opener->err);
			}
		previous = p;
	}
	return 0;
}

int changer_run(struct job *job, int socket)
{
	static struct opener opener;
	const struct view *view = job->view;
	int r;

	r = start(&opener, job, socket);
	opener.lease = &job->request->lease;
	opener.directory = strdup(view->lease.directory);
	opener.scratch = view->lease.scratch ? strdup(view->lease.scratch) : NULL;
	if (!opener.directory || (view->lease.scratch && !opener.scratch))
		r = thaw_oom(&opener.err);
	if (r == 0)
		r = identify(&opener);
	if (r == 0) {
		memcpy(opener.message.identities, opener.identities,
		       sizeof(opener.identities));
		r = say(&opener, JOB_FOUND);
	}
	if (r == 0)
		r = hear(&opener);
	if (r == 0)
		r = take_old_images(&opener, view);
	if (r == 0 && opener.request->first_new > 0)
		r = take_old_layers(&opener);
	for (unsigned i = job->request->first_new;
	     r == 0 && i < opener.lease->image_count; i++)
		r = want(&opener, i);
	for (unsigned i = job->request->first_new;
	     r == 0 && i < opener.lease->image_count; i++)
		r = render(&opener, i);
	if (r == 0)
		r = replace(&opener);
	return finish(&opener, r);
}
