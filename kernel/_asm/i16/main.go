// Command i16 writes the assembly of the int16 products in package kernel.
// Run it through go generate in that package.
package main

import (
	"flag"
	"log"

	. "github.com/mmcloughlin/avo/build"
)

// parts are the files this program can write.
var parts = map[string]func(){
	"matvec_avx512": matVecs512,
	"matmul_avx512": gemm512,
	"unpack_avx512": unpacks512,
	"quantize_avx512": func() {
		quantize512()
		fillPlanes512(false)
		fillPlanes512(true)
		fillPairs512()
		fillHalves512()
		fillCross512()
	},
	"quantize_avx2": quantize256,
	"peak":          peaks,
	"matmul_avx2":   gemm256,
	"matvec_avx2":   matVecs256,
	"unpack_avx2":   unpacks256,
}

func main() {
	part := flag.String("part", "", "which file to write")
	flag.Parse() // avo adds -out, -stubs and -pkg
	write, ok := parts[*part]
	if !ok {
		log.Fatalf("i16: unknown -part %q", *part)
	}
	ConstraintExpr("!noasm")
	write()
	Generate()
}
