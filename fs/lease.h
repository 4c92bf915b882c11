/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A lease: why a view exists, who owns it, and what ends it. As a struct for the
 * node service, as JSON for its clients and for the catalogue.
 *
 * Times are seconds of CLOCK_BOOTTIME: leases outlive the service, not the boot.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "thaw/error.h"
#include "thaw/image.h"

#define THAW_SESSION_NAME_MAX 128u
#define THAW_VIEW_ID	      17u /* 16 hexadecimal digits, with the NUL */
#define THAW_LAYERS_MAX	      8u  /* images stacked over the first one */
#define THAW_LABELS_MAX	      16u
#define THAW_LABEL_MAX	      256u /* bytes of a name or a value */

enum thaw_lease_kind {
	THAW_LEASE_CONNECTION, /* as long as the connection, and its grace */
	THAW_LEASE_PROCESS,    /* as long as a process lives */
	THAW_LEASE_TTL, /* until a time that Open and Renew put off; or until closed */
};

struct thaw_lease_image {
	char *name; /* as the client calls it: for people */
	uint8_t identity[THAW_DIGEST_SIZE];
};

struct thaw_lease {
	char id[THAW_VIEW_ID]; /* of session and directory */
	char *session;
	char *directory; /* absolute, without symlinks */
	uid_t uid;	 /* owner */
	gid_t gid;
	/* The image, and what is stacked over it, from below. */
	struct thaw_lease_image images[1 + THAW_LAYERS_MAX];
	unsigned image_count;
	char *warm; /* NULL: all */
	bool writable, shared;
	uint64_t scratch_size; /* 0: as large as the disk */
	char *scratch;	       /* directory of the scratch layer, or NULL */
	bool made;	       /* the directory is ours to remove */
	json_t *labels;	       /* an object of strings, or NULL */
	int64_t opened;	       /* Unix time */

	enum thaw_lease_kind kind;
	pid_t pid;
	uint64_t pid_start; /* thaw_process_began(), so that its number is not mistaken */
	uint64_t seconds;   /* of a ttl; 0: until closed */
	uint64_t
		deadline; /* when it ends; 0: not by time (a living connection or process) */
};

void thaw_lease_deinit(struct thaw_lease *lease);
/* The id of this session and directory. -ENOMEM. */
_must_check_ int thaw_lease_id(const char *session, const char *directory,
			       char ret_id[THAW_VIEW_ID]);
/* 1 to 128 bytes of printable ASCII without '/', not beginning with a dot. */
bool thaw_session_name_valid(const char *name);
/* An object of at most THAW_LABELS_MAX strings, or NULL. */
bool thaw_labels_valid(const json_t *labels);

/* What clients see. NULL without memory. */
json_t *thaw_lease_to_json(const struct thaw_lease *lease, uint64_t now);
/* All of it, and back. -EBADMSG: not what was written. */
json_t *thaw_lease_to_record(const struct thaw_lease *lease);
_must_check_ int thaw_lease_from_record(const json_t *record,
					struct thaw_lease *ret_lease);

/* Seconds of CLOCK_BOOTTIME. */
uint64_t thaw_boottime(void);
/* Of 64 hexadecimal digits. */
bool thaw_digest_from_hex(const char *hex, uint8_t ret_digest[THAW_DIGEST_SIZE]);
