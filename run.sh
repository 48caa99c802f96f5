#!/usr/bin/env bash
# From nothing to a scored submission:
#   ./run.sh                        the demo competition, which needs no data and no account
#   ./run.sh planet --send          a recipe that ships (planet, planet32, demo, …), or a TOML file of yours:
#                                   downloads from Kaggle, and sends the submission
#   ./run.sh hpa                    the same; without its images and an account, synthetic cells in their place
#   ./run.sh test                   the tests
# Options after the recipe are those of `comp run`: --as NAME, --set KEY=VALUE, --from FOLDER, --folds 0,1, …
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${COMP_VENV:-$here/.venv}

# A virtual environment, made again when the requirements change.
wanted=$(cat "$here/pyproject.toml" "$here/constraints.txt" | cksum)
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$wanted" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -c "$here/constraints.txt" -e "$here[test]"
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
