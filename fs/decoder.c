/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding an index in a process of its own. The memory holds the facts, then what
 * thaw_image_share() and thaw_warm_pages_share() write.
 */
#include "decoder.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "confined-child.h"
#include "digest.h"
#include "thaw/layer.h"
#include "thaw/learned.h"
#include "thaw/relocation.h"
#include "util/cleanup.h"

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
/* Whole pages, so that they can be mapped alone. */
#define FACTS_SIZE ((sizeof(struct thaw_facts) + 65535) / 65536 * 65536)
/* 64 million files take half a minute; what is slower is a disk, or does not mean to end. */
#define SECONDS 600u

/* -- in the decoder -- */

struct work {
	const struct thaw_decoding *decoding;
	int fd;
	struct thaw_facts *facts; /* shared */
};

static void set_text(char *to, size_t size, const char *text)
{
	(void)snprintf(to, size, "%s", text ? text : ""); /* of bounded length: see below */
}

static int state_facts(const struct thaw_image *image, bool view, struct thaw_facts *facts,
		       struct thaw_error *err)
{
	struct thaw_binding binding;
	int r;

	facts->learnable = 1;
	for (unsigned i = 0; i < thaw_image_part_count(image); i++) {
		struct thaw_part_info part;

		thaw_image_part(image, i, &part);
		if (part.type == THAW_PART_WARM)
			facts->learnable = 0;
	}
	if (!view)
		return 0;
	facts->relocated = thaw_image_relocated_count(image) > 0;
	facts->layer_size = thaw_layer_size(image);
	r = thaw_binding_load(image, err, &binding);
	if (r != 0)
		return r == THAW_NOT_FOUND ? 0 : r;
	facts->bound = 1;
	if ((binding.recorded && strlen(binding.recorded) >= sizeof(facts->recorded)) ||
	    (binding.constraints && strlen(binding.constraints) >= sizeof(facts->constraints)))
		r = thaw_damaged(err, "damaged: its meta section: too long a text");
	set_text(facts->python, sizeof(facts->python), binding.python);
	set_text(facts->recorded, sizeof(facts->recorded), binding.recorded);
	set_text(facts->constraints, sizeof(facts->constraints), binding.constraints);
	thaw_binding_deinit(&binding);
	return r;
}

/* THAW_NOT_FOUND when there is nothing, or of another image: it would do no harm, and no good. */
static int use_learned(const struct thaw_image *image, int fd, struct thaw_warm_pages *warm,
		       struct thaw_error *err)
{
	struct thaw_learned learned = { 0 };
	uint8_t digest[THAW_DIGEST_SIZE];
	struct thaw_warm *set;
	int r = thaw_learned_load(fd, err, digest, &learned);

	if (r < 0)
		return r;
	if (memcmp(digest, thaw_image_info(image)->index_digest, sizeof(digest)) != 0)
		r = THAW_NOT_FOUND;
	if (r == 0)
		r = thaw_warm_from_learned(image, &learned, err, &set);
	thaw_learned_deinit(&learned);
	if (r == 0 && thaw_warm_pages_add(warm, set) < 0)
		r = thaw_oom(err);
	return r;
}

static int decode(void *userdata, struct thaw_error *err)
{
	const struct work *work = userdata;
	const struct thaw_decoding *decoding = work->decoding;
	struct thaw_facts *facts = work->facts;
	struct thaw_image *image = NULL;
	struct thaw_warm_pages warm = { 0 };
	struct thaw_error cause = { 0 };
	int r;

	/* Nothing is freed: the process ends. */
	r = thaw_image_open_known(decoding->source, decoding->identity, err, &image);
	if (r == 0)
		r = state_facts(image, decoding->view, facts, err);
	if (r == 0)
		r = thaw_warm_pages_init(&warm, image, decoding->name, decoding->warm, err);
	if (r == 0 && facts->learnable && decoding->learned_fd >= 0) {
		r = use_learned(image, decoding->learned_fd, &warm, &cause);
		facts->learned = r == 0;
		if (r < 0)
			set_text(facts->learning_failed, sizeof(facts->learning_failed),
				 cause.text);
		r = 0;
	}
	if (r < 0)
		return r;
	facts->warm_sets = warm.count;
	facts->warm_pages = (uint32_t)warm.pages;
	r = thaw_image_share(image, work->fd, err);
	return r < 0 ? r : thaw_warm_pages_share(&warm, work->fd, err);
}

