# What the scripts of both kinds of package share. tools/package puts it where they say ". ./functions.sh".

unit=coredns-shaker.service
user=coredns-shaker

systemd_runs() { [ -d /run/systemd/system ]; }

# make_user makes the user and the group of the service, once. Nothing removes them: files may be theirs, and the next user
# with their numbers would own those.
make_user() {
	if getent passwd "$user" >/dev/null; then
		return
	fi
	if command -v systemd-sysusers >/dev/null; then
		systemd-sysusers /usr/lib/sysusers.d/coredns-shaker.conf
		return
	fi
	same_group=--user-group
	if getent group "$user" >/dev/null; then
		same_group="--gid $user"
	fi
	# Two words.
	# shellcheck disable=SC2086
	useradd --system $same_group --comment 'CoreDNS with shaker' --home-dir /nonexistent --no-create-home \
		--shell /usr/sbin/nologin "$user"
}

# restart COMMAND... runs the command, which restarts the service, if it runs and the new version takes its Corefile. A
# reload would go on with the old program. Where the Corefile is refused, so does the service: a name server that is old is
# better than none.
restart() {
	pid=$(systemctl show --property MainPID "$unit" | sed 's/^MainPID=//')
	if [ "${pid:-0}" = 0 ]; then
		return
	fi
	if mistakes=$(check_as "$pid" 2>&1); then
		"$@" || echo "coredns-shaker: not restarted; systemctl status coredns-shaker tells why" >&2
		return
	fi
	cat >&2 <<-END
		coredns-shaker: the new version does not take the Corefile, so the old one runs on, until it is restarted:
		$mistakes
		coredns-shaker: when this is mended: systemctl restart coredns-shaker
	END
}

# check_as PID has the program that is installed now check the Corefile of a process: with its arguments, environment,
# directory, user and groups, and with what it sees of the file system, since all of them may be in a drop-in.
check_as() {
	{ cat "/proc/$1/environ" "/proc/$1/cmdline" && printf '%s\0' -check -quiet; } |
		xargs -0 nsenter --target "$1" --mount --root --wd timeout --verbose 60 \
			setpriv --reuid "$(id_of "$1" Uid)" --regid "$(id_of "$1" Gid)" --groups "$(id_of "$1" Gid)$(more_groups_of "$1")" \
			--inh-caps=-all --no-new-privs env -i
}

id_of() { sed -n "s/^$2:[[:space:]]*\([0-9]*\).*/\1/p" "/proc/$1/status"; }

# more_groups_of PID prints a comma and a number for each.
more_groups_of() { sed -n 's/[[:space:]]*$//; s/^Groups:[[:space:]]*\([0-9]\)/,\1/p' "/proc/$1/status" | tr ' ' ,; }
