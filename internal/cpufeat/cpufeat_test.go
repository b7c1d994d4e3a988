package cpufeat

import "testing"

func TestParseLevel(t *testing.T) {
	for _, tc := range []struct {
		arch, name string
		want       Level
		ok         bool
	}{
		{"amd64", "avx2", AVX2, true},
		{"amd64", "AVX512", AVX512, true},
		{"amd64", "neon", Generic, false}, // a higher number must not count as the best
		{"arm64", "neon", NEON, true},
		{"arm64", "dotprod", DotProd, true},
		{"arm64", "avx2", Generic, false},
		{"riscv64", "generic", Generic, true},
		{"riscv64", "dotprod", Generic, false},
	} {
		got, err := parseLevel(tc.arch, tc.name)
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%s %q: %v, %v", tc.arch, tc.name, got, err)
		}
	}
}

func TestBestCannotRaise(t *testing.T) {
	for _, name := range levelNames {
		t.Setenv(EnvVar, name)
		want, err := ParseLevel(name)
		if err != nil {
			want = Generic
		}
		if got := Best(); got != min(want, Hardware()) {
			t.Errorf("%s=%s gives %s on a machine with %s", EnvVar, name, got, Hardware())
		}
	}
}
