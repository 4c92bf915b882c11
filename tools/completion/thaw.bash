# SPDX-License-Identifier: Apache-2.0
# bash completion for thaw

_thaw()
{
	local cur prev words cword
	_init_completion || return

	local commands="pack warm run mount umount stat ls cat info diff verify extract report stub doctor
		serve open close ps images gc help"
	# behind "--" it is a command's own words
	local i
	for ((i = 2; i < cword; i++)); do
		if [[ ${words[1]} == @(run|warm|report) && ${words[i]} == -- ]]; then
			_command_offset $((i + 1))
			return
		fi
	done
	if ((cword == 1)); then
		mapfile -t COMPREPLY < <(compgen -W "$commands --help --version" -- "$cur")
		return
	fi

	case $prev in
	--level | --frame-size | --threads | --max-bytes | --max-entries | --max-ratio | --cache-size | \
		--name | -c | --command | --warm | --scratch-size)
		return
		;;
	--bench)
		_filedir json
		return
		;;
	--layer)
		_filedir thaw
		return
		;;
	--mode)
		mapfile -t COMPREPLY < <(compgen -W "auto private extracted" -- "$cur")
		return
		;;
	--python)
		_filedir
		return
		;;
	-o | --output | --options)
		if [[ ${words[1]} == @(pack|warm|report) ]]; then
			_filedir
		fi
		return
		;;
	esac

	if [[ $cur == -* ]]; then
		local options=
		case ${words[1]} in
		pack) options="--output --force --level --frame-size --threads --links=stored
			--links=contained --max-bytes --max-entries --max-ratio --kind --with-python
			--python --python-version --compile --check --executable --quiet --json" ;;
		mount) options="--foreground --threads --cache-size --hang-limit --warm --wait-warm
			--options" ;;
		umount) options="--lazy" ;;
		warm) options="--output --name --command --force --json" ;;
		run) options="--warm --wait-warm --writable --scratch-size --layer --mode --python" ;;
		stub) options="--output --embed --search --image-path --layer --launcher --link --force
			--quiet --json" ;;
		stat) options="--json" ;;
		doctor) options="--json" ;;
		serve) options="--socket --metrics --linger --grace --no-learn" ;;
		open) options="--writable --scratch-size --layer --lease --label --shared --warm --user
			--socket --json" ;;
		close) options="--force --socket --json" ;;
		ps) options="--watch --socket --json" ;;
		images) options="--socket --json" ;;
		gc) options="--dry-run --days --socket --json" ;;
		report) options="--output --bench --force --json" ;;
		ls) options="--long --recursive --all --directory --json" ;;
		info) options="--json" ;;
		diff) options="--quiet --mtime --json" ;;
		verify) options="--threads --quiet --json" ;;
		extract) options="--threads --prefix --tar --quiet" ;;
		esac
		mapfile -t COMPREPLY < <(compgen -W "$options --help" -- "$cur")
		return
	fi

	case ${words[1]} in
	help)
		mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
		;;
	umount | stat)
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
