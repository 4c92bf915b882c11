/* SPDX-License-Identifier: Apache-2.0 */
/* What loading a library reads of it. */
#include "check.h"

#include <elf.h>

#include "thaw/library.h"

#define HEAD 4096u

struct segment {
	uint32_t type, flags;
	uint64_t offset, size;
};

/* As linkers of today lay libraries out: tables, code, constants, what is written to. */
static const struct segment usual[] = {
	{ PT_LOAD, PF_R, 0, 1000 },	       { PT_LOAD, PF_R | PF_X, 4096, 20000 },
	{ PT_LOAD, PF_R, 28672, 3000 },	       { PT_LOAD, PF_R | PF_W, 32768, 700 },
	{ PT_GNU_RELRO, PF_R, 32768, 500 },
};

static void build(uint8_t *head, const struct segment *segments, unsigned count)
{
	Elf64_Ehdr header = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB },
		.e_phoff = sizeof(header),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = (uint16_t)count,
	};

	memset(head, 0, HEAD);
	memcpy(head, &header, sizeof(header));
	for (unsigned i = 0; i < count; i++) {
		Elf64_Phdr program = {
			.p_type = segments[i].type,
			.p_flags = segments[i].flags,
			.p_offset = segments[i].offset,
			.p_filesz = segments[i].size,
		};

		memcpy(head + sizeof(header) + i * sizeof(program), &program, sizeof(program));
	}
}

static void tables_and_what_is_written_to(void **state)
{
	struct thaw_extent extents[THAW_LIBRARY_EXTENTS];
	uint8_t head[HEAD];

	build(head, usual, ARRAY_SIZE(usual));
	assert_int_equal(thaw_library_extents(head, HEAD, extents), 2);
	assert_int_equal(extents[0].offset, 0);
	assert_int_equal(extents[0].size, 1000);
	assert_int_equal(extents[1].offset, 32768);
	assert_int_equal(extents[1].size, 700);
}

/* Older linkers put tables and code into one segment: which part is which, it does not say. */
static void tables_within_code(void **state)
{
	static const struct segment segments[] = {
		{ PT_LOAD, PF_R | PF_X, 0, 20000 },
		{ PT_LOAD, PF_R | PF_W, 20480, 700 },
	};
	struct thaw_extent extents[THAW_LIBRARY_EXTENTS];
	uint8_t head[HEAD];

	build(head, segments, ARRAY_SIZE(segments));
	assert_int_equal(thaw_library_extents(head, HEAD, extents), 1);
	assert_int_equal(extents[0].offset, 20480);
}

static void more_than_there_is_room_for(void **state)
{
	struct segment segments[THAW_LIBRARY_EXTENTS + 5];
	struct thaw_extent extents[THAW_LIBRARY_EXTENTS];
	uint8_t head[HEAD];

	for (unsigned i = 0; i < ARRAY_SIZE(segments); i++)
		segments[i] = (struct segment){ PT_LOAD, PF_R | PF_W, i, 1 };
	build(head, segments, ARRAY_SIZE(segments));
	assert_int_equal(thaw_library_extents(head, HEAD, extents), THAW_LIBRARY_EXTENTS);
}

static void other_files(void **state)
{
	struct thaw_extent extents[THAW_LIBRARY_EXTENTS];
	uint8_t head[HEAD];

	build(head, usual, ARRAY_SIZE(usual));
	/* Cut at each byte: what is there counts, up to the first that is not. */
	for (size_t len = 0; len < HEAD; len++) {
		size_t whole = len < sizeof(Elf64_Ehdr) ? 0 :
							   (len - sizeof(Elf64_Ehdr)) / sizeof(Elf64_Phdr);

		assert_int_equal(thaw_library_extents(head, len, extents),
				 whole >= 4 ? 2 : whole >= 1 ? 1 : 0);
	}
	for (unsigned i = 0; i < 6; i++) {
		build(head, usual, ARRAY_SIZE(usual));
		head[i] ^= 0x40; /* not ELF, of 32 bits, of the other byte order */
		assert_int_equal(thaw_library_extents(head, HEAD, extents), 0);
	}
	build(head, usual, ARRAY_SIZE(usual));
	memset(head + offsetof(Elf64_Ehdr, e_phoff), 0xff, 8); /* so that sums overflow */
	assert_int_equal(thaw_library_extents(head, HEAD, extents), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_and_what_is_written_to),
		cmocka_unit_test(tables_within_code),
		cmocka_unit_test(more_than_there_is_room_for),
		cmocka_unit_test(other_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
