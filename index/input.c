/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tar stream of an archive, whatever it is compressed with. (Zip archives
 * and directories become one elsewhere.)
 *
 * The kind is told by the first bytes, never by the name. bzip2 goes through
 * libarchive. The others go to their libraries directly: gzip because
 * libarchive does not compare its checksum (a flipped bit would be packed), zstd
 * and xz because both let a file demand gigabytes of memory, libarchive's xz
 * reader sets no bound, and neither says apart what is damaged and what is too
 * large.
 *
 * What may follow the compressed data is zeros (tapes pad with them); several
 * gzip members, bzip2 or xz streams or zstd frames in a row are one stream, as
 * their own tools have it.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <lzma.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "pack-internal.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/pread.h"
#include "zip.h"

#define READ_SIZE (256u << 10)
#define BLOCK_SIZE (256u << 10)
#define STOP_INTERVAL_MS 200
/* zstd's own default (windowLog 27), and twice the dictionary of `xz -9` with room for its state. */
#define ZSTD_WINDOW_LOG_MAX 27
#define XZ_MEMORY_MAX (192ull << 20)

struct archive_input {
	struct thaw_input base;
	int fd;
	bool may_wait; /* a pipe, socket or terminal: reading it can take for ever */
	thaw_input_stop_fn *stop;
	void *stop_data;
	bool ended;	/* the file has no more bytes */
	bool finished;	/* the stream has no more blocks */
	int read_error; /* a failed read(2), kept over a library's own words */
	uint8_t *bytes; /* READ_SIZE: what was read last */
	size_t byte_count, byte_used;
	uint64_t zeros_from; /* everything read from this offset on was zero */
	uint8_t *block; /* BLOCK_SIZE: gzip, zstd and xz decode into it */

	struct archive *archive; /* bzip2 */
	z_stream gzip;
	bool gzip_inside; /* a member has begun and not ended */
	ZSTD_DCtx *zstd;
	size_t zstd_hint; /* 0: between two frames */
	lzma_stream xz;
};

static bool must_stop(const struct archive_input *input)
{
	return input->stop && input->stop(input->stop_data) != 0;
}

/*
 * A pipe may have nothing for hours. A signal that asks us to stop may come
 * just before read(2), which then would not notice: so wait in slices.
 */
static bool wait_readable(const struct archive_input *input)
{
	struct pollfd poll_fd = { .fd = input->fd, .events = POLLIN };

	while (poll(&poll_fd, 1, STOP_INTERVAL_MS) <= 0)
		if (must_stop(input))
			return false;
	return true;
}

/* Bytes that no decoder has seen yet; at the end of the file there are none. */
static int fill(struct archive_input *input, struct thaw_error *err)
{
	ssize_t n;

	if (input->byte_used < input->byte_count || input->ended)
		return 0;
	do {
		if (input->may_wait && !wait_readable(input)) {
			input->read_error = -EINTR;
			return thaw_io(err, -EINTR, "cannot be read");
		}
		n = read(input->fd, input->bytes, READ_SIZE);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		input->read_error = -errno;
		return thaw_io(err, -errno, "cannot be read");
	}
	for (size_t nonzero = (size_t)n; nonzero > 0; nonzero--) {
		if (input->bytes[nonzero - 1] != 0) {
			input->zeros_from = input->base.consumed + nonzero;
			break;
		}
	}
	input->byte_used = 0;
	input->byte_count = (size_t)n;
	input->ended = n == 0;
	input->base.consumed += (uint64_t)n;
	return 0;
}

/* Everything from here to the end of the file must be zeros. */
static int expect_padding(struct archive_input *input, struct thaw_error *err)
{
	for (;;) {
		int r = fill(input, err);

		if (r < 0)
			return r;
		if (input->ended)
			return 0;
		if (!all_zero(input->bytes + input->byte_used, input->byte_count - input->byte_used))
			return thaw_damaged(err, "the compressed data is followed by other bytes");
		input->byte_used = input->byte_count;
	}
}

