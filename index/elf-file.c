/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the headers and the dynamic section of an ELF file. */
#include "elf-file.h"

#include <elf.h>
#include <string.h>

#include "thaw/library.h"

struct view {
	uint8_t *data;
	size_t size;
	Elf64_Ehdr header;
};

/* Copied, never cast: a file may begin anywhere, and say anything. */
static bool get(const struct view *view, uint64_t offset, void *to, size_t len)
{
	if (offset > view->size || len > view->size - offset)
		return false;
	memcpy(to, view->data + offset, len);
	return true;
}

static bool program_header(const struct view *view, unsigned number,
			   Elf64_Phdr *ret_header)
{
	return number < view->header.e_phnum &&
	       get(view, view->header.e_phoff + (uint64_t)number * sizeof(*ret_header),
		   ret_header, sizeof(*ret_header));
}

/* Where in the file an address is. */
static bool offset_of(const struct view *view, uint64_t address, uint64_t *ret_offset)
{
	Elf64_Phdr header;

	for (unsigned i = 0; program_header(view, i, &header); i++) {
		if (header.p_type != PT_LOAD || address < header.p_vaddr ||
		    address - header.p_vaddr >= header.p_filesz)
			continue;
		*ret_offset = header.p_offset + (address - header.p_vaddr);
		return *ret_offset < view->size;
	}
	return false;
}

/* A string of the table at offset; NULL unless it ends within. */
static char *string_at(const struct view *view, uint64_t table, uint64_t size,
		       uint64_t offset)
{
	if (offset >= size || table + offset >= view->size)
		return NULL;
	size -= offset;
	if (size > view->size - (table + offset))
		size = view->size - (table + offset);
	return memchr(view->data + table + offset, 0, size)
		       ? (char *)view->data + table + offset
		       : NULL;
}

static bool read_dynamic(const struct view *view, const Elf64_Phdr *header,
			 struct elf_file *file)
{
	uint64_t table = 0, size = 0;
	bool have_table = false;
	Elf64_Dyn entry;

	for (uint64_t i = 0; i < header->p_filesz / sizeof(entry); i++) {
		if (!get(view, header->p_offset + i * sizeof(entry), &entry,
			 sizeof(entry)) ||
		    entry.d_tag == DT_NULL)
			break;
		if (entry.d_tag == DT_STRTAB)
			have_table = offset_of(view, entry.d_un.d_ptr, &table);
		else if (entry.d_tag == DT_STRSZ)
			size = entry.d_un.d_val;
	}
	if (!have_table)
		return false;
	for (uint64_t i = 0; i < header->p_filesz / sizeof(entry); i++) {
		if (!get(view, header->p_offset + i * sizeof(entry), &entry,
			 sizeof(entry)) ||
		    entry.d_tag == DT_NULL)
			break;
		if (entry.d_tag == DT_NEEDED && file->needed_count < ELF_NEEDED_MAX) {
			char *name = string_at(view, table, size, entry.d_un.d_val);

			if (name)
				file->needed[file->needed_count++] = name;
		} else if (entry.d_tag == DT_RUNPATH ||
			   (entry.d_tag == DT_RPATH && !file->runpath)) {
			file->runpath = string_at(view, table, size, entry.d_un.d_val);
		}
	}
	return true;
}

static bool read_header(struct view *view)
{
	return get(view, 0, &view->header, sizeof(view->header)) &&
	       memcmp(view->header.e_ident, ELFMAG, SELFMAG) == 0 &&
	       view->header.e_ident[EI_CLASS] == ELFCLASS64 &&
	       view->header.e_ident[EI_DATA] == ELFDATA2LSB &&
	       view->header.e_phentsize == sizeof(Elf64_Phdr);
}

bool elf_file_parse(uint8_t *data, size_t size, struct elf_file *ret_file)
{
	struct view view = { .data = data, .size = size };
	struct elf_file file = { 0 };
	Elf64_Phdr header;

	if (!read_header(&view))
		return false;
	for (unsigned i = 0; program_header(&view, i, &header); i++)
		if (header.p_type == PT_DYNAMIC && !read_dynamic(&view, &header, &file))
			return false;
	*ret_file = file;
	return true;
}

unsigned thaw_library_extents(const uint8_t *head, size_t len,
			      struct thaw_extent ret_extents[THAW_LIBRARY_EXTENTS])
{
	struct view view = { .data = (uint8_t *)head, .size = len }; /* only read here */
	bool code = false;
	unsigned count = 0;
	Elf64_Phdr header;

	if (!read_header(&view))
		return 0;
	for (unsigned i = 0; count < THAW_LIBRARY_EXTENTS && program_header(&view, i, &header);
	     i++) {
		if (header.p_type != PT_LOAD)
			continue;
		if (header.p_flags & PF_X)
			code = true; /* and what follows without being writable is constants */
		else if (!code || header.p_flags & PF_W)
			ret_extents[count++] = (struct thaw_extent){
				.offset = header.p_offset,
				.size = header.p_filesz,
			};
	}
	return count;
}
