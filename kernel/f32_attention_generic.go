package kernel

func weightedGeneric(acc, weight, v []float32, n, queries, dim int) {
	for q := range queries {
		sum := acc[q*dim:][:dim]
		for p := range n {
			axpyF32Generic(sum, weight[q*attnBlock+p], v[p*dim:])
		}
	}
}