/* -- outside -- */

static int check_facts(struct thaw_facts *facts, struct thaw_error *err)
{
	char *const texts[] = { facts->recorded, facts->constraints, facts->learning_failed };

	facts->python[sizeof(facts->python) - 1] = '\0';
	facts->recorded[sizeof(facts->recorded) - 1] = '\0';
	facts->constraints[sizeof(facts->constraints) - 1] = '\0';
	facts->learning_failed[sizeof(facts->learning_failed) - 1] = '\0';
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		for (const char *p = texts[i]; *p; p++)
			if ((unsigned char)*p < 32 || *p == 127)
				return thaw_damaged(err, "damaged: a text in its index");
	if (strspn(facts->python, "0123456789.t") != strlen(facts->python) ||
	    (facts->recorded[0] && facts->recorded[0] != '/') ||
	    facts->warm_sets > THAW_PARTS_MAX)
		return thaw_damaged(err, "damaged: what was found in its index");
	return 0;
}

static int run_decoder(const struct thaw_decoding *decoding, int fd, struct thaw_facts *facts,
		       struct thaw_error *err)
{
	struct work work = { .decoding = decoding, .fd = fd, .facts = facts };
	const int keep[] = { decoding->source->fd, fd, decoding->learned_fd };
	const struct thaw_confined_child child = {
		.kind = THAW_SANDBOX_WORKER,
		.place = -1,
		.keep = keep,
		.keep_count = sizeof(keep) / sizeof(keep[0]),
		.log = decoding->log,
		.foreground = decoding->foreground,
		.seconds = SECONDS,
		.what = "decodes the index",
		.work = decode,
		.userdata = &work,
	};
	uint8_t sum[THAW_DIGEST_SIZE];
	int r;

	/* Libraries set themselves up with files; what is set up here, all our children have. */
	json_object_seed(0);
	if (thaw_digest_once("", 0, sum) < 0)
		return thaw_oom(err);
	r = thaw_confined_child(&child, err);
	return r > 0 ? thaw_io(err, -EIO, "the index cannot be decoded") : r;
}

int thaw_decode(const struct thaw_decoding *decoding, struct thaw_error *err, int *ret_fd,
		struct thaw_facts *ret_facts)
{
	_cleanup_(closep) int fd = memfd_create("thaw-index", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct thaw_facts *facts;
	int r;

	if (fd < 0 || ftruncate(fd, FACTS_SIZE) < 0 || lseek(fd, FACTS_SIZE, SEEK_SET) < 0)
		return thaw_io(err, -errno, "the index cannot be shared");
	facts = mmap(NULL, FACTS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (facts == MAP_FAILED)
		return thaw_io(err, -errno, "the index cannot be shared");
	r = run_decoder(decoding, fd, facts, err);
	(void)munmap(facts, FACTS_SIZE); /* as it was mapped: cannot fail */
	if (r == 0 && fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		r = thaw_io(err, -errno, "the index cannot be shared");
	if (r == 0)
		r = thaw_decoded_facts(fd, err, ret_facts);
	if (r == 0)
		*ret_fd = steal_fd(&fd);
	return r;
}

int thaw_decoded_facts(int fd, struct thaw_error *err, struct thaw_facts *ret_facts)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return thaw_io(err, -errno, "the shared index");
	if (pread(fd, ret_facts, sizeof(*ret_facts), 0) != (ssize_t)sizeof(*ret_facts))
		return thaw_damaged(err, "the shared index is none");
	ret_facts->size = (uint64_t)st.st_size;
	return check_facts(ret_facts, err);
}

int thaw_decoded_open(int fd, uint64_t size, struct thaw_source *source,
		      struct thaw_error *err, struct thaw_image **ret_image,
		      struct thaw_warm_pages *ret_warm)
{
	struct thaw_image *image;
	uint8_t *map;
	size_t used;
	int r;

	if (size < FACTS_SIZE)
		return thaw_damaged(err, "the shared index is none");
	/* It stays mapped until the process ends. */
	map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return thaw_io(err, -errno, "the shared index");
	r = thaw_image_open_shared(source, map + FACTS_SIZE, size - FACTS_SIZE, err, &image,
				   &used);
	if (r == 0 && ret_warm)
		r = thaw_warm_pages_open_shared(ret_warm, image, map + FACTS_SIZE + used,
						size - FACTS_SIZE - used, err);
	if (r == 0)
		*ret_image = image;
	return r;
}
