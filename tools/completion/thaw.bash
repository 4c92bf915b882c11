# SPDX-License-Identifier: Apache-2.0
# bash completion for thaw

_thaw()
{
	local cur prev words cword
	_init_completion || return

	local commands="pack mount umount ls cat info diff verify extract help"
	if ((cword == 1)); then
		mapfile -t COMPREPLY < <(compgen -W "$commands --help --version" -- "$cur")
		return
	fi

	case $prev in
	--level | --frame-size | --threads | --max-bytes | --max-entries | --max-ratio | --cache-size)
		return
		;;
	-o | --output | --options)
		if [[ ${words[1]} == pack ]]; then
			_filedir
		fi
		return
		;;
	esac

	if [[ $cur == -* ]]; then
		local options=
		case ${words[1]} in
		pack) options="--output --force --level --frame-size --threads --links=stored
			--links=contained --max-bytes --max-entries --max-ratio --quiet --json" ;;
		mount) options="--foreground --threads --cache-size --options" ;;
		umount) options="--lazy" ;;
		ls) options="--long --recursive --all --directory --json" ;;
		info) options="--json" ;;
		diff) options="--quiet --json" ;;
		verify) options="--threads --quiet --json" ;;
		extract) options="--threads --tar --quiet" ;;
		esac
		mapfile -t COMPREPLY < <(compgen -W "$options --help" -- "$cur")
		return
	fi

	case ${words[1]} in
	help)
		mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
		;;
	umount)
		_filedir -d
		;;
	pack)
		_filedir
		;;
	*)
		_filedir thaw
		;;
	esac
}
complete -F _thaw thaw
