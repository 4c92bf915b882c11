/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The image format: magic numbers, record layouts, limits. doc/format.md is the
 * specification; this header is its transcription. Everything is little-endian.
 *
 * Order of a file:
 *
 *	[other bytes]           e.g. an executable; not part of the image
 *	stream frames           zstd frames; together they decompress to the tar stream
 *	annex part              skippable frame: zstd frames with files that thaw added
 *	index part              skippable frame: one zstd frame with the index
 *	warm parts              skippable frames, one a warm set
 *	parts table             skippable frame
 *	footer                  skippable frame, the last THAW_FOOTER_SIZE bytes
 *
 * Records are decoded field by field (bytes.h), never by casting: the structs
 * of other headers are ours, these offsets are the file's.
 */

/* A zstd skippable frame: this magic, a 32-bit length, that many bytes. */
#define THAW_SKIPPABLE_MAGIC 0x184D2A57u
#define THAW_SKIPPABLE_HEADER 8u

/* Footer: skippable header, magic, version, table length, identity, reserved. */
#define THAW_FOOTER_SIZE 64u
#define THAW_FOOTER_MAGIC "\x89thaw\r\n\x1a" /* 8 bytes; the PNG trick: shows text-mode damage */
#define THAW_FOOTER_OFF_MAGIC 8u
#define THAW_FOOTER_OFF_VERSION 16u
#define THAW_FOOTER_OFF_TABLE_SIZE 20u
#define THAW_FOOTER_OFF_IDENTITY 24u
#define THAW_FOOTER_OFF_RESERVED 56u /* 8 bytes, zero */
#define THAW_VERSION 1u

/* Parts table: a header, then one entry a part, then the names of required features. */
#define THAW_TABLE_MAGIC 0x54574854u /* "THWT" */
#define THAW_TABLE_HEADER 40u
#define THAW_TABLE_OFF_COUNT 4u	      /* u32 entries */
#define THAW_TABLE_OFF_IMAGE_SIZE 8u  /* u64, footer included */
#define THAW_TABLE_OFF_COMPAT 16u     /* u64 feature bits that a reader may ignore */
#define THAW_TABLE_OFF_INCOMPAT 24u   /* u64 feature bits that a reader must know */
#define THAW_TABLE_OFF_NAMES_SIZE 32u /* u32 bytes of feature names */
#define THAW_TABLE_OFF_RESERVED 36u   /* u32, zero */

#define THAW_PART_ENTRY 96u
#define THAW_PART_OFF_TYPE 0u	  /* u32 enum thaw_part_type */
#define THAW_PART_OFF_HEAD 4u /* u32 warm set: bytes of its head; otherwise zero */
#define THAW_PART_OFF_OFFSET 8u	  /* u64 of the payload, from the image's start */
#define THAW_PART_OFF_SIZE 16u	  /* u64 payload bytes as stored */
#define THAW_PART_OFF_RAW_SIZE 24u /* u64 payload bytes when decompressed */
#define THAW_PART_OFF_DIGEST 32u   /* SHA-256 as stored: index, warm set's head; else zero */
#define THAW_PART_OFF_NAME 64u	   /* 32 bytes, NUL-padded; warm sets only */
#define THAW_PART_NAME_MAX 31u

enum thaw_part_type {
	THAW_PART_STREAM = 1,
	THAW_PART_ANNEX = 2,
	THAW_PART_INDEX = 3,
	THAW_PART_WARM = 4,
};

/* Incompatible features: bit numbers. None is defined by version 1. */
#define THAW_INCOMPAT_KNOWN 0ull

/* Index: header, section table, sections (8-byte aligned, ascending type, no gaps). */
#define THAW_INDEX_MAGIC 0x58574854u /* "THWX" */
#define THAW_INDEX_HEADER 64u
#define THAW_INDEX_OFF_SECTIONS 4u	 /* u32 count */
#define THAW_INDEX_OFF_STREAM_SIZE 8u	 /* u64 */
#define THAW_INDEX_OFF_STREAM_DIGEST 16u /* SHA-256 of the decompressed stream */
#define THAW_INDEX_OFF_ANNEX_SIZE 48u	 /* u64 */
#define THAW_INDEX_OFF_RESERVED 56u	 /* u64, zero */

