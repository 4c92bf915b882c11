/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holders of shared mounts, and asking them.
 *
 * A holder never looks at its mounts beyond cloning them, so it cannot be stuck
 * in them; whoever asks waits for it only for a while, and then goes without.
 */
#include "keeper-share.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "detached.h"
#include "digest.h"
#include "namespaces.h"
#include "thaw/directories.h"
#include "util/cleanup.h"
#include "util/growing.h"
#include "warmer.h"

#define KEY_HEX	    32u	 /* of a digest: names stay short, and nobody can choose them */
#define PATIENCE_MS 2000 /* for a holder that does not answer */
#define PARTS_MAX   (THAW_FDS_MAX - 1)

/* -- the key -- */

struct key {
	char hex[THAW_DIGEST_HEX];
};

/* What /proc says of us; "" where it says nothing, which then is the same for all. */
static void add_file(FILE *text, const char *path)
{
	_cleanup_(closefp) FILE *file = fopen(path, "re");
	int c;

	while (file && (c = getc(file)) != EOF)
		(void)putc(c, text);
}

static void add_inode(FILE *text, const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0)
		fprintf(text, "%llu:%llu\n", (unsigned long long)st.st_dev,
			(unsigned long long)st.st_ino);
}

/* The cgroup's own inode too: another of the same name is another. */
static void add_cgroup(FILE *text)
{
	_cleanup_(closefp) FILE *file = fopen("/proc/self/cgroup", "re");
	static const char *const roots[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	_cleanup_(freep) char *line = NULL;
	size_t capacity = 0;

	add_file(text, "/proc/self/cgroup");
	add_inode(text, "/proc/self/ns/cgroup");
	while (file && getline(&line, &capacity, file) > 0) {
		line[strcspn(line, "\n")] = '\0';
		for (size_t i = 0; strncmp(line, "0::", 3) == 0 && i < 2; i++) {
			char path[4096];

			if (snprintf(path, sizeof(path), "%s%s", roots[i], line + 3) <
			    (int)sizeof(path))
				add_inode(text, path);
		}
	}
}

static int make_key(const struct thaw_parts *parts, const char *warm, struct key *key)
{
	uint8_t sum[THAW_DIGEST_SIZE];
	char *data = NULL;
	size_t size = 0;
	FILE *text = open_memstream(&data, &size);
	int r;

	if (!text)
		return -ENOMEM;
	fprintf(text, "share 1 " THAW_VERSION_STRING "\n%u %s\n", (unsigned)geteuid(),
		warm ? warm : "all");
	for (unsigned i = 0; i < parts->count; i++)
		fprintf(text, "%s\n", parts->part[i].identity);
	add_inode(text, "/proc/self/ns/user");
	add_cgroup(text);
	r = ferror(text) ? -ENOMEM : 0;
	if (fclose(text) != 0)
		r = -ENOMEM;
	if (r == 0)
		r = thaw_digest_once(data, size, sum);
	if (r == 0)
		thaw_digest_hex(sum, key->hex);
	key->hex[KEY_HEX] = '\0';
	free(data);
	return r;
}

/* -- the socket -- */

/* By the directory's descriptor: no path is too long then. */
static void fill_address(struct sockaddr_un *address, int directory, const char *name)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	(void)snprintf(address->sun_path, sizeof(address->sun_path),
		       "/proc/self/fd/%d/%s", directory, name); /* fits */
}

static int connect_to(int directory, const char *name)
{
	_cleanup_(closep) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	const struct timeval patience = { .tv_sec = PATIENCE_MS / 1000 };
	struct sockaddr_un address;
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (fd < 0)
		return -errno;
	fill_address(&address, directory, name);
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 ||
	    peer.uid != geteuid())
		return -EPERM;
	return steal_fd(&fd);
}

