package main

import (
	"bytes"
	"fmt"
	"strings"
)

// stub is one function as its C source announces it:
//
//	/// adds x to y, n numbers.
//	//stub addTo(y *float32, x *float32, n int)
//
// Each parameter names its type. The C function finds them in a struct, which
// is how Go's ABI0 passes them in memory.
type stub struct {
	name, params string
	result       string // a type, or empty
	doc          []string
	fields       []field // of the arguments, a result among them
}

type field struct{ name, goType, cType string }

// cTypes are the types that a parameter may have. A slice x is x, x_len and x_cap.
var cTypes = map[string]string{
	"*float32": "float *", "*byte": "uint8_t *", "*int16": "int16_t *", "*uint16": "uint16_t *",
	"[]float32": "float *", "[]byte": "uint8_t *", "[]uint16": "uint16_t *",
	"int": "int64_t ", "float32": "float ", "float64": "double ",
}

// parseStubs reads the announcements of a C file.
func parseStubs(source string) ([]stub, error) {
	var stubs []stub
	var doc []string
	for line := range strings.Lines(source) {
		line = strings.TrimSuffix(line, "\n")
		if text, ok := strings.CutPrefix(line, "/// "); ok {
			doc = append(doc, text)
			continue
		}
		signature, ok := strings.CutPrefix(line, "//stub ")
		if !ok {
			doc = nil
			continue
		}
		name, rest, _ := strings.Cut(signature, "(")
		params, result, _ := strings.Cut(rest, ")")
		s := stub{name: name, params: params, result: strings.TrimSpace(result), doc: doc}
		for _, p := range strings.Split(params, ", ") {
			name, goType, _ := strings.Cut(p, " ")
			if cTypes[goType] == "" {
				return nil, fmt.Errorf("parameter %q of %s has no type that a stub may have", p, s.name)
			}
			s.fields = append(s.fields, field{name, goType, cTypes[goType]})
			if strings.HasPrefix(goType, "[]") {
				s.fields = append(s.fields, field{name + "_len", "int", cTypes["int"]}, field{name + "_cap", "int", cTypes["int"]})
			}
		}
		if s.result != "" {
			if cTypes[s.result] == "" {
				return nil, fmt.Errorf("result of %s has no type that a stub may have", s.name)
			}
			s.fields = append(s.fields, field{"ret", s.result, "_Alignas(8) " + cTypes[s.result]})
		}
		if len(doc) == 0 {
			return nil, fmt.Errorf("%s says nothing about itself", s.name)
		}
		stubs = append(stubs, s)
	}
	if len(stubs) == 0 {
		return nil, fmt.Errorf("no line announces a function")
	}
	return stubs, nil
}

// argSize is the size of the arguments and the result in memory. Go aligns them as C
// does, but a result begins at a word.
func (s stub) argSize() (n int) {
	for _, f := range s.fields {
		size, align := 8, 8
		if f.goType == "float32" {
			size = 4
			if f.name != "ret" {
				align = 4
			}
		}
		n = (n+align-1)/align*align + size
	}
	return n
}

// signature is what comes after the function's name in Go.
func (s stub) signature() string { return strings.TrimSpace("(" + s.params + ") " + s.result) }

// argStructs declares the arguments of each function to C.
func argStructs(stubs []stub) string {
	var b strings.Builder
	b.WriteString("#include <stdint.h>\n")
	for _, s := range stubs {
		fmt.Fprintf(&b, "struct %s_args {", s.name)
		for _, f := range s.fields {
			fmt.Fprintf(&b, " %s%s;", f.cType, f.name)
		}
		b.WriteString(" };\n")
	}
	return b.String()
}

// writeStubs declares the functions to Go.
func writeStubs(stubs []stub, l level) []byte {
	var b bytes.Buffer
	b.WriteString(header() + "package kernel\n")
	for _, s := range stubs {
		fmt.Fprintf(&b, "\n// %s%s %s\n", s.name, l.suffix, strings.Join(s.doc, "\n// "))
		fmt.Fprintf(&b, "//\n//go:noescape\nfunc %s%s%s\n", s.name, l.suffix, s.signature())
	}
	return b.Bytes()
}
