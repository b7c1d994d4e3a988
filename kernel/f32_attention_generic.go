package kernel

import (
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

func weightedGeneric(acc, weight, v []float32, n, queries, dim int) {
	for q := range queries {
		sum := acc[q*dim:][:dim]
		for p := range n {
			axpyF32Generic(sum, weight[q*attnBlock+p], v[p*dim:])
		}
	}
}

// mixRows is mixFunc with the rows converted.
func mixRows(acc, weight, rows []float32, n, queries, dim int) {
	part := scratchF32(queries * dim)
	defer part.free()
	clear(part.x)
	weightedGeneric(part.x, weight, rows, n, queries, dim)
	addGeneric(acc[:queries*dim], acc, part.x)
}

func mixF16Generic(acc, weight []float32, v []uint16, n, queries, dim int, _ []uint16) {
	rows := scratchF32(n * dim)
	defer rows.free()
	f16ToF32Generic(rows.x, v[:n*dim])
	mixRows(acc, weight, rows.x, n, queries, dim)
}

func mixQ8Generic(acc, weight []float32, v []byte, n, queries, dim int, _ []byte) {
	rows := q8Rows(v, n*dim)
	defer rows.free()
	mixRows(acc, weight, rows.x, n, queries, dim)
}

func q8Rows(blocks []byte, n int) *scratch {
	rows := scratchF32(n)
	f, _ := quant.Lookup(tensor.Q8_0)
	f.Dequantize(rows.x, blocks[:CacheRowBytes(n)])
	return rows
}

// scoresRows is scoresFunc with the rows converted.
func scoresRows(scores, k []float32, rows int, q []float32, queries, dim int) {
	for i := range queries {
		clear(scores[i*attnBlock:][:rows])
	}
	tileGeneric(scores, attnBlock, k, dim, rows, q, dim, queries, dim)
}

func scoresF16Generic(scores []float32, k []uint16, rows int, q []float32, queries, dim int, _ []uint16) {
	wide := scratchF32(rows * dim)
	defer wide.free()
	f16ToF32Generic(wide.x, k[:rows*dim])
	scoresRows(scores, wide.x, rows, q, queries, dim)
}

func scoresQ8Generic(scores []float32, k []byte, rows int, q []float32, queries, dim int, _ []byte) {
	wide := q8Rows(k, rows*dim)
	defer wide.free()
	scoresRows(scores, wide.x, rows, q, queries, dim)
}

func softmaxRowsGeneric(x []float32, rows, n int, scale float32, top, sum []float32) {
	for r := range rows {
		row := x[r*attnBlock:][:n]
		softCapGeneric(row, scale, 0)
		top[r] = max(top[r], maxGeneric(row))
		sum[r] = expSubGeneric(row, finiteMax(top[r]))
	}
}
