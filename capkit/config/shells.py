"""What `capkit completion SHELL` prints: a script that asks `capkit --complete` for the words at the cursor."""

from capkit.errors import UsageError, did_you_mean

# Bash cuts words at "=" and ":", and replaces what follows the last of them.
_BASH = r"""# bash completion of capkit: eval "$(capkit completion bash)"
# or keep it as ~/.local/share/bash-completion/completions/capkit
_capkit() {
    local line=${COMP_LINE:0:COMP_POINT} word cut found
    local -a words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[-1]}
    cut=${word%"${word##*[=:]}"}
    COMPREPLY=()
    while IFS= read -r found; do
        [[ -n $found ]] && COMPREPLY+=("${found#"$cut"}")
    done < <(capkit --complete "${words[@]:1}" 2> /dev/null)
    compopt -o nospace
    if [[ ${#COMPREPLY[@]} == 0 ]]; then compopt +o nospace -o default; fi
}
complete -F _capkit capkit
"""
# Zsh quotes candidates itself: an unquoted [ is a pattern to it, in a command line too.
_ZSH = r"""#compdef capkit
# zsh completion of capkit: eval "$(capkit completion zsh)" after compinit, or into a folder of $fpath as _capkit
_capkit() {
    local word=$PREFIX
    local -a found
    [[ -z $compstate[quote] ]] && word=${(Q)word}
    found=("${(@f)$(capkit --complete "${(@Q)words[2,CURRENT-1]}" "$word" 2> /dev/null)}")
    if [[ -z "${found[*]}" ]]; then
        compset -P '*='
        _files
    else
        compadd -S ' ' -- "${(@)${(@M)found:#* }% }"
        compadd -S '' -- "${(@)found:#* }"
    fi
}
compdef _capkit capkit
"""
_FISH = r"""# fish completion of capkit: capkit completion fish > ~/.config/fish/completions/capkit.fish
function __capkit_complete
    set -l before (commandline -opc)
    set -l word (string unescape -- (string replace -r '^[\'"]' '' -- (commandline -ct)))
    capkit --complete $before[2..-1] "$word" 2>/dev/null | string trim --right
end
complete -c capkit -f -a '(__capkit_complete)'
complete -c capkit -n 'string match -q "*=*" -- (commandline -ct); and test -z "$(__capkit_complete)"' -F
"""
SHELLS = {"bash": _BASH, "fish": _FISH, "zsh": _ZSH}


def script(words: list[str]) -> str:
    """The script of one shell. Raises UsageError for another name."""
    if len(words) != 1 or words[0] not in SHELLS:
        got = " ".join(words) or "nothing"
        raise UsageError(f"capkit completion: expected bash, fish or zsh, got {got}; {did_you_mean(got, SHELLS)}")
    return SHELLS[words[0]]
