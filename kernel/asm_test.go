package kernel

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestInstructionSets reads what each assembly function requires, as its
// generator noted, and compares it with what cpufeat checks for the level in the
// function's name. A machine with AVX-512 would run a misplaced instruction
// without complaint; one without would die of it.
func TestInstructionSets(t *testing.T) {
	// MMX+ is avo's name for the set with PREFETCH.
	avx2 := []string{"SSE", "MMX+", "SSE2", "SSE3", "SSSE3", "SSE4.1", "SSE4.2", "AVX", "AVX2", "FMA3", "F16C", "BMI2", "CMOV", "POPCNT"}
	avx512 := append([]string{"AVX512F", "AVX512BW", "AVX512DQ", "AVX512VL", "AVX512VBMI", "AVX512VNNI", "GFNI"}, avx2...)
	files, err := filepath.Glob("*_amd64.s")
	if err != nil || len(files) == 0 {
		t.Fatalf("no assembly found: %v", err)
	}
	text := regexp.MustCompile(`(?m)^(?:// Requires: (.*)\n)?TEXT ·(\w+)\(SB\)`)
	checked := 0
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range text.FindAllStringSubmatch(string(src), -1) {
			var allowed []string
			switch name := m[2]; {
			case strings.HasSuffix(name, "AVX2"):
				allowed = avx2
			case strings.HasSuffix(name, "AVX512"):
				allowed = avx512
			default:
				allowed = []string{"SSE2", "MMX+"} // every amd64 has them
			}
			for _, need := range strings.Split(m[1], ", ") {
				if need != "" && !slices.Contains(allowed, need) {
					t.Errorf("%s: %s needs %s", file, m[2], need)
				}
			}
			checked++
		}
	}
	if checked < 100 {
		t.Errorf("only %d functions recognised", checked)
	}
}

// TestInstructionSetsARM64 does the same for the words from clang: what they were
// compiled for must be the level of their name, and no dot product may be among
// the instructions of the lower one.
func TestInstructionSetsARM64(t *testing.T) {
	files, err := filepath.Glob("*_arm64.s")
	if err != nil || len(files) == 0 {
		t.Fatalf("no assembly found: %v", err)
	}
	text := regexp.MustCompile(`(?m)^// Requires: ([^;\n]*); \d+ instructions\nTEXT ·(\w+?)(NEON|DotProd)\(SB\).*\n((?:\t.*\n)+)`)
	requires := map[string]string{"NEON": "armv8-a", "DotProd": "armv8-a+dotprod"}
	checked, dots := 0, 0
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		functions := text.FindAllStringSubmatch(string(src), -1)
		if n := strings.Count(string(src), "TEXT "); n != len(functions) {
			t.Errorf("%s has %d functions, %d recognised", file, n, len(functions))
		}
		for _, m := range functions {
			if m[1] != requires[m[3]] {
				t.Errorf("%s: %s%s needs %s", file, m[2], m[3], m[1])
			}
			dot := strings.Contains(m[4], "// sdot")
			if dot && m[3] == "NEON" {
				t.Errorf("%s: %s%s has dot products", file, m[2], m[3])
			}
			if dot {
				dots++
			}
			checked++
		}
	}
	if checked < 30 || dots < 15 {
		t.Errorf("only %d functions recognised, %d with dot products", checked, dots)
	}
}
