#compdef shaker
# Completion of shaker for zsh, which shaker itself answers.
_shaker() {
    local -a candidates
    candidates=("${(@f)$("$words[1]" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -- "${(@)candidates:#}"
}
if [[ $funcstack[1] == _shaker ]]; then
    _shaker "$@"
else
    compdef _shaker shaker
fi
