# SPDX-License-Identifier: Apache-2.0
# Lines of text as a string literal of C. A file, since meson turns backslashes of a command round.
s/[\"]/\\&/g
s/.*/"&\\n"/