/* Sockets whose holders were killed; one cgroup's name may never come again. */
static void sweep(int directory)
{
	int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *names = copy < 0 ? NULL : fdopendir(copy);
	const struct dirent *entry;

	if (!names)
		(void)safe_close(copy);
	while (names && (entry = readdir(names)) != NULL) {
		int fd;

		if (strlen(entry->d_name) != KEY_HEX)
			continue;
		fd = connect_to(directory, entry->d_name);
		if (fd == -ECONNREFUSED)
			(void)unlinkat(directory, entry->d_name, 0);
		(void)safe_close(fd);
	}
	if (names)
		(void)closedir(names);
}

static int listen_at(int directory, const char *name)
{
	_cleanup_(closep) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;
	mode_t old;
	int r;

	if (fd < 0)
		return -errno;
	fill_address(&address, directory, name);
	(void)unlinkat(directory, name, 0); /* under the lock, and nobody answers there */
	old = umask(0177);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	(void)umask(old);
	if (r < 0)
		return r;
	return listen(fd, 64) < 0 ? -errno : steal_fd(&fd);
}

/* -- the holder -- */

/* What a holder answers, with the user namespace, if any, and a clone of each mount. */
struct answer {
	int result;
	bool impossible, user_namespace;
	struct thaw_error err;
};

struct holder {
	struct thaw_parts *parts;
	const struct key *key;
	int directory, first; /* where the socket is to be; the one who started it */
	int listener;
	bool user_namespace;
	struct pollfd *polls; /* the listener, keepers, then a pidfd for each session */
	size_t count, capacity;
	size_t fixed; /* that are no sessions */
};

static int add_poll(struct holder *holder, int fd)
{
	int r = grow(&holder->polls, &holder->capacity, holder->count + 1,
		     sizeof(*holder->polls));

	if (r == 0)
		holder->polls[holder->count++] = (struct pollfd){ .fd = fd,
								  .events = POLLIN };
	return r;
}

static int set_up(struct holder *holder, struct answer *answer)
{
	int r = 0;

	answer->impossible = true;
	if (!thaw_may_mount()) {
		r = thaw_enter_user_namespace(&answer->err);
		holder->user_namespace = r == 0;
	}
	if (r == 0)
		r = thaw_parts_connect(holder->parts, &answer->err);
	if (r == 0)
		r = thaw_enter_mount_namespace(&answer->err);
	if (r == 0)
		r = thaw_parts_mount(holder->parts, &answer->err);
	answer->impossible = r < 0;
	return r;
}

/*
 * One session: its pidfd comes, the clones go. A session that is not told is not
 * counted.
 */
static void serve(struct holder *holder, int socket)
{
	struct answer answer = { .user_namespace = holder->user_namespace };
	int fds[THAW_FDS_MAX], session = -1;
	unsigned count = 0;
	char byte;

	if (thaw_receive_fds(socket, &byte, 1, &session, 1) != 1)
		return;
	if (holder->user_namespace)
		fds[count++] = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
	for (unsigned i = 0; i < holder->parts->count; i++)
		fds[count++] = thaw_warmer_clone_mount(holder->parts->part[i].directory);
	for (unsigned i = 0; i < count; i++)
		if (fds[i] < 0)
			answer.result = -EIO;
	if (answer.result == 0 && add_poll(holder, session) == 0) {
		if (thaw_send_fds(socket, &answer, sizeof(answer), fds, count) == 0)
			session = -1; /* counted */
		else
			holder->count--;
	}
	(void)safe_close(session);
	for (unsigned i = 0; i < count; i++)
		(void)safe_close(fds[i]);
}

/* Further views get a holder of their own. */
static void stop_listening(struct holder *holder)
{
	if (holder->listener >= 0)
		(void)unlinkat(holder->directory, holder->key->hex, 0);
	holder->listener = safe_close(holder->listener);
	holder->polls[0].fd = -1; /* poll() passes over it */
}

