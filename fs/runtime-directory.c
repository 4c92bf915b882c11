/* SPDX-License-Identifier: Apache-2.0 */
/* Finding and making the run-time and state directories. */
#include "thaw/directories.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"

/* A place to try. */
struct candidate {
	const char *rule;
	char *path;
	bool only; /* asked for by name: no other will do */
	size_t parents; /* make the directories above it, too, beginning behind this many bytes; 0: none */
};

#define CANDIDATES 4u
struct candidates {
	struct candidate list[CANDIDATES];
	unsigned count;
};

static void candidates_deinit(struct candidates *candidates)
{
	for (unsigned i = 0; i < candidates->count; i++)
		free(candidates->list[i].path);
}

static int add(struct candidates *to, const char *rule, const char *base,
	       const char *rest)
{
	struct candidate *candidate = &to->list[to->count];

	*candidate = (struct candidate){ .rule = rule };
	if (asprintf(&candidate->path, "%s%s", base, rest) < 0)
		return -ENOMEM;
	to->count++;
	return 0;
}

/* THAW_NOT_FOUND: it is not set. */
static int add_own_variable(struct candidates *to, const char *name, const char *rule,
			    struct thaw_error *err)
{
	const char *value = getenv(name);

	if (!value || !*value)
		return THAW_NOT_FOUND;
	if (value[0] != '/')
		return thaw_refused(err, "%s: \"%.300s\" is no absolute path", rule,
				    value);
	if (add(to, rule, value, "") < 0)
		return thaw_oom(err);
	to->list[0].only = true;
	return 0;
}

/* XDG's variables count only when they are absolute. */
static const char *absolute(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] == '/' ? value : NULL;
}

static int runtime_candidates(struct candidates *to, struct thaw_error *err)
{
	const char *runtime = absolute("XDG_RUNTIME_DIR");
	char uid[32];
	int r = add_own_variable(to, "THAW_RUNTIME_DIR", "$THAW_RUNTIME_DIR", err);

	if (r != THAW_NOT_FOUND)
		return r;
	r = 0;
	if (geteuid() == 0)
		r = add(to, "root", "/run/thaw", "");
	if (r == 0 && runtime)
		r = add(to, "$XDG_RUNTIME_DIR", runtime, "/thaw");
	(void)snprintf(uid, sizeof(uid), "%u", (unsigned)geteuid());
	if (r == 0)
		r = add(to, "/tmp", "/tmp/thaw-", uid);
	return r < 0 ? thaw_oom(err) : 0;
}

static int state_candidates(struct candidates *to, struct thaw_error *err)
{
	const char *state = absolute("XDG_STATE_HOME"), *home = absolute("HOME");
	int r = add_own_variable(to, "THAW_STATE_DIR", "$THAW_STATE_DIR", err);

	if (r != THAW_NOT_FOUND)
		return r;
	r = 0;
	if (geteuid() == 0)
		r = add(to, "root", "/var/lib/thaw", "");
	else if (state)
		r = add(to, "$XDG_STATE_HOME", state, "/thaw");
	else if (home)
		r = add(to, "~/.local/state", home, "/.local/state/thaw");
	/* A home directory that is not there is not for us to make. */
	if (r == 0 && to->count)
		to->list[0].parents = geteuid() == 0 || state ? 1 : strlen(home);
	return r < 0 ? thaw_oom(err) : 0;
}

/* What cannot be made is found out later. */
static void make_parents(const struct candidate *candidate)
{
	_cleanup_(freep) char *copy = strdup(candidate->path);

	for (char *slash = copy ? strchr(copy + candidate->parents + 1, '/') : NULL;
	     slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(copy, geteuid() == 0 ? 0755 : 0700);
		*slash = '/';
	}
}

/* Somebody else's directory, or a symlink, in the place of ours: never used. */
static int make(const char *path, struct thaw_error *err)
{
	struct stat st;

	if (mkdir(path, geteuid() == 0 ? 0755 : 0700) < 0 && errno != EEXIST &&
	    /* Where nothing can be made, what is there may do: it may be another file system. */
	    !(errno == EROFS && access(path, F_OK) == 0))
		return thaw_io(err, -errno, "\"%.300s\" cannot be made", path);
	if (lstat(path, &st) < 0)
		return thaw_io(err, -errno, "\"%.300s\"", path);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
		return thaw_refused(err, "\"%.300s\": is not a directory of our own",
				    path);
	return 0;
}

