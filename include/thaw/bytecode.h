/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Bytecode of relocated sources: compiled once from a source as it is in the
 * stream, valid in every view.
 *
 * A source that carries the environment's own path has another text in each
 * view. What the path's places in it become, when it is compiled, is mostly a
 * part of a string constant: so the compiled file is relocated like others, by
 * sites at the marshalled strings that hold the path (kinds BYTECODE and
 * CONSTANT of thaw/relocation.h). Whether that gives what compiling the rendered
 * source would give is found out for each file, by doing both
 * (thaw_compile()). Positions of columns would depend on the path's length:
 * such files are compiled without them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "thaw/image.h"
#include "thaw/reader.h"
#include "thaw/relocation.h"

/*
 * A source, or with a prefix the source as compilers see it at that: paths are
 * replaced, a first line stays as it is (to them it is a comment; where it becomes
 * three, bytecode does not count). To be freed. 0; THAW_NOT_FOUND: its
 * bytecode cannot be relocated, for its size or the kind of its sites; -EBADMSG,
 * -ENOMEM, errors of the reader. ino is a relocated file's.
 */
_must_check_ int thaw_bytecode_source(const struct thaw_image *image,
				      struct thaw_reader *reader, uint32_t ino,
				      const char *prefix, struct thaw_error *err,
				      char **ret_text, size_t *ret_size);

/*
 * The sites of a .pyc that was compiled from a relocated source as it is in the
 * stream: the first says that it was. All in one piece of memory, which does not
 * refer to any other; to be freed. 0; THAW_NOT_FOUND when it is no unchecked .pyc
 * of a Python that we know, or the path stands in it where it cannot be replaced;
 * -ENOMEM.
 */
_must_check_ int thaw_bytecode_sites(const struct thaw_image *image, uint32_t source,
				     const uint8_t *pyc, size_t size,
				     struct thaw_site **ret_sites, size_t *ret_count);

/* Sites: a file's in an image, or an array. */
struct thaw_bytecode_sites {
	const struct thaw_image *image; /* NULL: the array */
	struct thaw_relocated file;
	const struct thaw_site *array;
	size_t count;
};
/*
 * The .pyc as it is at a prefix; to be freed. -EBADMSG: the sites do not fit it;
 * -ENOMEM.
 */
_must_check_ int thaw_bytecode_render(const uint8_t *pyc, size_t size,
				      const struct thaw_bytecode_sites *sites,
				      const char *prefix, uint8_t **ret_data,
				      size_t *ret_size);

/* Is a relocated file bytecode of this kind? */
bool thaw_is_bytecode(const struct thaw_image *image, const struct thaw_relocated *file);

/*
 * May bytecode be rendered for this prefix? Not where a literal in a source would mean
 * something else than its text: with quotes, backslashes, braces, "%", control
 * characters, or bytes that are not UTF-8.
 */
bool thaw_bytecode_prefix(const char *prefix);
