package main

import (
	"encoding/binary"
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"

	"github.com/mmcloughlin/avo/attr"
)

var constants = map[string]Mem{}

// bytesConst returns read-only data with the given content, whose length is a
// multiple of 8. Equal names are one constant.
func bytesConst(name string, b []byte) Mem {
	if m, ok := constants[name]; ok {
		return m
	}
	m := GLOBL("i16_"+name, attr.RODATA|attr.NOPTR)
	for i := 0; i < len(b); i += 8 {
		DATA(i, U64(binary.LittleEndian.Uint64(b[i:])))
	}
	constants[name] = m
	return m
}

// wordsConst is bytesConst for 16-bit words.
func wordsConst(name string, n int, word func(i int) int) Mem {
	var b []byte
	for i := range n {
		b = binary.LittleEndian.AppendUint16(b, uint16(word(i)))
	}
	return bytesConst(fmt.Sprintf("%s%d", name, n), b)
}

// repeat concatenates runs: value, count, value, count, …
func repeat(pairs ...int) (b []byte) {
	for i := 0; i < len(pairs); i += 2 {
		for range pairs[i+1] {
			b = append(b, byte(pairs[i]))
		}
	}
	return b
}

// number is an immediate operand of an addition or comparison; Imm chooses 16
// bits for some values, which these instructions lack.
func number(x int) Op {
	if x < 128 {
		return Imm(uint64(x))
	}
	return U32(uint32(x))
}