#define THAW_SECTION_ENTRY 24u
#define THAW_SECTION_OFF_TYPE 0u   /* u32 enum thaw_section_type */
#define THAW_SECTION_OFF_FLAGS 4u  /* u32: bit 0 = a reader must know this type */
#define THAW_SECTION_OFF_OFFSET 8u /* u64 from the index's start */
#define THAW_SECTION_OFF_SIZE 16u  /* u64 */
#define THAW_SECTION_REQUIRED 1u

enum thaw_section_type {
	THAW_SECTION_INODES = 1,
	THAW_SECTION_STRINGS = 2,
	THAW_SECTION_FRAMES = 3,
	THAW_SECTION_META = 4,
	THAW_SECTION_RELOCATIONS = 5,
};

/*
 * Inode record. Record 0 is all zero (inode number 0 means "none" to kernels),
 * record 1 is the root (FUSE's root is 1): a record's number is its inode number.
 */
#define THAW_INODE_SIZE 40u
#define THAW_INODE_OFF_NAME 0u	    /* u32 offset in strings */
#define THAW_INODE_OFF_NAME_LEN 4u  /* u8 */
#define THAW_INODE_OFF_TYPE 5u	    /* u8 enum thaw_inode_type */
#define THAW_INODE_OFF_MODE 6u	    /* u16 permission bits */
#define THAW_INODE_OFF_MTIME 8u	    /* u32 seconds since 1970 */
#define THAW_INODE_OFF_PARENT 12u   /* u32 record */
#define THAW_INODE_OFF_NLINK 16u    /* u32 */
#define THAW_INODE_OFF_RESERVED 20u /* u32, zero */
#define THAW_INODE_OFF_SIZE 24u	    /* u64 bytes; directory: children; hard link: 0 */
#define THAW_INODE_OFF_DATA 32u	    /* u64 see enum thaw_inode_type */
#define THAW_ROOT 1u

enum thaw_inode_type {
	THAW_DIRECTORY = 1, /* data: record of the first child */
	THAW_REGULAR = 2,   /* data: offset in the data space */
	THAW_SYMLINK = 3,   /* data: offset of the target in strings */
	THAW_HARDLINK = 4,  /* data: record of the file; a further name of it */
};

/*
 * Frame record. Data space = the stream, then the annex: frame by frame, without
 * gaps. Frames never cross from one to the other.
 */
#define THAW_FRAME_SIZE 56u
#define THAW_FRAME_OFF_DATA 0u	 /* u64 offset of its first byte in the data space */
#define THAW_FRAME_OFF_FILE 8u	 /* u64 offset of the frame from the image's start */
#define THAW_FRAME_OFF_CSIZE 16u /* u32 bytes as stored */
#define THAW_FRAME_OFF_USIZE 20u /* u32 bytes when decompressed */
#define THAW_FRAME_OFF_DIGEST 24u /* SHA-256 of the bytes as stored */

/*
 * Relocations: header, rules, files, sites, strings. A file's sites lie side by
 * side, and begin where those of the file before it end.
 */
#define THAW_RELOCATIONS_HEADER 16u
#define THAW_RELOCATIONS_OFF_RULES 0u	/* u32 */
#define THAW_RELOCATIONS_OFF_FILES 4u	/* u32 */
#define THAW_RELOCATIONS_OFF_SITES 8u	/* u32 */
#define THAW_RELOCATIONS_OFF_STRINGS 12u /* u32 bytes */

#define THAW_RULE_SIZE 24u
#define THAW_RULE_OFF_KIND 0u		 /* u32 enum thaw_relocation_kind */
#define THAW_RULE_OFF_PLACEHOLDER 4u	 /* u32 offset in the section's strings */
#define THAW_RULE_OFF_PLACEHOLDER_LEN 8u /* u32 */
#define THAW_RULE_OFF_SUFFIX 12u	 /* u32 offset in the section's strings */
#define THAW_RULE_OFF_SUFFIX_LEN 16u	 /* u32 */
#define THAW_RULE_OFF_ROOM 20u		 /* u32 BINARY: bytes for prefix and suffix; else zero */

