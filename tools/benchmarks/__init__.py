# SPDX-License-Identifier: Apache-2.0
"""The benchmarks behind tools/bench.

machine   caches, noise, CPU time and page cache of this machine
spawn     one command, timed
rows      rows of a table, measured interleaved in rotated order
stats     medians and spread
output    Markdown and JSON
chart     horizontal bars as SVG and PNG
material  the environment and what is made from it once: archives, images
mounts    mounting with thaw and with what else there is

Every other module is one subcommand: it has HELP, add_options(parser) and tables(bench).
"""
