package main

import (
	"bytes"
	"fmt"
)

// writeAssembly writes the functions in the order of their announcements. The one
// argument of the C function, in the first register of clang's preserve_none
// convention (which saves no register, as Go's ABI0 does not), points to Go's.
func writeAssembly(stubs []stub, code map[string][]instruction, l level) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(header() + "#include \"textflag.h\"\n")
	for _, s := range stubs {
		lines, ok := code[s.name+l.suffix]
		if !ok {
			return nil, fmt.Errorf("no function %s%s", s.name, l.suffix)
		}
		delete(code, s.name+l.suffix)
		count := 0
		for _, c := range lines {
			if c.label == "" {
				count++
			}
		}
		fmt.Fprintf(&b, "\n// func %s%s%s\n// Requires: %s; %d instructions\n", s.name, l.suffix, s.signature(), l.march, count)
		fmt.Fprintf(&b, "TEXT ·%s%s(SB), NOSPLIT, $0-%d\n", s.name, l.suffix, s.argSize())
		fmt.Fprintf(&b, "\tMOVD $%s+0(FP), R20\n", s.fields[0].name)
		for _, c := range lines {
			switch {
			case c.label != "":
				fmt.Fprintf(&b, "\t// %s\n", c.label)
			case c.text == "ret" && s.result == "": // go vet misses the result that the words store
				b.WriteString("\tRET\n")
			default:
				fmt.Fprintf(&b, "\tWORD $0x%08x // %s\n", c.word, c.text)
			}
		}
	}
	for name := range code {
		return nil, fmt.Errorf("nothing announces %s", name)
	}
	return b.Bytes(), nil
}
