// Package cpufeat reads the processor's features once and says which level of
// vector code may run. It decides nothing else.
package cpufeat

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"
)

// Level is a family of vector instructions. A higher level includes the lower ones
// of its architecture.
type Level int

const (
	// Generic is plain Go.
	Generic Level = iota
	// AVX2 needs AVX2, FMA and F16C.
	AVX2
	// AVX512 needs AVX-512 F, BW, DQ, VL, VBMI, VNNI and GFNI beside everything in AVX2.
	AVX512
	// NEON is Advanced SIMD, which every arm64 processor that runs Go has.
	NEON
	// DotProd needs the dot products of signed bytes beside NEON (ARMv8.2 SDOT).
	DotProd
)

// EnvVar names the environment variable that can lower the level: generic, avx2
// or avx512, on arm64 generic, neon or dotprod. It can only turn variants off,
// never claim what the CPU lacks.
const EnvVar = "APR_CPU"

var levelNames = [...]string{"generic", "avx2", "avx512", "neon", "dotprod"}

func (l Level) String() string { return levelNames[l] }

// Levels lists the levels of this architecture, ascending, whether or not this
// processor has them.
func Levels() []Level { return levelsOf(runtime.GOARCH) }

func levelsOf(arch string) []Level {
	switch arch {
	case "amd64":
		return []Level{Generic, AVX2, AVX512}
	case "arm64":
		return []Level{Generic, NEON, DotProd}
	}
	return []Level{Generic}
}

// ParseLevel returns the level of this architecture with the given name,
// ignoring case.
func ParseLevel(s string) (Level, error) { return parseLevel(runtime.GOARCH, s) }

func parseLevel(arch, s string) (Level, error) {
	var names []string
	for _, l := range levelsOf(arch) {
		if strings.EqualFold(l.String(), s) {
			return l, nil
		}
		names = append(names, l.String())
	}
	return Generic, fmt.Errorf("unknown CPU level %q (want %s)", s, strings.Join(names, ", "))
}

var hardware = detect()

func detect() Level {
	if slices.Contains(Levels(), NEON) {
		switch {
		case !cpu.ARM64.HasASIMD:
			return Generic
		case !cpu.ARM64.HasASIMDDP:
			return NEON
		}
		return DotProd
	}
	x := &cpu.X86
	if !x.HasAVX2 || !x.HasFMA || !x.HasBMI2 || !x.HasF16C {
		return Generic
	}
	if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VBMI && x.HasAVX512VNNI && x.HasAVX512GFNI {
		return AVX512
	}
	return AVX2
}

// Hardware is the highest level this processor and operating system support.
func Hardware() Level { return hardware }

// Best is Hardware, lowered by EnvVar if that is set. An unknown value counts
// as generic: a typing error must not switch fast code on.
func Best() Level {
	s := os.Getenv(EnvVar)
	if s == "" {
		return hardware
	}
	l, err := ParseLevel(s)
	if err != nil {
		return Generic
	}
	return min(l, hardware)
}
