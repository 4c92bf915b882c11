/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where placeholders stand in files: exactly where conda-unpack would replace
 * them.
 *
 * Text: bytes.replace(), so from left to right, not overlapping. Binary: a
 * string begins at a placeholder and ends at the next NUL, and every placeholder in it
 * counts; without a NUL before the end of the file it is no string. When a file
 * is named several times, conda-unpack goes over it as often, and does not see
 * what it has replaced already.
 *
 * Files are read in pieces, in the order in which they lie in the image, so that
 * frames are decompressed once and memory is bounded.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conda.h"
#include "util/cleanup.h"
#include "util/growing.h"

#define PIECE		    (128u << 10)
/* A package names a file once; a pack that names one for ever would be work without end. */
#define WANTS_OF_A_FILE_MAX 64u

void thaw_conda_wants_deinit(struct thaw_conda_wants *wants)
{
	free(wants->wants);
	free(wants->strings);
	*wants = (struct thaw_conda_wants){ 0 };
}

int thaw_conda_want(struct thaw_conda_wants *wants, uint32_t ino, const char *placeholder,
		    size_t len, enum thaw_conda_mode mode, uint32_t room,
		    struct thaw_error *err)
{
	struct thaw_conda_want want = {
		.ino = ino,
		.mode = mode,
		.placeholder_len = (uint32_t)len,
		.room = room ? room : (uint32_t)len,
		.order = (uint32_t)wants->count,
	};

	if (len != wants->last_len || wants->strings_size == 0 ||
	    memcmp(wants->strings + wants->last, placeholder, len) != 0) {
		if (wants->strings_size + len > UINT32_MAX)
			return thaw_limit(err, "its records hold more than 4 GiB");
		if (grow(&wants->strings, &wants->strings_capacity,
			 wants->strings_size + len, 1) < 0)
			return thaw_oom(err);
		wants->last = (uint32_t)wants->strings_size;
		wants->last_len = (uint32_t)len;
		memcpy(wants->strings + wants->last, placeholder, len);
		wants->strings_size += len;
	}
	want.placeholder = wants->last;
	if (grow(&wants->wants, &wants->capacity, wants->count + 1, sizeof(want)) < 0)
		return thaw_oom(err);
	wants->wants[wants->count++] = want;
	return 0;
}

/* -- UTF-8, as strictly as Python decodes it -- */

struct utf8 {
	uint8_t left;	   /* continuation bytes to come */
	uint8_t low, high; /* what the next of them may be */
};

static bool utf8_begin(struct utf8 *state, uint8_t c)
{
	*state = (struct utf8){ .low = 0x80, .high = 0xBF };
	if (c < 0x80)
		return true;
	if (c >= 0xC2 && c <= 0xDF) {
		state->left = 1;
	} else if (c >= 0xE0 && c <= 0xEF) {
		state->left = 2;
		if (c == 0xE0)
			state->low = 0xA0; /* no longer form than needed */
		if (c == 0xED)
			state->high = 0x9F; /* no surrogates */
	} else if (c >= 0xF0 && c <= 0xF4) {
		state->left = 3;
		if (c == 0xF0)
			state->low = 0x90;
		if (c == 0xF4)
			state->high = 0x8F; /* U+10FFFF is the last */
	} else {
		return false;
	}
	return true;
}

static bool utf8_add(struct utf8 *state, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint64_t eight;

		/* Most of all text is ASCII. */
		while (state->left == 0 && len - i >= sizeof(eight)) {
			memcpy(&eight, data + i, sizeof(eight));
			if (eight & 0x8080808080808080u)
				break;
			i += sizeof(eight);
		}
		if (i == len)
			break;
		if (state->left == 0) {
			if (!utf8_begin(state, data[i]))
				return false;
			continue;
		}
		if (data[i] < state->low || data[i] > state->high)
			return false;
		state->left--;
		state->low = 0x80;
		state->high = 0xBF;
	}
	return true;
}

/* -- one placeholder in one file -- */

struct search {
	const struct thaw_image *image;
	struct thaw_reader *reader;
	struct thaw_relocations *relocations;
	struct thaw_error *err;
	uint8_t *piece;
	/* Of the current file: what has been found. By offset, up to `claimed`. */
	struct found {
		uint64_t offset;
		uint32_t len;
		uint32_t room;
	} * found;
	size_t count, capacity;
	size_t claimed; /* by earlier wants */
	struct thaw_inode inode;
	uint64_t files;
};

struct scan {
	struct search *search;
	const struct thaw_conda_want *want;
	const char *placeholder;
	uint64_t next; /* where to look from; what lies before has been seen */
	size_t string; /* BINARY: first place that was found in the current string */
	bool in_string;
};

