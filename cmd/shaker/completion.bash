# Completion of shaker for bash, which shaker itself answers.
_shaker() {
    local line=${COMP_LINE:0:COMP_POINT} words current
    read -ra words <<<"$line"
    current=
    [[ $line == *[[:space:]] ]] || { current=${words[-1]} && unset 'words[-1]'; }
    local IFS=$'\n'
    COMPREPLY=($("${words[0]}" __complete "${words[@]:1}" "$current" 2>/dev/null))
    # Bash replaces only what stands behind the last of the characters that break words, which addresses have.
    local kept=${current%"${current##*[:=]}"}
    if [[ $kept == *:* && $COMP_WORDBREAKS != *:* ]]; then
        kept=
    fi
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
}
complete -F _shaker shaker