static int make_writable(const char *path, struct thaw_error *err)
{
	int r = make(path, err);

	if (r == 0 && faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) < 0)
		return thaw_io(err, -errno, "\"%.300s\" cannot be written to", path);
	return r;
}

/* The first that can be used. THAW_NOT_FOUND: none, and ret_place->why says why. */
static int choose(struct candidates *candidates, struct thaw_error *err,
		  struct thaw_place *ret_place)
{
	struct thaw_error why = { 0 };
	int r = THAW_NOT_FOUND;

	*ret_place = (struct thaw_place){ 0 };
	for (unsigned i = 0; i < candidates->count; i++) {
		struct candidate *candidate = &candidates->list[i];

		if (candidate->parents)
			make_parents(candidate);
		r = make_writable(candidate->path, &why);
		if (r == 0) {
			ret_place->rule = candidate->rule;
			ret_place->path = steal_ptr(candidate->path);
			return 0;
		}
		/* What is somebody else's in the place of ours is said, not walked around. */
		if (candidate->only || why.exit_code == THAW_EXIT_REFUSED) {
			if (err)
				*err = why;
			return r;
		}
		if (ret_place->why[0] == '\0')
			(void)snprintf(ret_place->why, sizeof(ret_place->why), "%.255s",
				       why.text);
	}
	return THAW_NOT_FOUND;
}

int thaw_runtime_place(struct thaw_error *err, struct thaw_place *ret_place)
{
	_cleanup_(candidates_deinit) struct candidates candidates = { 0 };
	struct thaw_place place;
	int r = runtime_candidates(&candidates, err);

	if (r == 0)
		r = choose(&candidates, err, &place);
	if (r == THAW_NOT_FOUND) {
		(void)thaw_io(err, 0, "no run-time directory: %s",
			      place.why); /* has the cause */
		return -EROFS;
	}
	if (r < 0)
		return r;
	if (strpbrk(place.path, ":,\\")) {
		r = thaw_refused(err,
				 "\"%.300s\": overlayfs needs a path without : , and \\",
				 place.path);
		free(place.path);
		return r;
	}
	*ret_place = place;
	return 0;
}

int thaw_state_place(struct thaw_error *err, struct thaw_place *ret_place)
{
	_cleanup_(candidates_deinit) struct candidates candidates = { 0 };
	struct thaw_place place;
	int r = state_candidates(&candidates, err);

	if (r == 0)
		r = choose(&candidates, err, &place);
	if (r == THAW_NOT_FOUND) {
		if (place.why[0] == '\0')
			(void)snprintf(place.why, sizeof(place.why), "HOME is not set");
		r = thaw_runtime_directory("state", NULL, err, &place.path);
		place.rule = "run-time directory";
		place.fallback = true;
	}
	if (r == 0)
		*ret_place = place;
	return r;
}

/* BASE/kind/name; takes base over. */
static int below(char *base, const char *kind, const char *name, struct thaw_error *err,
		 char **ret_path)
{
	const char *const parts[] = { kind, kind ? name : NULL };
	_cleanup_(freep) char *path = base;

	for (unsigned i = 0; i < 2 && parts[i]; i++) {
		char *longer = NULL;
		int r;

		if (asprintf(&longer, "%s/%s", path, parts[i]) < 0)
			return thaw_oom(err);
		free(path);
		path = longer;
		r = make(path, err);
		if (r < 0)
			return r;
	}
	*ret_path = steal_ptr(path);
	return 0;
}

int thaw_runtime_directory(const char *kind, const char *name, struct thaw_error *err,
			   char **ret_path)
{
	struct thaw_place place;
	int r = thaw_runtime_place(err, &place);

	return r < 0 ? r : below(place.path, kind, name, err, ret_path);
}

int thaw_state_directory(const char *kind, const char *name, struct thaw_error *err,
			 char **ret_path)
{
	struct thaw_place place;
	int r = thaw_state_place(err, &place);

	return r < 0 ? r : below(place.path, kind, name, err, ret_path);
}
