/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking marshalled code. Only what compilers put into modules is known: any
 * other type ends the walk, and so does a reference to what has not come yet.
 */
#include "marshal.h"

#include "util/bytes.h"

/* CPython's own bound (MAX_MARSHAL_STACK_DEPTH) is 2,000. */
#define DEPTH_MAX 1000u

/* How a code object is laid out. */
struct layout {
	uint16_t magic;
	uint8_t numbers; /* 32-bit fields in front */
	uint8_t tail;	 /* objects behind the first line's number */
};

/* argcount, ..., flags; eight objects; the first line's number; line tables. */
static const struct layout layouts[] = {
	{ 3413, 6, 1 }, /* 3.8 */
	{ 3425, 6, 1 }, /* 3.9 */
	{ 3439, 6, 1 }, /* 3.10 */
	{ 3495, 5, 2 }, /* 3.11: no nlocals, an exception table */
	{ 3531, 5, 2 }, /* 3.12 */
	{ 3571, 5, 2 }, /* 3.13 */
	{ 3627, 5, 2 }, /* 3.14 */
};
#define CODE_OBJECTS 8 /* in all of them, and the constants are the second */
#define CODE_CONSTS  1

struct walk {
	const uint8_t *data;
	size_t size, at;
	uint32_t refs; /* objects so far that can be referred to */
	unsigned depth;
	const struct layout *layout;
	marshal_string_fn *fn;
	void *userdata;
};

bool marshal_string(const uint8_t *data, size_t size, size_t at,
		    struct marshal_string *ret_string)
{
	struct marshal_string string;
	size_t head;

	if (!range_inside(at, 2, size))
		return false;
	string.type = data[at] & (uint8_t)~MARSHAL_REF;
	string.ref = (data[at] & MARSHAL_REF) != 0;
	switch (string.type) {
	case MARSHAL_SHORT_ASCII:
	case MARSHAL_SHORT_ASCII_INTERNED:
		head = 2;
		string.len = data[at + 1];
		break;
	case MARSHAL_BYTES:
	case MARSHAL_ASCII:
	case MARSHAL_UNICODE:
	case MARSHAL_ASCII_INTERNED:
	case MARSHAL_INTERNED:
		head = 5;
		if (!range_inside(at, head, size))
			return false;
		string.len = get_le32(data + at + 1);
		break;
	default:
		return false;
	}
	string.text = at + head;
	if (string.len > INT32_MAX || !range_inside(string.text, string.len, size))
		return false;
	*ret_string = string;
	return true;
}

static int skip(struct walk *walk, uint64_t len)
{
	if (!range_inside(walk->at, len, walk->size))
		return THAW_NOT_FOUND;
	walk->at += (size_t)len;
	return 0;
}

static int get_number(struct walk *walk, uint32_t *ret_number)
{
	size_t at = walk->at;
	int r = skip(walk, 4);

	if (r == 0)
		*ret_number = get_le32(walk->data + at);
	return r;
}

static int walk_object(struct walk *walk, bool constant);

static int walk_several(struct walk *walk, uint32_t count, bool constant)
{
	int r = 0;

	/* Each takes a byte at least: a wrong count ends soon. */
	for (uint32_t i = 0; r == 0 && i < count; i++)
		r = walk_object(walk, constant);
	return r;
}

static int walk_code(struct walk *walk)
{
	int r = skip(walk, 4u * walk->layout->numbers);

	for (unsigned i = 0; r == 0 && i < CODE_OBJECTS; i++)
		r = walk_object(walk, i == CODE_CONSTS);
	if (r == 0)
		r = skip(walk, 4);
	return r == 0 ? walk_several(walk, walk->layout->tail, false) : r;
}

/* An integer of any size: how many digits of 15 bits, negative for negative ones. */
static int walk_long(struct walk *walk)
{
	uint32_t number = 0;
	int r = get_number(walk, &number);
	int64_t digits = (int32_t)number;

	return r == 0 ? skip(walk, 2 * (uint64_t)(digits < 0 ? -digits : digits)) : r;
}

static int walk_string(struct walk *walk, bool constant)
{
	struct marshal_string string;
	size_t at = walk->at;
	int r;

	if (!marshal_string(walk->data, walk->size, at, &string))
		return THAW_NOT_FOUND;
	r = walk->fn(walk->userdata, at, &string, constant);
	walk->at = string.text + string.len;
	return r;
}

static int walk_contents(struct walk *walk, uint8_t type, bool constant)
{
	uint32_t number = 0;
	int r;

	switch (type) {
	case 'i': /* int of 32 bits */
		return skip(walk, 4);
	case 'g': /* float */
		return skip(walk, 8);
	case 'y': /* complex */
		return skip(walk, 16);
	case 'l':
		return walk_long(walk);
	case ')': /* short tuple */
		if (walk->at == walk->size)
			return THAW_NOT_FOUND;
		number = walk->data[walk->at++];
		return walk_several(walk, number, constant);
	case '(': /* tuple */
	case '>': /* frozenset */
		r = get_number(walk, &number);
		return r == 0 ? walk_several(walk, number, constant) : r;
	case ':': /* slice, since 3.14 */
		return walk_several(walk, 3, constant);
	case 'c':
		return walk_code(walk);
	default:
		return THAW_NOT_FOUND;
	}
}

static int walk_object(struct walk *walk, bool constant)
{
	struct marshal_string string;
	uint32_t number = 0;
	uint8_t type;
	bool ref;
	int r;

	if (walk->at == walk->size || walk->depth == DEPTH_MAX)
		return THAW_NOT_FOUND;
	type = walk->data[walk->at];
	switch (type) {
	case 'N': /* None, True, False, Ellipsis: never referred to */
	case 'T':
	case 'F':
	case '.':
		walk->at++;
		return 0;
	case 'r':
		walk->at++;
		r = get_number(walk, &number);
		return r == 0 && number >= walk->refs ? THAW_NOT_FOUND : r;
	default:
		break;
	}
	ref = (type & MARSHAL_REF) != 0;
	walk->refs += ref;
	if (marshal_string(walk->data, walk->size, walk->at, &string))
		return walk_string(walk, constant);
	walk->at++;
	walk->depth++;
	r = walk_contents(walk, type & (uint8_t)~MARSHAL_REF, constant);
	walk->depth--;
	return r;
}

static const struct layout *find_layout(const uint8_t *pyc)
{
	for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
		if (get_le16(pyc) == layouts[i].magic && pyc[2] == '\r' && pyc[3] == '\n')
			return &layouts[i];
	return NULL;
}

int marshal_walk(const uint8_t *pyc, size_t size, marshal_string_fn *fn, void *userdata)
{
	struct walk walk = {
		.data = pyc,
		.size = size,
		.at = PYC_HEADER,
		.fn = fn,
		.userdata = userdata,
	};
	int r;

	if (size <= PYC_HEADER || (pyc[PYC_HEADER] & (uint8_t)~MARSHAL_REF) != 'c')
		return THAW_NOT_FOUND;
	walk.layout = find_layout(pyc);
	if (!walk.layout)
		return THAW_NOT_FOUND;
	r = walk_object(&walk, false);
	return r == 0 && walk.at != size ? THAW_NOT_FOUND : r;
}
