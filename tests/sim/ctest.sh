#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ctest entries of the simulator: ctest.sh SIM seeds FILE | ctest.sh SIM determinism AREA | ctest.sh SIM shrink SWITCH |
# ctest.sh SIM rare CRASH_POINTS UNIT_RAID
set -euo pipefail
sim=$1

case $2 in
  seeds)
    failed=0
    count=0
    while read -r area seed reason; do
      case $area in '' | '#'*) continue ;; esac
      count=$((count + 1))
      cuts=()
      while [[ $reason == --* ]]; do
        cuts+=("${reason%% *}")
        reason=${reason#* }
      done
      if ! out=$(timeout 120 "$sim" "$area" --seed "$seed" "${cuts[@]}" 2>&1); then
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
  shrink)
    # The deliberate bug's failing seed shrinks, twice to the same, to a command line that still fails, and in the same
    # way; without the bug that history is right.
    fail() {
      echo "$*"
      exit 1
    }
    found=$("$sim" raid --switch "$3" --histories 3000 --stop-at-first) && fail "no history shows $3"
    seed=$(sed -n 's/^seed \([0-9]*\) failed.*/\1/p' <<<"$found")
    one=$("$sim" raid --switch "$3" --seed "$seed" --shrink 2>/dev/null) && fail "seed $seed does not fail alone"
    two=$("$sim" raid --switch "$3" --seed "$seed" --shrink 2>/dev/null) || true
    [ "$one" = "$two" ] || fail "shrinks to '$one' and to '$two'"
    grep -E '^(before|after):' <<<"$one"
    size() { sed -n "s/^$1: \([0-9]*\) commands.* \([0-9]*\) steps/\1 \2/p" <<<"$one"; }
    read -r commands steps <<<"$(size before)"
    read -r fewer shorter <<<"$(size after)"
    [ $((fewer * 4)) -le "$commands" ] && [ "$shorter" -lt "$steps" ] || fail "it is hardly shorter"
    read -r -a line <<<"$(sed -n 's/^seeds.txt: //p' <<<"$one")"
    again=$("$sim" "${line[0]}" --seed "${line[1]}" "${line[@]:2}" --switch "$3") && fail "the short one does not fail"
    grep -qxF "$(grep -m 1 '^    ' <<<"$one")" <<<"$again" || fail "it fails in another way: $again"
    "$sim" "${line[0]}" --seed "${line[1]}" "${line[@]:2}" >/dev/null || fail "it fails without the bug, too"
    echo "${line[*]}"
    ;;
  rare)
    # Deliberate bugs that matter only where much meets, as a crash that takes a member of the right array with it: too
    # rare for run-mutants. Every crash point of a few writes, or a test that brings that about, shows them.
    caught() { # the bug, the binary, its tests
      local status=0 out
      out=$(GEMEL_SWITCH=$1 timeout 300 "$2" "--gtest_filter=$3" --gtest_fail_fast 2>&1) || status=$?
      # Any other end, as that of a binary that is not there, is no catch.
      if [ "$status" -ne 1 ] || ! grep -q '^\[  FAILED  \]' <<<"$out"; then
        echo "MISSED   $1: exit status $status"
        tail -5 <<<"$out"
        exit 1
      fi
      echo "caught   $1"
    }
    caught partial-write-first "$3" 'All/CrashPoints*ppl_one_sector'
    caught partial-guesses "$3" 'All/CrashPoints*ppl_strips_in_turn'
    caught partial-forgetful "$3" 'All/CrashPoints*ppl_strips_in_turn'
    caught partial-unnamed "$4" Ppl.what_a_start_could_not_tell_no_later_start_tells
    caught partial-unflushed "$4" Ppl.a_member_that_is_lost_between_two_strips_is_no_different
    caught missed-kept "$4" CatchUp.ends_where_another_device_was_built_in_the_place
    caught missed-unlisted "$4" CatchUp.what_was_under_way_when_a_member_came_back_is_missed_by_the_next_one
    ;;
  *) exit 2 ;;
esac
