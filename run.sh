#!/usr/bin/env bash
# From nothing to a scored submission:
#   ./run.sh                        the demo competition, which needs no data and no account
#   ./run.sh planet --send          a recipe that ships (planet, planet32, demo, …), or a TOML file of yours:
#                                   downloads from Kaggle, and sends the submission
#   ./run.sh hpa                    the same; without its images and an account, synthetic cells in their place
#   ./run.sh test                   the tests
# COMP_TORCH chooses another torch, for a GPU or driver that is too old for the pinned one, and is remembered: keep
# (that of $PYTHON, or of COMP_VENV), or the address of an index of PyTorch's wheels, such as that for CUDA 12.6.
# Options after the recipe are those of `comp run`: --as NAME, --set KEY=VALUE, --from FOLDER, --folds 0,1, …
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${COMP_VENV:-$here/.venv}

# A virtual environment, made again when the requirements change.
torch=${COMP_TORCH:-$(cat "$venv/torch" 2>/dev/null || true)}
wanted=$(cat "$here/pyproject.toml" "$here/constraints.txt" | cksum)${torch:+ $torch}
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$wanted" ]; then
    shared=()
    [ "$torch" = keep ] && [ ! -e "$venv" ] && shared=(--system-site-packages)
    "${PYTHON:-python3}" -m venv ${shared[@]+"${shared[@]}"} "$venv"
    pins=$here/constraints.txt
    if [ -n "$torch" ]; then
        echo "$torch" > "$venv/torch"
        pins=$venv/constraints.txt
        grep -Ev '^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==' "$here/constraints.txt" > "$pins"
        if [ "$torch" != keep ]; then
            "$venv/bin/pip" install --quiet --disable-pip-version-check --index-url "$torch" torch torchvision
        fi
        "$venv/bin/python" -c "from importlib.metadata import version; print('torch==' + version('torch'))" >> "$pins"
    fi
    "$venv/bin/pip" install --quiet --disable-pip-version-check -c "$pins" -e "$here[test]"
    echo "$wanted" > "$venv/installed"
    echo "run.sh: installed; \`source $venv/bin/activate\` for the comp command itself"
fi
export PATH="$venv/bin:$PATH"

if [ "${1:-}" = test ]; then
    cd "$here"
    exec python -m pytest "${@:2}"
fi

[[ "${1:-}" == -* ]] && set -- demo "$@"

exec comp run "${@:-demo}"
