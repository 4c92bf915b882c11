/* SPDX-License-Identifier: Apache-2.0 */
/* Which pages warm sets hold: one bit for each page of each file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "tool.h"
#include "util/cleanup.h"

static int number_pages(struct report *report)
{
	uint32_t inodes = thaw_image_info(report->image)->inodes;
	struct report_pages *pages = &report->pages;

	pages->base = calloc((size_t)inodes + 1, sizeof(*pages->base));
	if (!pages->base)
		return -ENOMEM;
	for (uint32_t ino = 0; ino < inodes; ino++) {
		struct thaw_inode inode;

		pages->base[ino] = pages->total;
		if (thaw_image_inode(report->image, ino, &inode) == 0 &&
		    inode.type == THAW_REGULAR)
			pages->total += (inode.size + THAW_PAGE_SIZE - 1) /
					THAW_PAGE_SIZE;
	}
	pages->base[inodes] = pages->total;
	return 0;
}

void report_page_range(const struct report *report, uint32_t ino, uint64_t first,
		       uint64_t count, uint64_t *ret_begin, uint64_t *ret_end)
{
	const uint64_t *base = report->pages.base;
	uint64_t pages;

	*ret_begin = *ret_end = 0;
	if (ino >= thaw_image_info(report->image)->inodes)
		return;
	pages = base[ino + 1] - base[ino];
	if (first >= pages)
		return;
	*ret_begin = base[ino] + first;
	*ret_end = *ret_begin + (count < pages - first ? count : pages - first);
}

/* Bits set in a, or in both when there is a b. */
uint64_t report_count_bits(const uint8_t *a, const uint8_t *b, uint64_t pages)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < (pages + 7) / 8; i++)
		count += (unsigned)__builtin_popcount(b ? a[i] & b[i] : a[i]);
	return count;
}

static int fill_set(struct report *report, struct report_set *set, unsigned part,
		    struct thaw_error *err)
{
	_cleanup_(thaw_warm_freep) struct thaw_warm *warm = NULL;
	int r;

	r = thaw_warm_open(report->image, part, err, &warm);
	if (r < 0)
		return r;
	set->bits = calloc(report->pages.total / 8 + 1, 1);
	if (!set->bits)
		return thaw_oom(err);
	thaw_warm_info(warm, &set->info);
	for (uint32_t i = 0; i < set->info.ops; i++) {
		struct thaw_warm_op op;
		uint64_t page, end;

		thaw_warm_op(warm, i, &op);
		if (op.kind != THAW_WARM_PAGES)
			continue;
		report_page_range(report, op.ino, op.first, op.count, &page, &end);
		for (; page < end; page++)
			set->bits[page / 8] |= (uint8_t)(1u << page % 8);
	}
	return 0;
}

int report_find_pages(struct report *report)
{
	unsigned parts = thaw_image_part_count(report->image);
	struct thaw_error err = { 0 };

	report->sets = calloc(parts, sizeof(*report->sets));
	if (!report->sets || number_pages(report) < 0)
		return tool_fail_errno(report->file, -ENOMEM);
	for (unsigned i = 0; i < parts; i++) {
		struct thaw_part_info part;

		thaw_image_part(report->image, i, &part);
		if (part.type != THAW_PART_WARM)
			continue;
		report->set_count++;
		if (fill_set(report, &report->sets[report->set_count - 1], i, &err) < 0)
			return tool_fail(report->file, &err);
	}
	return THAW_EXIT_OK;
}

void report_pages_deinit(struct report *report)
{
	for (unsigned i = 0; i < report->set_count; i++)
		free(report->sets[i].bits);
	free(report->sets);
	free(report->pages.base);
}
