/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The activate scripts of a virtual environment that thaw puts together. The path
 * in them is a placeholder, which relocation finds as in those of any other venv
 * and puts the view's in its place: so it stands in quotes, as a word of its own.
 */
#include <string.h>

#include "wheel.h"

#define HOME "/thaw/environment"

static const char activate_sh[] =
	"# To be sourced by sh, bash or zsh; `deactivate` takes it back.\n"
	"deactivate() {\n"
	"    if [ -n \"${_OLD_VIRTUAL_PATH+set}\" ]; then\n"
	"        PATH=$_OLD_VIRTUAL_PATH\n"
	"        export PATH\n"
	"        unset _OLD_VIRTUAL_PATH\n"
	"    fi\n"
	"    if [ -n \"${_OLD_VIRTUAL_PYTHONHOME+set}\" ]; then\n"
	"        PYTHONHOME=$_OLD_VIRTUAL_PYTHONHOME\n"
	"        export PYTHONHOME\n"
	"        unset _OLD_VIRTUAL_PYTHONHOME\n"
	"    fi\n"
	"    if [ -n \"${_OLD_VIRTUAL_PS1+set}\" ]; then\n"
	"        PS1=$_OLD_VIRTUAL_PS1\n"
	"        unset _OLD_VIRTUAL_PS1\n"
	"    fi\n"
	"    unset VIRTUAL_ENV VIRTUAL_ENV_PROMPT\n"
	"    hash -r 2> /dev/null || true\n"
	"    if [ \"${1:-}\" != nondestructive ]; then\n"
	"        unset -f deactivate\n"
	"    fi\n"
	"}\n"
	"\n"
	"deactivate nondestructive\n"
	"VIRTUAL_ENV='" HOME "'\n"
	"export VIRTUAL_ENV\n"
	"_OLD_VIRTUAL_PATH=${PATH:-}\n"
	"PATH=$VIRTUAL_ENV/bin${PATH:+:$PATH}\n"
	"export PATH\n"
	"VIRTUAL_ENV_PROMPT=${VIRTUAL_ENV##*/}\n"
	"export VIRTUAL_ENV_PROMPT\n"
	"if [ -n \"${PYTHONHOME:-}\" ]; then\n"
	"    _OLD_VIRTUAL_PYTHONHOME=$PYTHONHOME\n"
	"    unset PYTHONHOME\n"
	"fi\n"
	"if [ -z \"${VIRTUAL_ENV_DISABLE_PROMPT:-}\" ] && [ -n \"${PS1:-}\" ]; then\n"
	"    _OLD_VIRTUAL_PS1=$PS1\n"
	"    PS1=\"($VIRTUAL_ENV_PROMPT) $PS1\"\n"
	"fi\n"
	"hash -r 2> /dev/null || true\n";

static const char activate_csh[] =
	"# To be sourced by csh or tcsh; `deactivate` takes it back.\n"
	"alias deactivate 'test $?_OLD_VIRTUAL_PATH != 0 && "
	"setenv PATH \"$_OLD_VIRTUAL_PATH\" && unset _OLD_VIRTUAL_PATH; "
	"test $?_OLD_VIRTUAL_PROMPT != 0 && "
	"set prompt=\"$_OLD_VIRTUAL_PROMPT\" && unset _OLD_VIRTUAL_PROMPT; "
	"unsetenv VIRTUAL_ENV; unsetenv VIRTUAL_ENV_PROMPT; rehash; "
	"test \"\\!:*\" != nondestructive && unalias deactivate'\n"
	"\n"
	"deactivate nondestructive\n"
	"setenv VIRTUAL_ENV '" HOME "'\n"
	"set _OLD_VIRTUAL_PATH=\"$PATH\"\n"
	"setenv PATH \"${VIRTUAL_ENV}/bin:${PATH}\"\n"
	"setenv VIRTUAL_ENV_PROMPT \"$VIRTUAL_ENV:t\"\n"
	"if (! $?VIRTUAL_ENV_DISABLE_PROMPT && $?prompt) then\n"
	"    set _OLD_VIRTUAL_PROMPT=\"$prompt\"\n"
	"    set prompt=\"(${VIRTUAL_ENV_PROMPT}) $prompt\"\n"
	"endif\n"
	"rehash\n";

static const char activate_fish[] =
	"# To be sourced by fish; `deactivate` takes it back.\n"
	"function deactivate\n"
	"    if set -q _OLD_VIRTUAL_PATH\n"
	"        set -gx PATH $_OLD_VIRTUAL_PATH\n"
	"        set -e _OLD_VIRTUAL_PATH\n"
	"    end\n"
	"    if set -q _OLD_VIRTUAL_PYTHONHOME\n"
	"        set -gx PYTHONHOME $_OLD_VIRTUAL_PYTHONHOME\n"
	"        set -e _OLD_VIRTUAL_PYTHONHOME\n"
	"    end\n"
	"    set -e VIRTUAL_ENV\n"
	"    set -e VIRTUAL_ENV_PROMPT\n"
	"    if test \"$argv[1]\" != nondestructive\n"
	"        functions -e deactivate\n"
	"    end\n"
	"end\n"
	"\n"
	"deactivate nondestructive\n"
	"set -gx VIRTUAL_ENV '" HOME "'\n"
	"set -g _OLD_VIRTUAL_PATH $PATH\n"
	"set -gx PATH $VIRTUAL_ENV/bin $PATH\n"
	"set -gx VIRTUAL_ENV_PROMPT (basename $VIRTUAL_ENV)\n"
	"if set -q PYTHONHOME\n"
	"    set -g _OLD_VIRTUAL_PYTHONHOME $PYTHONHOME\n"
	"    set -e PYTHONHOME\n"
	"end\n";

int thaw_wheel_tree_activate(struct thaw_wheel_tree *tree, struct thaw_error *err)
{
	static const struct {
		const char *path, *text;
	} scripts[] = {
		{ "bin/activate", activate_sh },
		{ "bin/activate.csh", activate_csh },
		{ "bin/activate.fish", activate_fish },
	};
	int r = thaw_gather_origin(tree->gather, "thaw", err);

	for (size_t i = 0; r == 0 && i < sizeof(scripts) / sizeof(scripts[0]); i++)
		/* A wheel may have its own: it would have replaced a venv's. */
		if (!thaw_gather_has(tree->gather, scripts[i].path))
			r = thaw_gather_bytes(tree->gather, scripts[i].path,
					      scripts[i].text, strlen(scripts[i].text),
					      0644, err);
	return r;
}
