package main

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// instruction is one line of the compiler's assembly: a label, or an instruction
// and its word.
type instruction struct {
	label, text string
	word        uint32
}

// flags beside the level: nothing of a C library, no fused multiply-add that the
// source does not ask for, not the registers that Go or the system keeps, and the
// order of the source: the scheduler begins more than registers can hold, and the
// processor reorders anyway.
var flags = []string{"--target=aarch64-linux-gnu", "-std=c17", "-O3", "-ffreestanding", "-fno-builtin", "-ffp-contract=off",
	"-fno-math-errno", "-fno-vectorize", "-fno-slp-vectorize", "-fno-asynchronous-unwind-tables", "-fomit-frame-pointer",
	"-ffixed-x18", "-ffixed-x28", "-mllvm", "-enable-misched=false", "-Wall", "-Werror"}

// compile returns the code of each function, by its name with the level's suffix.
// The words come from the same text that goes into the comments.
func compile(source string, l level, stubs []stub, temp string) (map[string][]instruction, error) {
	args, asm, object := filepath.Join(temp, "args.h"), filepath.Join(temp, "out.s"), filepath.Join(temp, "out.o")
	if err := os.WriteFile(args, []byte(argStructs(stubs)), 0o644); err != nil {
		return nil, err
	}
	compiler := cmp.Or(os.Getenv("APR_CLANG"), "clang-19")
	toText := append(append([]string{}, flags...), "-march="+l.march, "-DLEVEL="+l.suffix, "-DLEVEL_"+strings.ToUpper(l.file), "-include", args, "-S", "-o", asm, source)
	toWords := []string{"--target=aarch64-linux-gnu", "-march=" + l.march, "-c", "-o", object, asm}
	for _, a := range [][]string{toText, toWords} {
		if out, err := exec.Command(compiler, a...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", compiler, err, out)
		}
	}
	text, err := os.ReadFile(asm)
	if err != nil {
		return nil, err
	}
	words, err := readWords(object)
	if err != nil {
		return nil, err
	}
	code := parseText(string(text))
	if len(code) != len(words) {
		return nil, fmt.Errorf("%d functions in the text, %d in the object", len(code), len(words))
	}
	for name, lines := range code {
		if err := join(lines, words[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := check(lines); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return code, nil
}

// readWords returns the words of each function of an object file. It fails if the
// code refers to anything outside itself, such as a constant or a function.
func readWords(object string) (map[string][]uint32, error) {
	f, err := elf.Open(object)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for _, s := range f.Sections {
		if s.Type == elf.SHT_RELA || s.Type == elf.SHT_REL || strings.HasPrefix(s.Name, ".rodata") {
			return nil, fmt.Errorf("section %s: the code needs data or functions outside itself", s.Name)
		}
	}
	section := f.Section(".text")
	text, err := section.Data()
	if err != nil {
		return nil, err
	}
	symbols, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	words := map[string][]uint32{}
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC {
			continue
		}
		w := make([]uint32, s.Size/4)
		if err := binary.Read(bytes.NewReader(text[s.Value:s.Value+s.Size]), binary.LittleEndian, w); err != nil {
			return nil, err
		}
		words[s.Name] = w
	}
	return words, nil
}

var functionLabel = regexp.MustCompile(`^(\w+):`)

// parseText splits the compiler's assembly into functions.
func parseText(text string) map[string][]instruction {
	code := map[string][]instruction{}
	name := ""
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSuffix(line, "\n"), "//")
		switch m := functionLabel.FindStringSubmatch(line); {
		case m != nil:
			name = m[1]
		case strings.HasPrefix(line, ".Lfunc_end"):
			name = ""
		case name != "" && strings.HasPrefix(line, ".LBB"):
			code[name] = append(code[name], instruction{label: strings.TrimSpace(line)})
		case name != "" && strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, "\t.") && strings.TrimSpace(line) != "":
			code[name] = append(code[name], instruction{text: strings.Join(strings.Fields(line), " ")})
		}
	}
	return code
}

// join gives each instruction its word.
func join(lines []instruction, words []uint32) error {
	k := 0
	for i := range lines {
		if lines[i].label != "" {
			continue
		}
		if k < len(words) {
			lines[i].word = words[k]
		}
		k++
	}
	if k != len(words) {
		return fmt.Errorf("%d instructions but %d words", k, len(words))
	}
	return nil
}

var (
	// The registers that Go's ABI0 or a system keeps for itself: the platform's,
	// the goroutine, the frame pointer, the return address, the stack.
	reserved = regexp.MustCompile(`\b([wx](18|28|29|30)|w?sp|fp|lr)\b`)
	// Calls, addresses, system instructions and traps have no place in a leaf.
	misplaced = regexp.MustCompile(`^(bl|blr|br|adr|adrp|svc|hvc|smc|brk|hlt|mrs|msr|udf|autiasp|paciasp)( |$)`)
	branch    = regexp.MustCompile(`^(b|b\.\w+|cbz|cbnz|tbz|tbnz) `)
)

// check fails if code may not run as a Go assembly function without a frame.
func check(lines []instruction) error {
	for i, c := range lines {
		if c.label != "" {
			continue
		}
		switch {
		case reserved.MatchString(c.text):
			return fmt.Errorf("%q uses a register that is not ours, the stack perhaps: too many values are alive", c.text)
		case misplaced.MatchString(c.text):
			return fmt.Errorf("%q in a leaf function", c.text)
		case branch.MatchString(c.text) && !strings.Contains(c.text, ".LBB"):
			return fmt.Errorf("%q leaves the function", c.text)
		case c.text == "ret" && i != len(lines)-1 && c.word != 0xd65f03c0:
			return fmt.Errorf("return to another register than the link register")
		}
	}
	if n := len(lines); n == 0 || lines[n-1].text != "ret" && !strings.HasPrefix(lines[n-1].text, "b ") {
		return fmt.Errorf("falls off its end")
	}
	return nil
}
