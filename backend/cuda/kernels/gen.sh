#!/bin/sh
# gen.sh makes ../ptx/*.ptx from the .cu files here, with clang 19 and no CUDA SDK.
# Each .cu says in a line "// targets: sm_80 sm_90" what it is compiled for; without
# one it is sm_80, which every later device takes. With -o DIR it writes there.
set -eu
cd "$(dirname "$0")"
out=../ptx
[ "${1:-}" != -o ] || out=$2
clang=${CLANG:-clang++-19}

# A PTX version above the one that clang takes for the target by itself: what the
# inline assembly for that target needs, which clang does not look into.
feature() {
	case $1 in
	sm_90) echo "--cuda-feature=+ptx80" ;; # bulk copies
	sm_90a) echo "--cuda-feature=+ptx80" ;;
	sm_80) echo "--cuda-feature=+ptx74" ;; # L1::no_allocate: CUDA 11.4
	esac
}

mkdir -p "$out"
for source in *.cu; do
	targets=$(sed -n 's|^// targets: ||p' "$source")
	for target in ${targets:-sm_80}; do
		to=$out/${source%.cu}.$target.ptx
		# Comments hold nothing but places in the source; without them the text is a
		# third smaller and changes only where code does.
		$clang -x cuda --cuda-device-only --cuda-gpu-arch="$target" $(feature "$target") -nocudainc -nocudalib \
			-std=c++17 -O3 -ffp-contract=fast -Wall -Wno-unused-function -S -o "$to.raw" "$source"
		sed -e '/^[[:space:]]*\/\/ \(begin\|end\) inline asm$/d' -e 's/[[:space:]]*\/\/ [-%@].*$//' -e 's/[[:space:]]*\/\/ =>.*$//' \
			-e '/^$/d' "$to.raw" >"$to.tmp"
		mv "$to.tmp" "$to"
		rm "$to.raw"
		if grep -nE '\.local|^[[:space:]]*call' "$to"; then
			echo "$to: local memory or a call: something was not inlined" >&2
			exit 1
		fi
	done
done
