/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What `thaw report` knows: gathered first (report-content.c, report-pages.c,
 * report-run.c), then written as a page, section by section, or as JSON. Both
 * are made of the same figures.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "packages.h"
#include "thaw/image.h"
#include "thaw/reader.h"
#include "thaw/warm.h"

#ifdef THAW_WITH_FUSE
#include "thaw/observe.h"
#include "thaw/stat.h"
#endif

/* A part of the environment: a package, or what belongs to none. */
enum report_kind { REPORT_PACKAGE, REPORT_STDLIB, REPORT_PROGRAMS, REPORT_OTHER };

struct report_group {
	char *name;	     /* any bytes but NUL */
	const char *version; /* of the package, borrowed; or NULL */
	enum report_kind kind;
	uint64_t files, bytes;
	uint64_t *warm;	   /* by set: bytes of its pages */
	uint64_t warm_any; /* bytes of pages in any set */
	uint64_t touched;  /* by the command */
};

/* Pages of all regular files, numbered: those of inode i are [base[i], base[i + 1]). */
struct report_pages {
	uint64_t *base; /* inodes + 1 */
	uint64_t total;
};

struct report_set {
	struct thaw_warm_info info;
	uint8_t *bits; /* by page */
	/* Against the command's run: */
	uint64_t pushed; /* before its end */
	uint64_t used;	 /* pages that it touches */
	uint64_t read_anyway, overtaken;
};

enum report_wait {
	REPORT_WAIT_OVERTAKEN, /* a read of a page that the warmer had not come to */
	REPORT_WAIT_COLD,      /* ... that is in no set */
	REPORT_WAIT_PUSHED,    /* ... that had been pushed */
	REPORT_WAIT_NAMES,     /* anything else */
	REPORT_WAITS
};

enum report_lane {
	REPORT_LANE_NAMES,
	REPORT_LANE_READS,
	REPORT_LANE_WAITING, /* microseconds */
	REPORT_LANE_FRAMES,  /* microseconds */
	REPORT_LANE_LISTING,
	REPORT_LANE_PUSHED,	 /* bytes */
	REPORT_LANE_WARM_FRAMES, /* microseconds */
	REPORT_LANES
};
#define REPORT_STEPS 160u

struct report_run {
	char *const *argv;
#ifdef THAW_WITH_FUSE
	struct thaw_observed observed;
	uint64_t own[THAW_STAT_OPCODES];    /* requests of the first run by type */
	uint64_t warmer[THAW_STAT_OPCODES]; /* the warmer's, until the first run's end */
	uint64_t latency[THAW_STAT_LATENCIES]; /* of the first run's */
#endif
	uint64_t own_total, warmer_total, second_total;
	uint64_t mounting, first, second; /* microseconds */
	uint64_t waited[REPORT_WAITS];	  /* microseconds of the first run */
	uint64_t lanes[REPORT_LANES]
		      [REPORT_STEPS]; /* from opening the view to the first run's end */
	uint64_t totals[REPORT_LANES];
	uint64_t warm_end; /* microseconds from the opening: the last push; 0: none */
	uint64_t pushed_bytes, read_bytes, decoded_bytes, warm_decoded_bytes;
	uint64_t touched, covered; /* pages; and those of them that are in a set */
	uint64_t dropped;
	uint8_t *bits; /* touched, by page */
};

struct report {
	const char *name; /* what was asked for */
	const char *file; /* the image */
	struct thaw_image *image;
	struct thaw_reader *reader;
	struct tool_packages packages;
	json_t *meta;
	json_t *bench;		     /* of tools/bench, or NULL; untrusted */
	struct report_group *groups; /* largest first */
	size_t group_count;
	struct report_pages pages;
	struct report_set *sets;
	unsigned set_count;
	struct report_run *run; /* NULL without a command */
#ifdef THAW_WITH_FUSE
	struct thaw_stat live;
#endif
	bool has_live;
};

/* Gathering. Each returns an exit code, having said what failed. */
int report_find_pages(struct report *report);
int report_find_groups(struct report *report);
int report_run(struct report *report, char *const *argv);
void report_groups_deinit(struct report *report);
void report_pages_deinit(struct report *report);

/* Bytes of page number `page` of a file. */
static inline uint64_t report_page_bytes(uint64_t size, uint64_t page)
{
	uint64_t left = size - page * THAW_PAGE_SIZE;

	return left < THAW_PAGE_SIZE ? left : THAW_PAGE_SIZE;
}
static inline bool report_bit(const uint8_t *bits, uint64_t page)
{
	return bits[page / 8] >> page % 8 & 1;
}
/* Pages of an inode, cut to those that it has. */
void report_page_range(const struct report *report, uint32_t ino, uint64_t first,
		       uint64_t count, uint64_t *ret_begin, uint64_t *ret_end);
uint64_t report_count_bits(const uint8_t *a, const uint8_t *b, uint64_t pages);
const char *report_meta_string(const struct report *report, const char *key);
const char *report_kind_name(enum report_kind kind);

/* The page and its sections; what is not there is left out. */
void report_write_page(const struct report *report, FILE *html);
void report_write_head(const struct report *report, FILE *html);
void report_write_live(const struct report *report, FILE *html);
void report_write_treemap(const struct report *report, FILE *html);
void report_write_timeline(const struct report *report, FILE *html);
void report_write_coverage(const struct report *report, FILE *html);
void report_write_latency(const struct report *report, FILE *html);
void report_write_bench(const struct report *report, FILE *html);
extern const char report_style[];

json_t *report_json(const struct report *report);