static int next_plain(struct thaw_input *base, struct thaw_error *err, const uint8_t **ret_data,
		      size_t *ret_len)
{
	struct archive_input *input = (struct archive_input *)base;
	int r = fill(input, err);

	if (r < 0)
		return r;
	*ret_data = input->bytes + input->byte_used;
	*ret_len = input->byte_count - input->byte_used;
	input->byte_used = input->byte_count;
	return 0;
}

static int gzip_failure(const struct archive_input *input, int code, struct thaw_error *err)
{
	if (code == Z_MEM_ERROR)
		return thaw_oom(err);
	return thaw_damaged(err, "damaged gzip data (%s)",
			    input->gzip.msg ? input->gzip.msg : "unknown reason");
}

static int next_gzip(struct thaw_input *base, struct thaw_error *err, const uint8_t **ret_data,
		     size_t *ret_len)
{
	struct archive_input *input = (struct archive_input *)base;

	input->gzip.next_out = input->block;
	input->gzip.avail_out = BLOCK_SIZE;
	while (input->gzip.avail_out == BLOCK_SIZE && !input->finished) {
		int code, r = fill(input, err);

		if (r < 0)
			return r;
		if (input->ended && input->gzip_inside)
			return thaw_damaged(err, "the gzip data ends too early");
		if (input->ended) {
			input->finished = true;
			break;
		}
		if (!input->gzip_inside) {
			if (input->bytes[input->byte_used] == 0) {
				r = expect_padding(input, err);
				if (r < 0)
					return r;
				continue;
			}
			code = inflateReset(&input->gzip);
			if (code != Z_OK)
				return gzip_failure(input, code, err);
			input->gzip_inside = true;
		}
		input->gzip.next_in = input->bytes + input->byte_used;
		input->gzip.avail_in = (uInt)(input->byte_count - input->byte_used);
		/* Both buffers have room, so that anything but progress is damage. */
		code = inflate(&input->gzip, Z_NO_FLUSH);
		input->byte_used = input->byte_count - input->gzip.avail_in;
		if (code == Z_STREAM_END) /* size and checksum were right */
			input->gzip_inside = false;
		else if (code != Z_OK)
			return gzip_failure(input, code, err);
	}
	*ret_data = input->block;
	*ret_len = BLOCK_SIZE - input->gzip.avail_out;
	return 0;
}

static int zstd_failure(size_t code, struct thaw_error *err)
{
	switch (ZSTD_getErrorCode(code)) {
	case ZSTD_error_frameParameter_windowTooLarge:
		return thaw_limit(err, "zstd needs a window of more than 128 MiB to decompress it");
	case ZSTD_error_memory_allocation:
		return thaw_oom(err);
	default:
		return thaw_damaged(err, "damaged zstd data (%s)", ZSTD_getErrorName(code));
	}
}

static int next_zstd(struct thaw_input *base, struct thaw_error *err, const uint8_t **ret_data,
		     size_t *ret_len)
{
	struct archive_input *input = (struct archive_input *)base;
	ZSTD_outBuffer out = { .dst = input->block, .size = BLOCK_SIZE };

	while (out.pos == 0 && !input->finished) {
		ZSTD_inBuffer in = { .src = input->bytes };
		int r = fill(input, err);

		if (r < 0)
			return r;
		if (input->ended && input->zstd_hint != 0)
			return thaw_damaged(err, "the zstd data ends too early");
		if (input->ended) {
			input->finished = true;
			break;
		}
		if (input->zstd_hint == 0 && input->bytes[input->byte_used] == 0) {
			r = expect_padding(input, err);
			if (r < 0)
				return r;
			continue;
		}
		in.pos = input->byte_used;
		in.size = input->byte_count;
		input->zstd_hint = ZSTD_decompressStream(input->zstd, &out, &in);
		if (ZSTD_isError(input->zstd_hint))
			return zstd_failure(input->zstd_hint, err);
		input->byte_used = in.pos;
	}
	*ret_data = input->block;
	*ret_len = out.pos;
	return 0;
}