static void accept_session(struct holder *holder)
{
	_cleanup_(closep) int fd = accept4(holder->listener, NULL, NULL, SOCK_CLOEXEC);
	const struct timeval patience = { .tv_sec = 1 };
	struct ucred peer;
	socklen_t len = sizeof(peer);

	/* Out of descriptors or memory: asking again at once would never end. */
	if (fd < 0 && errno != EINTR && errno != ECONNABORTED && errno != EAGAIN)
		stop_listening(holder);
	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 ||
	    peer.uid != geteuid())
		return;
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	serve(holder, fd);
}

/* Until the last session has ended, or a keeper, without which its mount is dead. */
static void hold(struct holder *holder)
{
	while (holder->count > holder->fixed) {
		if (poll(holder->polls, holder->count, -1) < 0)
			continue; /* interrupted */
		for (size_t i = 1; i < holder->fixed; i++)
			if (holder->polls[i].revents)
				return;
		for (size_t i = holder->fixed; i < holder->count;) {
			if (!holder->polls[i].revents) {
				i++;
				continue;
			}
			(void)safe_close(holder->polls[i].fd);
			holder->polls[i] = holder->polls[--holder->count];
		}
		if (holder->polls[0].revents)
			accept_session(holder);
	}
}

static void close_others(const struct holder *holder)
{
	int keep[PARTS_MAX + 3];
	unsigned count = 0;

	keep[count++] = holder->directory;
	keep[count++] = holder->first;
	for (unsigned i = 0; i < holder->parts->count; i++)
		keep[count++] = holder->parts->part[i].serving.image_fd;
	thaw_close_all_but(keep, count);
}

static void run_holder(void *userdata)
{
	struct holder *holder = userdata;
	struct answer answer = { 0 };
	int r = 0;

	thaw_detach_from_terminal();
	close_others(holder);
	answer.result = set_up(holder, &answer);
	if (answer.result < 0) {
		(void)!thaw_send_fds(holder->first, &answer, sizeof(answer), NULL, 0);
		return; /* if nobody listens, nobody needs to know */
	}
	(void)prctl(PR_SET_NAME, "thaw-holder"); /* for ps: a valid name */
	/* Only the mounts are needed from here on. */
	for (unsigned i = 0; i < holder->parts->count; i++)
		thaw_serving_deinit(&holder->parts->part[i].serving);
	holder->listener = listen_at(holder->directory, holder->key->hex);
	r = add_poll(holder, holder->listener); /* without one: nobody else comes */
	for (unsigned i = 0; r == 0 && i < holder->parts->count; i++) {
		r = add_poll(holder, holder->parts->part[i].keeper);
		holder->polls[holder->count - 1].events =
			0; /* its end is all that matters */
	}
	if (r < 0)
		return;
	holder->fixed = holder->count;
	serve(holder, holder->first);
	holder->first = safe_close(holder->first);
	hold(holder);
	stop_listening(holder);
}

/* -- sessions -- */

/* Our part of serve(). */
static int ask(int socket, int *fds, struct answer *answer, unsigned *ret_count)
{
	_cleanup_(closep) int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	int r;

	if (self < 0)
		return -errno;
	r = thaw_send_fds(socket, "", 1, &self, 1);
	if (r == 0)
		r = thaw_receive_fds(socket, answer, sizeof(*answer), fds, THAW_FDS_MAX);
	if (r < 0)
		return r;
	*ret_count = (unsigned)r;
	return 0;
}

