/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Only in static executables. Whoever writes one format of libarchive links the
 * writers of all formats: the one for xar alone needs libxml2, which needs ICU
 * and C++; those for zip and mtree need nettle. We write none of these. With the
 * functions defined here, the linker takes neither the writers nor what they need.
 * This must be an object that is always linked: a library is searched too late.
 */
#include <archive.h>

static int not_linked(struct archive *archive)
{
	archive_set_error(archive, -1, "this format is not part of a static executable");
	return ARCHIVE_FATAL;
}

int archive_write_set_format_mtree(struct archive *archive)
{
	return not_linked(archive);
}

int archive_write_set_format_mtree_classic(struct archive *archive)
{
	return not_linked(archive);
}

int archive_write_set_format_xar(struct archive *archive)
{
	return not_linked(archive);
}

int archive_write_set_format_zip(struct archive *archive)
{
	return not_linked(archive);
}