static int xz_failure(lzma_ret code, struct thaw_error *err)
{
	switch (code) {
	case LZMA_MEMLIMIT_ERROR:
		return thaw_limit(err, "xz needs more than %llu MiB to decompress it",
				  XZ_MEMORY_MAX >> 20);
	case LZMA_MEM_ERROR:
		return thaw_oom(err);
	case LZMA_BUF_ERROR:
		return thaw_damaged(err, "the xz data ends too early");
	default:
		return thaw_damaged(err, "damaged xz data");
	}
}

static int next_xz(struct thaw_input *base, struct thaw_error *err, const uint8_t **ret_data,
		   size_t *ret_len)
{
	struct archive_input *input = (struct archive_input *)base;

	input->xz.next_out = input->block;
	input->xz.avail_out = BLOCK_SIZE;
	while (input->xz.avail_out == BLOCK_SIZE && !input->finished) {
		lzma_ret code;
		int r = fill(input, err);

		if (r < 0)
			return r;
		input->xz.next_in = input->bytes + input->byte_used;
		input->xz.avail_in = input->byte_count - input->byte_used;
		code = lzma_code(&input->xz, input->ended ? LZMA_FINISH : LZMA_RUN);
		input->byte_used = input->byte_count - input->xz.avail_in;
		if (code == LZMA_STREAM_END)
			input->finished = true;
		else if (code != LZMA_OK)
			return xz_failure(code, err);
	}
	*ret_data = input->block;
	*ret_len = BLOCK_SIZE - input->xz.avail_out;
	return 0;
}

/* libarchive's reader: hand it what fill() has. */
static la_ssize_t archive_pull(struct archive *archive, void *userdata, const void **ret_buffer)
{
	struct archive_input *input = userdata;

	if (fill(input, NULL) < 0) {
		archive_set_error(archive, -input->read_error, "cannot be read");
		return -1;
	}
	*ret_buffer = input->bytes + input->byte_used;
	input->byte_used = input->byte_count;
	return (la_ssize_t)input->byte_count;
}

static int archive_failure(struct archive_input *input, struct thaw_error *err)
{
	const char *text = archive_error_string(input->archive);

	if (input->read_error)
		return thaw_io(err, input->read_error, "cannot be read");
	if (archive_errno(input->archive) == ENOMEM)
		return thaw_oom(err);
	return thaw_damaged(err, "damaged compressed data (%s)", text ? text : "unknown");
}

static int next_archive(struct thaw_input *base, struct thaw_error *err,
			const uint8_t **ret_data, size_t *ret_len)
{
	struct archive_input *input = (struct archive_input *)base;
	const void *data = NULL;
	la_int64_t offset;
	size_t len = 0;
	uint64_t seen;
	int r = ARCHIVE_EOF;

	while (!input->finished && len == 0) {
		r = archive_read_data_block(input->archive, &data, &len, &offset);
		if (r == ARCHIVE_EOF) {
			/*
			 * The filter stopped where it found no further member, but
			 * may have looked ahead: into a next buffer, or over the
			 * end of the file. Only zeros may follow what it consumed.
			 */
			input->finished = true;
			seen = (uint64_t)archive_filter_bytes(input->archive, -1);
			len = 0;
			r = expect_padding(input, err);
			if (r < 0)
				return r;
			if (input->zeros_from > seen)
				return thaw_damaged(err, "the compressed data is followed by other bytes");
		} else if (r != ARCHIVE_OK) {
			return archive_failure(input, err);
		}
	}
	*ret_data = data;
	*ret_len = len;
	return 0;
}