/* Another start at the same time is waited for; whoever is stuck in it is not. */
static int lock_directory(int directory)
{
	_cleanup_(closep) int fd = openat(
		directory, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	for (unsigned waited = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; waited += 2) {
		const struct timespec moment = { .tv_nsec = 2000000 };

		if ((errno != EWOULDBLOCK && errno != EINTR) || waited > PATIENCE_MS)
			return -errno;
		(void)nanosleep(&moment, NULL);
	}
	return steal_fd(&fd);
}

static int start_holder(struct thaw_parts *parts, const struct key *key, int directory,
			int *fds, struct answer *answer, unsigned *ret_count)
{
	struct holder holder = { .parts = parts, .key = key, .directory = directory };
	_cleanup_(closep) int own = -1;
	int sockets[2], r;

	sweep(directory);
	r = thaw_socket_pair(sockets);
	if (r < 0)
		return r;
	own = sockets[0];
	holder.first = sockets[1];
	r = thaw_fork_detached(run_holder, &holder, own);
	(void)safe_close(sockets[1]);
	return r < 0 ? r : ask(own, fds, answer, ret_count);
}

static int get_answer(struct thaw_parts *parts, const char *warm, struct thaw_error *err,
		      int *fds, struct answer *answer, unsigned *ret_count)
{
	_cleanup_(freep) char *path = NULL;
	_cleanup_(closep) int directory = -1;
	_cleanup_(closep) int socket = -1;
	_cleanup_(closep) int lock = -1;
	struct key key;
	int r;

	r = thaw_runtime_directory("share", NULL, err, &path);
	if (r < 0)
		return r;
	directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	r = directory < 0 ? -errno : make_key(parts, warm, &key);
	if (r < 0)
		return thaw_io(err, r, "\"%.300s\"", path);
	socket = connect_to(directory, key.hex);
	if (socket >= 0 && ask(socket, fds, answer, ret_count) == 0)
		return 0;
	lock = lock_directory(directory);
	if (lock < 0)
		return thaw_io(err, lock, "\"%.300s\"", path);
	(void)safe_close(socket);
	socket = connect_to(directory, key.hex); /* somebody was faster */
	if (socket >= 0 && ask(socket, fds, answer, ret_count) == 0)
		return 0;
	r = start_holder(parts, &key, directory, fds, answer, ret_count);
	return r < 0 ? thaw_io(err, r, "the process that holds the view's mounts") : 0;
}

static int join(struct thaw_parts *parts, const int *fds, unsigned count,
		const struct answer *answer, struct thaw_share *share,
		struct thaw_error *err)
{
	unsigned first = answer->user_namespace ? 1 : 0;
	int r;

	if (count != first + parts->count)
		return thaw_io(err, -EBADMSG, "the process that holds the view's mounts");
	if (first && setns(fds[0], CLONE_NEWUSER) < 0)
		return thaw_io(err, -errno, "the user namespace cannot be entered");
	share->user_namespace = first;
	r = thaw_enter_mount_namespace(err);
	share->mount_namespace = r == 0;
	for (unsigned i = 0; r == 0 && i < parts->count; i++)
		if (syscall(SYS_move_mount, fds[first + i], "", AT_FDCWD,
			    parts->part[i].directory, MOVE_MOUNT_F_EMPTY_PATH) < 0)
			r = thaw_io(err, -errno, "cannot be mounted on \"%.300s\"",
				    parts->part[i].directory);
	return r;
}

int thaw_share_enter(struct thaw_parts *parts, const char *warm, struct thaw_error *err,
		     struct thaw_share *ret_share)
{
	struct answer answer = { 0 };
	int fds[THAW_FDS_MAX];
	unsigned count = 0;
	int r;

	*ret_share = (struct thaw_share){ 0 };
	if (parts->count > PARTS_MAX)
		return thaw_limit(err, "a view has at most %u images", PARTS_MAX);
	r = get_answer(parts, warm, err, fds, &answer, &count);
	if (r < 0) {
		ret_share->alone = true;
		return r;
	}
	if (answer.result < 0) {
		if (err)
			*err = answer.err;
		ret_share->impossible = answer.impossible;
		return answer.result;
	}
	r = join(parts, fds, count, &answer, ret_share, err);
	for (unsigned i = 0; i < count; i++)
		(void)safe_close(fds[i]);
	return r;
}
