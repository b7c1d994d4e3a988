//go:build !noasm && (amd64 || arm64)

package kernel

type scoresAsm[E element] func(scores *float32, k *E, quads int, q *float32, dim int, ahead *E)

// scoresWith serves any number of queries with functions for 1, 2, … queries, as few
// as possible and of about the same size: two times four are as fast as six and two,
// or faster.
func scoresWith[E element](funcs ...scoresAsm[E]) scoresFunc[E] {
	return func(scores []float32, k []E, rows int, q []float32, queries, dim int, ahead []E) {
		if rows == 0 || dim == 0 {
			return
		}
		if len(ahead) == 0 {
			ahead = k
		}
		for from, passes := 0, passesOf(queries, len(funcs)); passes > 0; passes-- {
			n := (queries - from) / passes
			funcs[n-1](&scores[from*attnBlock], &k[0], rows/tileRows, &q[from*dim], dim, &ahead[0])
			from += n
		}
	}
}

type mixAsm[E element] func(acc, weight *float32, v *E, n, dim int, ahead *E)

// mixWith is scoresWith for the values.
func mixWith[E element](funcs ...mixAsm[E]) mixFunc[E] {
	return func(acc, weight []float32, v []E, n, queries, dim int, ahead []E) {
		if n == 0 || dim == 0 {
			return
		}
		if len(ahead) == 0 {
			ahead = v
		}
		for from, passes := 0, passesOf(queries, len(funcs)); passes > 0; passes-- {
			count := (queries - from) / passes
			funcs[count-1](&acc[from*dim], &weight[from*attnBlock], &v[0], n, dim, &ahead[0])
			from += count
		}
	}
}

// passesOf is how often the cache is read if most queries can share a pass.
func passesOf(queries, most int) int { return (queries + most - 1) / most }

func softmaxRowsWith(run func(x *float32, rows, n int, scale float32, top, sum *float32)) func(x []float32, rows, n int, scale float32, top, sum []float32) {
	return func(x []float32, rows, n int, scale float32, top, sum []float32) {
		if rows > 0 && n > 0 {
			run(&x[0], rows, n, scale, &top[0], &sum[0])
		}
	}
}