static bool claimed(const struct search *search, uint64_t offset, size_t len)
{
	size_t low = 0, high = search->claimed;

	/* The first that ends behind our beginning. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (search->found[middle].offset + search->found[middle].len <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low < search->claimed && search->found[low].offset < offset + len;
}

/*
 * The string's NUL is at `end`. Whoever built a longer path in and replaced it
 * has left zeros behind it: as many as there really are, is the room.
 */
static int end_string(struct scan *scan, uint64_t end)
{
	struct search *search = scan->search;
	uint32_t len = scan->want->placeholder_len, more = scan->want->room - len;
	size_t count = search->count - scan->string;
	uint64_t surplus = (uint64_t)more * count;

	if (surplus > 0) {
		size_t wanted = surplus < PIECE ? (size_t)surplus : PIECE, n = 0,
		       zeros = 0;
		_cleanup_(freep) uint8_t *behind = malloc(wanted);
		int r;

		if (!behind)
			return thaw_oom(search->err);
		r = thaw_reader_read(search->reader, &search->inode, end + 1, behind,
				     wanted, search->err, &n);
		if (r < 0)
			return r;
		while (zeros < n && behind[zeros] == 0)
			zeros++;
		more = zeros / count < more ? (uint32_t)(zeros / count) : more;
	}
	for (size_t i = scan->string; i < search->count; i++)
		search->found[i].room = len + more;
	scan->in_string = false;
	return 0;
}

static int note(struct scan *scan, uint64_t offset)
{
	struct search *search = scan->search;
	struct found found = {
		.offset = offset,
		.len = scan->want->placeholder_len,
	};

	if (thaw_relocations_count(search->relocations) + search->count >= THAW_SITES_MAX)
		return thaw_limit(search->err,
				  "paths stand at more than %u places in its files",
				  THAW_SITES_MAX);
	if (grow(&search->found, &search->capacity, search->count + 1, sizeof(found)) < 0)
		return thaw_oom(search->err);
	if (scan->want->mode == THAW_CONDA_BINARY && !scan->in_string) {
		scan->in_string = true;
		scan->string = search->count;
	}
	search->found[search->count++] = found;
	return 0;
}

/* Does the current string end in [data, data + len), which begins at `offset`? */
static int look_for_end(struct scan *scan, const uint8_t *data, size_t len,
			uint64_t offset)
{
	const uint8_t *nul = scan->in_string ? memchr(data, '\0', len) : NULL;

	return nul ? end_string(scan, offset + (uint64_t)(nul - data)) : 0;
}

/* data[0, len) begins at `offset` in the file; scan->next lies in it or behind. */
static int scan_piece(struct scan *scan, const uint8_t *data, size_t len, uint64_t offset,
		      bool last)
{
	size_t needle = scan->want->placeholder_len;
	uint64_t seen;
	int r;

	for (;;) {
		size_t at = (size_t)(scan->next - offset);
		const uint8_t *hit = memmem(data + at, len - at, scan->placeholder,
					    needle);
		uint64_t place;

		if (!hit)
			break;
		place = offset + (uint64_t)(hit - data);
		r = look_for_end(scan, data + at, (size_t)(hit - data) - at, scan->next);
		if (r < 0)
			return r;
		if (claimed(scan->search, place, needle)) {
			scan->next = place + 1;
			continue;
		}
		r = note(scan, place);
		if (r < 0)
			return r;
		scan->next = place + needle;
	}
	/* A placeholder may begin in the last bytes and end in the next piece. */
	seen = offset + len - (last || len < needle ? 0 : needle - 1);
	if (!last && len < needle)
		return 0;
	if (seen > scan->next) {
		r = look_for_end(scan, data + (scan->next - offset),
				 (size_t)(seen - scan->next), scan->next);
		if (r < 0)
			return r;
		scan->next = seen;
	}
	return 0;
}

/* Find what is wanted in the current file; it is added to search->found. */
static int scan_file(struct search *search, const struct thaw_conda_wants *wants,
		     const struct thaw_conda_want *want)
{
	struct scan scan = {
		.search = search,
		.want = want,
		.placeholder = wants->strings + want->placeholder,
	};
	size_t first = search->count, kept = 0, n = 0;
	bool unknown = want->mode == THAW_CONDA_UNKNOWN;
	struct utf8 utf8 = { 0 };

	for (uint64_t at = 0; at < search->inode.size; at += n) {
		int r = thaw_reader_read(search->reader, &search->inode, at,
					 search->piece + kept, PIECE, search->err, &n);

		if (r < 0)
			return r;
		if (unknown && !utf8_add(&utf8, search->piece + kept, n)) {
			search->count = first;
			return 0;
		}
		r = scan_piece(&scan, search->piece, kept + n, at - kept,
			       at + n == search->inode.size);
		if (r < 0)
			return r;
		/* Less than a placeholder: see scan_piece(). */
		memmove(search->piece, search->piece + (scan.next - (at - kept)),
			(size_t)(at + n - scan.next));
		kept = (size_t)(at + n - scan.next);
	}
	if (unknown && utf8.left)
		search->count = first;
	else if (scan.in_string)
		search->count = scan.string;
	return 0;
}

/*
 * Is this the interpreter of a script for Python, in its first line? Then *rule
 * replaces the interpreter's whole path. line is the file's beginning.
 */
static bool is_shebang(const char *line, size_t len, uint64_t offset, size_t prefix_len,
		       struct thaw_relocation_rule *rule)
{
	size_t at = 2, end;

	if (len < 2 || memcmp(line, "#!", 2) != 0)
		return false;
	while (at < len && line[at] == ' ')
		at++;
	if (offset != at)
		return false;
	/* The prefix may have blanks in it, even if no kernel could run that. */
	for (end = at + prefix_len; end < len && !strchr(" \t\r\n", line[end]);)
		end++;
	if (end == len || end - at < prefix_len + strlen("/bin/python") ||
	    memcmp(line + at + prefix_len, "/bin/python", strlen("/bin/python")) != 0)
		return false;
	*rule = (struct thaw_relocation_rule){
		.kind = THAW_RELOCATION_SHEBANG,
		.placeholder = line + at,
		.placeholder_len = end - at,
		.suffix = line + at + prefix_len,
		.suffix_len = end - at - prefix_len,
	};
	return true;
}

static int add_found(struct search *search, const struct thaw_conda_wants *wants,
		     const struct thaw_conda_want *want, size_t first)
{
	bool binary = want->mode == THAW_CONDA_BINARY;
	struct thaw_relocation_rule rule = {
		.kind = binary ? THAW_RELOCATION_BINARY : THAW_RELOCATION_TEXT,
		.placeholder = wants->strings + want->placeholder,
		.placeholder_len = want->placeholder_len,
	};
	char line[THAW_PATH_MAX];
	size_t len = 0;

	for (size_t i = first; i < search->count; i++) {
		uint64_t offset = search->found[i].offset;
		struct thaw_relocation_rule shebang;
		bool first_line = false;
		int r;

		if (wants->shebangs && !binary && offset < THAW_SHEBANG_LINE_MAX) {
			if (len == 0 &&
			    (r = thaw_reader_read(search->reader, &search->inode, 0, line,
						  sizeof(line), search->err, &len)) < 0)
				return r;
			first_line = is_shebang(line, len, offset, want->placeholder_len,
						&shebang);
		}
		rule.room = binary ? search->found[i].room : 0;
		r = thaw_relocations_add(search->relocations, want->ino, offset,
					 first_line ? &shebang : &rule, search->err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int compare_found(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int compare_wants(const void *a, const void *b)
{
	const struct thaw_conda_want *x = a, *y = b;

	if (x->data != y->data)
		return x->data < y->data ? -1 : 1;
	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static bool same_want(const struct thaw_conda_wants *wants,
		      const struct thaw_conda_want *a, const struct thaw_conda_want *b)
{
	return a->mode == b->mode && a->placeholder_len == b->placeholder_len &&
	       memcmp(wants->strings + a->placeholder, wants->strings + b->placeholder,
		      a->placeholder_len) == 0;
}

/* All wants of one file: wants[0..count). */
static int search_file(struct search *search, const struct thaw_conda_wants *wants,
		       const struct thaw_conda_want *want, size_t count)
{
	size_t sites = thaw_relocations_count(search->relocations);
	char path[256];

	if (count > WANTS_OF_A_FILE_MAX) {
		thaw_image_path(search->image, want->ino, path, sizeof(path));
		return thaw_refused(search->err, "%s: has more than %u records", path,
				    WANTS_OF_A_FILE_MAX);
	}
	search->count = search->claimed = 0;
	for (size_t i = 0; i < count; i++) {
		bool again = false;
		int r;

		for (size_t j = 0; j < i; j++)
			again |= same_want(wants, &want[j], &want[i]);
		if (again)
			continue;
		r = scan_file(search, wants, &want[i]);
		if (r == 0)
			r = add_found(search, wants, &want[i], search->claimed);
		if (r < 0)
			return r;
		if (search->count > 0)
			qsort(search->found, search->count, sizeof(*search->found),
			      compare_found);
		search->claimed = search->count;
	}
	search->files += thaw_relocations_count(search->relocations) > sites;
	return 0;
}

int thaw_conda_search(const struct thaw_image *image, struct thaw_reader *reader,
		      struct thaw_conda_wants *wants,
		      struct thaw_relocations *relocations, struct thaw_error *err,
		      uint64_t *ret_files)
{
	struct search search = {
		.image = image,
		.reader = reader,
		.relocations = relocations,
		.err = err,
		.piece = malloc(PIECE + THAW_PATH_MAX),
	};
	int r = search.piece ? 0 : thaw_oom(err);

	for (size_t i = 0; r == 0 && i < wants->count; i++) {
		struct thaw_inode inode;

		r = thaw_image_inode(image, wants->wants[i].ino, &inode);
		wants->wants[i].data = r == 0 ? inode.data : 0;
	}
	if (r == 0 && wants->count > 0)
		qsort(wants->wants, wants->count, sizeof(*wants->wants), compare_wants);
	for (size_t i = 0, n; r == 0 && i < wants->count; i += n) {
		uint32_t ino = wants->wants[i].ino;

		for (n = 1; i + n < wants->count && wants->wants[i + n].ino == ino;)
			n++;
		r = thaw_image_inode(image, ino, &search.inode);
		if (r == 0)
			r = search_file(&search, wants, &wants->wants[i], n);
	}
	free(search.piece);
	free(search.found);
	if (r == 0)
		*ret_files = search.files;
	return r;
}
