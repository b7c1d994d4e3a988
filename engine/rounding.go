package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/tensor"
)

// rounds reports whether a candidate is to serve with a cache that rounds coarsely, and is
// judged.
func (g *gate) rounds(c loaded) bool {
	return g.options.KV == KVQ8 && !g.Override && (c.name != referenceBackend || g.fault(c.name) != "")
}

// unrounded judges what is to serve with a cache of Q8_0 with one of F16 first. That
// differs in nothing but the cache, and is compared within limits that what Q8_0 rounds
// would hide: a function that is slightly wrong is found here, and a cache of Q8_0 that is
// wrong afterwards. The verdict of serving with F16 does as well, and is left for it.
// With renew it is measured again in spite of one.
func (g *gate) unrounded(ctx context.Context, c loaded, pc parity.Case, renew bool) parity.Verdict {
	half, o := g.Gate, g.options
	half.Renew = half.Renew || renew
	o.KV = KVF16
	half.Key.Options = g.keyOptionsWith(c.name, o)
	var opened []backend.Executor
	load := func(d func() (backend.Device, error), options backend.Options) func() (backend.Executor, error) {
		return sync.OnceValues(func() (backend.Executor, error) {
			device, err := d()
			if err != nil {
				return nil, err
			}
			exec, err := safeLoad(device, g.m, options)
			if err == nil {
				opened = append(opened, exec)
			}
			return exec, err
		})
	}
	exact := g.referenceOptions(g.threads())
	exact.KV = tensor.F32
	half.Reference.Open = load(func() (backend.Device, error) { return firstDevice(referenceBackend) }, exact)
	candidate := c.source()
	candidate.Open = load(func() (backend.Device, error) { return c.device, nil }, backendOptions(c.name, o, g.maxBatch))
	_, v := half.Certify(ctx, candidate, pc)
	var err error
	for _, exec := range opened {
		err = errors.Join(err, closeWithin(c.name, exec.Close))
	}
	switch {
	case v.Passed() && err != nil:
		v.Status, v.Reason = parity.NotMeasured, err.Error()
	case !v.Passed():
		v.Reason = fmt.Sprintf("with a cache of F16: %s", v.Reason)
	}
	return v
}