static void archive_input_free(struct thaw_input *base)
{
	struct archive_input *input = (struct archive_input *)base;

	if (input->archive)
		(void)archive_read_free(input->archive); /* reading: nothing to lose */
	(void)inflateEnd(&input->gzip); /* fails only for one that never began */
	ZSTD_freeDCtx(input->zstd);
	lzma_end(&input->xz);
	(void)safe_close(input->fd);
	free(input->bytes);
	free(input->block);
	free(input);
}

static int open_bzip2(struct archive_input *input, struct thaw_error *err)
{
	struct archive_entry *entry;

	input->archive = archive_read_new();
	if (!input->archive || archive_read_support_format_raw(input->archive) != ARCHIVE_OK)
		return thaw_oom(err);
	/* Built in or by an external program, which we do not want: ARCHIVE_WARN. */
	if (archive_read_support_filter_bzip2(input->archive) != ARCHIVE_OK)
		return thaw_refused(err, "this libarchive was built without %s", input->base.kind);
	if (archive_read_open(input->archive, input, NULL, archive_pull, NULL) != ARCHIVE_OK ||
	    archive_read_next_header(input->archive, &entry) != ARCHIVE_OK)
		return archive_failure(input, err);
	input->base.next = next_archive;
	return 0;
}

#define GZIP_ONLY 16 /* added to the window's bits: a gzip header and trailer, nothing else */

static int open_gzip(struct archive_input *input, struct thaw_error *err)
{
	if (inflateInit2(&input->gzip, MAX_WBITS + GZIP_ONLY) != Z_OK)
		return thaw_oom(err);
	input->base.next = next_gzip;
	return 0;
}

static int open_zstd(struct archive_input *input, struct thaw_error *err)
{
	input->zstd = ZSTD_createDCtx();
	if (!input->zstd ||
	    ZSTD_isError(ZSTD_DCtx_setParameter(input->zstd, ZSTD_d_windowLogMax,
						ZSTD_WINDOW_LOG_MAX)))
		return thaw_oom(err);
	input->base.next = next_zstd;
	return 0;
}

static int open_xz(struct archive_input *input, struct thaw_error *err)
{
	if (lzma_stream_decoder(&input->xz, XZ_MEMORY_MAX, LZMA_CONCATENATED) != LZMA_OK)
		return thaw_oom(err);
	input->base.next = next_xz;
	return 0;
}

static bool starts_with(const struct archive_input *input, const char *magic, size_t len)
{
	return input->byte_count >= len && memcmp(input->bytes, magic, len) == 0;
}

/* Is this the header of a tar member? Its checksum is right, and there is something in it. */
static bool is_tar_header(const uint8_t *block)
{
	unsigned sum = 8 * ' ', said = 0;

	for (unsigned i = 0; i < 512; i++)
		if (i < 148 || i >= 156)
			sum += block[i];
	for (unsigned i = 148; i < 156 && (block[i] == ' ' || (block[i] >= '0' && block[i] <= '7'));
	     i++)
		if (block[i] != ' ')
			said = said * 8 + (block[i] - '0');
	return sum == said && block[0] != 0;
}

