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
	doc          []string
	fields       []field
}

type field struct{ name, goType, cType string }

// cTypes are the types that a parameter may have.
var cTypes = map[string]string{
	"*float32": "float *", "*byte": "uint8_t *", "*int8": "int8_t *", "*int16": "int16_t *", "*uint16": "uint16_t *",
	"*int32": "int32_t *", "int": "int64_t ", "float32": "float ",
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
		name, params, _ := strings.Cut(strings.TrimSuffix(signature, ")"), "(")
		s := stub{name: name, params: params, doc: doc}
		for _, p := range strings.Split(params, ", ") {
			name, goType, _ := strings.Cut(p, " ")
			if cTypes[goType] == "" {
				return nil, fmt.Errorf("parameter %q of %s has no type that a stub may have", p, s.name)
			}
			s.fields = append(s.fields, field{name, goType, cTypes[goType]})
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

// argSize is the size of the arguments in memory. Go aligns them as C does.
func (s stub) argSize() (n int) {
	for _, f := range s.fields {
		size := 8
		if f.goType == "float32" {
			size = 4
		}
		n = (n+size-1)/size*size + size
	}
	return (n + 7) / 8 * 8
}

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
		fmt.Fprintf(&b, "//\n//go:noescape\nfunc %s%s(%s)\n", s.name, l.suffix, s.params)
	}
	return b.Bytes()
}
