/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warm sets against the stream. A pushed page takes the place of what the page
 * cache holds: a warm set whose digests are right but whose pages are not the
 * files' would be served as truth.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "image-internal.h"
#include "thaw/reader.h"
#include "thaw/warm.h"
#include "util/cleanup.h"
#include "verify-internal.h"

#define PAGE THAW_PAGE_SIZE

struct warm_check {
	const struct thaw_image *image;
	struct thaw_reader *reader;
	struct thaw_warm *warm;
	struct thaw_warm_info info;
	uint8_t *frame; /* one warm frame; NULL bytes when it could not be had */
	uint8_t *bytes; /* what the stream says, of one operation */
	bool frame_good;
	uint32_t next_frame, frame_size, used;
	thaw_verify_fault_fn *fault;
	void *fault_data;
	struct thaw_verify_result *result;
};

static void report_page(struct warm_check *c, const struct thaw_warm_op *op,
			uint32_t page)
{
	char path[300];
	struct thaw_error text;

	thaw_image_path(c->image, op->ino, path, sizeof(path));
	(void)thaw_damaged(&text,
			   "warm set \"%s\": page %" PRIu32 " of %s is not the file's",
			   c->info.name, page, path);
	c->fault(c->fault_data, text.text);
}

/* Operations never reach across frames: when one is used up, the next is meant. */
static int enter_frame(struct warm_check *c, struct thaw_error *err)
{
	struct thaw_error cause = { 0 };
	int r;

	if (c->used < c->frame_size)
		return 0;
	c->used = 0;
	c->frame_size = thaw_warm_frame_size(c->warm, c->next_frame);
	free(c->frame);
	c->frame = malloc(c->frame_size);
	if (!c->frame)
		return thaw_oom(err);
	r = thaw_warm_frame(c->warm, c->next_frame++, c->frame, &cause);
	if (r == -ENOMEM)
		return thaw_oom(err);
	c->frame_good = r == 0;
	c->result->frames++;
	if (r < 0) {
		c->result->bad_frames++;
		c->fault(c->fault_data, cause.text);
	}
	return 0;
}

static int check_pages(struct warm_check *c, const struct thaw_warm_op *op,
		       struct thaw_error *err)
{
	struct thaw_error cause = { 0 };
	struct thaw_inode inode;
	size_t n = 0;
	int r;

	r = enter_frame(c, err);
	if (r < 0)
		return r;
	c->result->warm_pages += op->count;
	if (!c->frame_good) {
		c->result->bad_warm_pages += op->count;
	} else {
		r = thaw_image_inode(c->image, op->ino, &inode);
		free(c->bytes);
		c->bytes = malloc(op->length);
		if (!c->bytes)
			return thaw_oom(err);
		if (r == 0)
			r = thaw_reader_read(c->reader, &inode,
					     (uint64_t)op->first * PAGE, c->bytes,
					     op->length, &cause, &n);
		if (r == -ENOMEM)
			return thaw_oom(err);
		/* A damaged frame of the stream has been reported; nothing is known of its pages. */
		for (uint32_t at = 0; r == 0 && at < op->length; at += PAGE) {
			uint32_t len = op->length - at < PAGE ? op->length - at : PAGE;

			if (n == op->length &&
			    memcmp(c->bytes + at, c->frame + c->used + at, len) == 0)
				continue;
			if (c->result->bad_warm_pages++ < 20)
				report_page(c, op, op->first + at / PAGE);
		}
	}
	c->used += op->length;
	return 0;
}

static int check_set(struct warm_check *c, struct thaw_error *err)
{
	thaw_warm_info(c->warm, &c->info);
	for (uint32_t i = 0; i < c->info.ops; i++) {
		struct thaw_warm_op op;
		int r;

		thaw_warm_op(c->warm, i, &op);
		if (op.kind != THAW_WARM_PAGES)
			continue;
		r = check_pages(c, &op, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int thaw_verify_warm(const struct thaw_image *image, thaw_verify_fault_fn *fault,
		     void *fault_data, struct thaw_error *err,
		     struct thaw_verify_result *result)
{
	_cleanup_(thaw_reader_freep) struct thaw_reader *reader = NULL;

	for (unsigned i = 0; i < image->part_count; i++) {
		struct warm_check c = {
			.image = image,
			.fault = fault,
			.fault_data = fault_data,
			.result = result,
		};
		struct thaw_error cause = { 0 };
		int r;

		if (image->parts[i].type != THAW_PART_WARM)
			continue;
		if (!reader && thaw_reader_new(image, 0, &reader) < 0)
			return thaw_oom(err);
		c.reader = reader;
		r = thaw_warm_open(image, i, &cause, &c.warm);
		if (r == -ENOMEM)
			return thaw_oom(err);
		if (r < 0) {
			/* Nobody can say how many pages are lost: at least one. */
			result->bad_warm_pages++;
			fault(fault_data, cause.text);
			continue;
		}
		r = check_set(&c, err);
		free(c.frame);
		free(c.bytes);
		thaw_warm_free(c.warm);
		if (r < 0)
			return r;
	}
	return 0;
}
