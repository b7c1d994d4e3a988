package kernel

func weightedGeneric(acc, weight, v []float32, n, queries, dim int) {
	for q := range queries {
		sum := acc[q*dim:][:dim]
		for p := range n {
			axpyF32Generic(sum, weight[q*attnBlock+p], v[p*dim:])
		}
	}
}

func weightedF16Generic(acc, weight []float32, v []uint16, n, queries, dim int) {
	rows := make([]float32, n*dim)
	f16ToF32Generic(rows, v[:n*dim])
	weightedGeneric(acc, weight, rows, n, queries, dim)
}
