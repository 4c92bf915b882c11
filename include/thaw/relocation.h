/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Relocations: the places in files where the path of an environment stands.
 *
 * Some files carry the path of the machine that built them. The index says
 * where (doc/format.md, "Section 5"); the files themselves stay as they were
 * packed. For a view at a prefix they are rendered: see thaw/layer.h.
 *
 * A site is an offset in a file and the number of a rule. A rule says what
 * stands there (the placeholder), and what is put in its place: the prefix of
 * the view followed by the rule's suffix. All are byte strings; none is
 * NUL-terminated, and a suffix may be empty. What happens around the place is the
 * rule's kind:
 *
 *	TEXT	the bytes behind it move; the file's size changes
 *	BINARY	it stands in a C string. The rest of the string moves, and zeros
 *		behind it are added or taken, so that what follows stays where it
 *		is: the file's size stays. The prefix and the suffix together
 *		must not be longer than the rule's room
 *	SHEBANG	the path of the interpreter, and possibly what follows it, in the
 *		"#!" line that the file begins with. Where the kernel cannot take
 *		the new line (white space, or too long), a "#!/bin/sh" line
 *		and the exec form that pip writes take its place. What runs the
 *		script must be a Python, whose string literal hides that form
 *	BYTECODE what stands there stays. The file is a .pyc that was compiled from
 *		its source as it is in the stream, and counts for that source at
 *		every prefix, once its CONSTANTs are replaced. The file's first
 *		site, at 0; the placeholder is its magic and flags
 *	CONSTANT at the site a marshalled string begins (marshal.h). Wherever the
 *		placeholder stands in it, it is replaced, and the string's type and
 *		length become what they must be; what follows moves
 *
 * BYTECODE and CONSTANT stand in files with no other kinds; see thaw/bytecode.h.
 */
#include <stddef.h>
#include <stdint.h>

#include "thaw/image.h"

enum thaw_relocation_kind {
	THAW_RELOCATION_TEXT = 1,
	THAW_RELOCATION_BINARY = 2,
	THAW_RELOCATION_SHEBANG = 3,
	THAW_RELOCATION_BYTECODE = 4,
	THAW_RELOCATION_CONSTANT = 5,
};

struct thaw_relocation_rule {
	enum thaw_relocation_kind kind;
	const char *placeholder; /* THAW_PLACEHOLDER_MIN to THAW_PLACEHOLDER_MAX bytes */
	size_t placeholder_len;
	/*
	 * At most THAW_SUFFIX_MAX bytes. SHEBANG: what follows the first blank in it
	 * is arguments of the interpreter.
	 */
	const char *suffix;
	size_t suffix_len;
	/*
	 * BINARY: bytes that prefix and suffix may have together, at least
	 * placeholder_len; a surplus stands behind each string as zeros, once for
	 * each site in it. Other kinds: 0.
	 */
	uint32_t room;
};

/* -- building, for the indexer -- */

struct thaw_relocations;

_must_check_ int thaw_relocations_new(struct thaw_relocations **ret_relocations); /* -ENOMEM */
struct thaw_relocations *thaw_relocations_free(struct thaw_relocations *relocations);
static inline void thaw_relocations_freep(struct thaw_relocations **relocations)
{
	thaw_relocations_free(*relocations);
}

/*
 * Add a site, in any order. ino is a regular file's, in the image that the
 * section is made for; rule is copied, and equal rules are stored once. Errors:
 * -EFBIG (limits of the format), -EINVAL (lengths, an impossible shebang),
 * -ENOMEM.
 */
_must_check_ int thaw_relocations_add(struct thaw_relocations *relocations, uint32_t ino,
				      uint64_t offset, const struct thaw_relocation_rule *rule,
				      struct thaw_error *err);
/* Sites added so far. */
size_t thaw_relocations_count(const struct thaw_relocations *relocations);
/*
 * The section, to be freed; NULL and 0 when there are no sites. Of sites that
 * overlap, the one that was added first stays. -ENOMEM, -EFBIG.
 */
_must_check_ int thaw_relocations_emit(struct thaw_relocations *relocations,
				       struct thaw_error *err, uint8_t **ret_section,
				       size_t *ret_size);
/*
 * Add all sites of another image, for an index that is written anew. map gives,
 * by old inode number, the new one, or 0 for files that are gone or replaced.
 */
_must_check_ int thaw_relocations_carry(struct thaw_relocations *relocations,
					const struct thaw_image *image, const uint32_t *map,
					struct thaw_error *err);

/* -- reading -- */

/* A file with sites. */
struct thaw_relocated {
	uint32_t ino;	/* a regular file's */
	uint32_t first; /* private */
	uint32_t sites; /* at least 1 */
};

struct thaw_site {
	uint64_t offset; /* in the file, where the placeholder begins; CONSTANT: its string */
	struct thaw_relocation_rule rule; /* points into the image */
};

/* How many files there are, in the order of their inode numbers, and sites in all of them. */
uint32_t thaw_image_relocated_count(const struct thaw_image *image);
uint64_t thaw_image_site_count(const struct thaw_image *image);
/* number < thaw_image_relocated_count() */
void thaw_image_relocated(const struct thaw_image *image, uint32_t number,
			  struct thaw_relocated *ret_file);
/* 0, or THAW_NOT_FOUND when this inode has no sites. */
_must_check_ int thaw_image_relocated_find(const struct thaw_image *image, uint32_t ino,
					   struct thaw_relocated *ret_file);
/* Site number `number` < file->sites of a file. They ascend and never overlap. */
void thaw_image_site(const struct thaw_image *image, const struct thaw_relocated *file,
		     uint32_t number, struct thaw_site *ret_site);
