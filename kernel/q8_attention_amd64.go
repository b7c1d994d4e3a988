//go:build !noasm

package kernel

import "github.com/apr-engine/apr/internal/cpufeat"

//go:generate go run -C _asm ./q8

func init() {
	slotQ8RoundQueries.add(cpufeat.AVX512, func(dst []int32, q []float32, queries, blocks int) {
		q8RoundQueriesAVX512(&dst[0], &q[0], queries, blocks)
	})
	slotQ8Scores.add(cpufeat.AVX512, func(scores []float32, k []byte, rows int, q []int32, queries, blocks int, ahead []byte) {
		if len(ahead) == 0 {
			ahead = k
		}
		q8Scores512[queries-1](&scores[0], &k[0], rows/q8RowsTogether, &q[0], blocks, &ahead[0])
	})
	slotQ8Tops.add(cpufeat.AVX512, func(top, scores []float32, blocks, queries int, scale float32) {
		q8TopsAVX512(&top[0], &scores[0], blocks, queries, scale)
	})
	slotQ8Exps.add(cpufeat.AVX512, func(x, sum, base []float32, factor float32, queries int) {
		q8ExpsAVX512(&x[0], &sum[0], &base[0], factor, queries)
	})
	slotQ8RoundWeights.add(cpufeat.AVX512, func(dst []int16, step, weight []float32, v []byte, room *q8Room, queries, blocks int) {
		q8RoundWeightsAVX512(&dst[0], &step[0], &weight[0], &v[0], &room.pairs[0], &room.scales[0], queries, blocks)
	})
	slotQ8Mix.add(cpufeat.AVX512, func(acc []float32, w []int16, step []float32, v []byte, n, queries, blocks int, ahead []byte) {
		if len(ahead) == 0 {
			ahead = v
		}
		q8Mix512[queries-1](&acc[0], &w[0], &step[0], &v[0], n/2, blocks, &ahead[0])
	})
}

var q8Scores512 = [directQueries]func(scores *float32, k *byte, groups int, q *int32, blocks int, ahead *byte){
	q8Scores1AVX512, q8Scores2AVX512, q8Scores3AVX512, q8Scores4AVX512,
	q8Scores5AVX512, q8Scores6AVX512, q8Scores7AVX512, q8Scores8AVX512,
}

var q8Mix512 = [directQueries]func(acc *float32, w *int16, step *float32, v *byte, pairs, blocks int, ahead *byte){
	q8Mix1AVX512, q8Mix2AVX512, q8Mix3AVX512, q8Mix4AVX512,
	q8Mix5AVX512, q8Mix6AVX512, q8Mix7AVX512, q8Mix8AVX512,
}