#define THAW_RELOCATED_SIZE 12u
#define THAW_RELOCATED_OFF_INO 0u   /* u32 a regular file's; ascending */
#define THAW_RELOCATED_OFF_FIRST 4u /* u32 its first site */
#define THAW_RELOCATED_OFF_SITES 8u /* u32 at least 1 */

#define THAW_SITE_SIZE 16u
#define THAW_SITE_OFF_OFFSET 0u	   /* u64 in the file; ascending, not overlapping */
#define THAW_SITE_OFF_RULE 8u	   /* u32 */
#define THAW_SITE_OFF_RESERVED 12u /* u32, zero */

/* Limits, each with its reason. */
#define THAW_PLACEHOLDER_MIN 2u	   /* one byte would be found everywhere */
#define THAW_PLACEHOLDER_MAX 8192u /* a path, or the lines with which a script begins */
#define THAW_SUFFIX_MAX 4095u	   /* a path and arguments */
#define THAW_SHEBANG_LINE_MAX 127u /* "#!" and newline included: what pip allows itself */
#define THAW_BYTECODE_HEAD 8u	   /* of a .pyc: PEP 552's magic and flags */
#define THAW_BYTECODE_SIZE_MAX (64u << 20) /* a .pyc is relocated in memory; none is near it */
#define THAW_RULES_MAX 16384u	   /* conda packages have one each, so hundreds */
#define THAW_SITES_MAX (1u << 22)  /* 64 MiB of records; a large environment has 110 */
#define THAW_NAME_MAX 255u  /* NAME_MAX of Linux: longer names cannot be looked up */
#define THAW_PATH_MAX 4095u /* PATH_MAX less the NUL; bounds depth to 2,048 as well */
#define THAW_FRAME_USIZE_MIN 4096u     /* pages are the unit of reading */
#define THAW_FRAME_USIZE_MAX (16u << 20) /* bounds a reader's memory per thread */
#define THAW_INDEX_RAW_MAX (3ull << 30) /* offsets in strings are 32 bits; 4,294,967,295 is the zstd limit */
#define THAW_INDEX_RATIO_MAX 1000u      /* raw size against stored size: refuse a bomb before allocating */
#define THAW_INODES_MAX (1u << 26)      /* 64 Mi files: 2.5 GiB of records */
#define THAW_PARTS_MAX 64u	       /* 60 warm sets; keeps the table under 8 KiB */
#define THAW_META_MAX (4u << 20)       /* JSON about the image, parsed by commands only */
#define THAW_DATA_MAX (1ull << 46)     /* 64 TiB: sums of two offsets cannot wrap */

/*
 * A warm set's payload: its head (one zstd frame), then its frames. The head,
 * decompressed: header, frame records, operations, strings.
 */
#define THAW_WARM_MAGIC 0x57574854u /* "THWW" */
#define THAW_WARM_HEADER 24u
#define THAW_WARM_OFF_FRAMES 4u	   /* u32 */
#define THAW_WARM_OFF_OPS 8u	   /* u32 */
#define THAW_WARM_OFF_STRINGS 12u  /* u32 bytes */
#define THAW_WARM_OFF_RESERVED 16u /* u64, zero */

#define THAW_WARM_FRAME 48u
#define THAW_WARM_FRAME_OFF_OFFSET 0u /* u64 from the head's end */
#define THAW_WARM_FRAME_OFF_CSIZE 8u   /* u32 */
#define THAW_WARM_FRAME_OFF_USIZE 12u  /* u32 */
#define THAW_WARM_FRAME_OFF_DIGEST 16u

#define THAW_WARM_OP 16u
#define THAW_WARM_OP_OFF_KIND 0u  /* u8 enum thaw_warm_kind */
#define THAW_WARM_OP_OFF_LEN 1u	  /* u8 LOOK: bytes of the name; otherwise zero */
#define THAW_WARM_OP_OFF_RESERVED 2u /* u16, zero */
#define THAW_WARM_OP_OFF_INO 4u	  /* u32 */
#define THAW_WARM_OP_OFF_A 8u	  /* u32 PAGES: first page; LOOK: name's offset in strings */
#define THAW_WARM_OP_OFF_B 12u	  /* u32 PAGES: pages */

#define THAW_WARM_HEAD_RAW_MAX (256u << 20) /* 16 million operations */