static int recognise(struct archive_input *input, struct thaw_error *err)
{
	uint32_t first;
	int r = fill(input, err);

	if (r < 0)
		return r;
	if (input->ended)
		return thaw_damaged(err, "is empty; not a tar archive");
	first = input->byte_count >= 4 ? get_le32(input->bytes) : 0;
	if (starts_with(input, "\x1f\x8b", 2)) {
		input->base.kind = "tar.gz";
		return open_gzip(input, err);
	}
	if (starts_with(input, "BZh", 3)) {
		input->base.kind = "tar.bz2";
		return open_bzip2(input, err);
	}
	if (first == ZSTD_MAGICNUMBER ||
	    (first & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START) {
		input->base.kind = "tar.zst";
		return open_zstd(input, err);
	}
	if (starts_with(input, "\xfd" "7zXZ\0", 6)) {
		input->base.kind = "tar.xz";
		return open_xz(input, err);
	}
	if (starts_with(input, "PK\x03\x04", 4) || starts_with(input, "PK\x05\x06", 4))
		return thaw_refused(err, "a zip archive cannot be read from a pipe: "
					 "its directory is at its end");
	if (input->may_wait && starts_with(input, "#!", 2) &&
	    !(input->byte_count >= 512 && is_tar_header(input->bytes)))
		return thaw_refused(err, "a PEX cannot be read from a pipe: "
					 "the directory of its zip is at its end");
	input->base.kind = "tar";
	input->base.next = next_plain;
	return 0;
}

/*
 * A zip archive is found from its end, and may follow other bytes: a line for
 * the shell, a whole program. What begins as a tar or compressed file is that.
 */
static int is_zip(int fd, uint64_t size, struct thaw_error *err)
{
	uint8_t block[512];
	size_t len = size < sizeof(block) ? (size_t)size : sizeof(block);
	int r = pread_all(fd, block, len, 0);

	if (r < 0)
		return thaw_io(err, r, "cannot be read");
	if (len >= 4 && get_le32(block) == 0x04034b50)
		return 1;
	if (len == sizeof(block) && is_tar_header(block))
		return 0;
	if (len >= 6 && (memcmp(block, "\x1f\x8b", 2) == 0 || memcmp(block, "BZh", 3) == 0 ||
			 get_le32(block) == ZSTD_MAGICNUMBER ||
			 memcmp(block, "\xfd" "7zXZ\0", 6) == 0))
		return 0;
	return thaw_zip_probe(fd, size, err);
}

static int open_file(int fd, const struct thaw_input_options *options, struct thaw_error *err,
		     struct thaw_input **ret_input)
{
	_cleanup_(thaw_input_freep) struct thaw_input *base = NULL;
	struct archive_input *input = calloc(1, sizeof(*input));
	struct stat st;
	int r;

	if (!input) {
		(void)safe_close(fd);
		return thaw_oom(err);
	}
	base = &input->base;
	base->free = archive_input_free;
	input->fd = fd;
	input->stop = options->stop;
	input->stop_data = options->stop_data;
	input->xz = (lzma_stream)LZMA_STREAM_INIT;
	input->bytes = malloc(READ_SIZE);
	input->block = malloc(BLOCK_SIZE);
	if (!input->bytes || !input->block)
		return thaw_oom(err);
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		base->total = (uint64_t)st.st_size;
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL); /* a hint */
	} else {
		input->may_wait = true;
	}
	r = recognise(input, err);
	if (r < 0)
		return r;
	*ret_input = steal_ptr(base);
	return 0;
}

int thaw_input_open_with(const char *path, const struct thaw_input_options *given,
			 struct thaw_error *err, struct thaw_input **ret_input)
{
	const struct thaw_input_options options = given ? *given : (struct thaw_input_options){ 0 };
	_cleanup_(closep) int fd = -1;
	struct stat st;
	int r;

	fd = strcmp(path, "-") == 0 ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) :
				      open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return thaw_io(err, -errno, "cannot be opened");
	if (fstat(fd, &st) < 0)
		return thaw_io(err, -errno, "cannot be read");
	if (S_ISDIR(st.st_mode))
		return thaw_input_open_directory_with(steal_fd(&fd), &options, err, ret_input);
	if (S_ISREG(st.st_mode) && lseek(fd, 0, SEEK_CUR) == 0) {
		r = is_zip(fd, (uint64_t)st.st_size, err);
		if (r < 0)
			return r;
		if (r > 0)
			return thaw_input_open_zip(steal_fd(&fd), path, &options, err, ret_input);
	}
	return open_file(steal_fd(&fd), &options, err, ret_input);
}

struct thaw_input *thaw_input_free(struct thaw_input *input)
{
	if (input)
		input->free(input);
	return NULL;
}
