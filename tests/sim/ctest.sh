#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ctest entries of the simulator: ctest.sh SIM seeds FILE | ctest.sh SIM determinism AREA
set -euo pipefail
sim=$1

case $2 in
  seeds)
    failed=0
    count=0
    while read -r area seed reason; do
      case $area in '' | '#'*) continue ;; esac
      count=$((count + 1))
      if ! out=$(timeout 120 "$sim" "$area" --seed "$seed" 2>&1); then
        failed=$((failed + 1))
        echo "$area $seed ($reason): failed"
        tail -8 <<<"$out"
      fi
    done <"$3"
    echo "$count seeds, $failed failed"
    [ "$failed" -eq 0 ]
    ;;
  determinism)
    for seed in 101 202 303 404 505 606; do
      one=$("$sim" "$3" --seed "$seed" | grep '^trace')
      # Another environment moves the stack and the heap: nothing may depend on addresses.
      two=$(env "GEMEL_PADDING=$(printf 'x%.0s' {1..5000})" "$sim" "$3" --seed "$seed" | grep '^trace')
      if [ "$one" != "$two" ]; then
        echo "$3 seed $seed: '$one' and '$two'"
        exit 1
      fi
      echo "$3 seed $seed: $one"
    done
    ;;
  *) exit 2 ;;
esac
