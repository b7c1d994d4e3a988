//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"sync"

	"github.com/ebitengine/purego"
)

// result is what the library reports through a callback.
type result struct {
	status uint32 // of the request; statusSuccess if all is well
	kind   uint32 // of the error, from an error scope
	handle uintptr
	text   string
}

// statusSuccess is the success of every WGPU…Status of a request.
const statusSuccess = 1

// Kinds of error (WGPUErrorType).
const (
	errorNone   = 1
	errorMemory = 3
)

// The library's callbacks, made once: Go never frees them.
var callbacks struct {
	device, mapped, scope, uncaptured, lost uintptr
}

// waiting holds what callbacks are waited for, and the open devices, by the
// number that the library is given as user data.
var waiting = struct {
	sync.Mutex
	next    uintptr
	results map[uintptr]chan result
	devices map[uintptr]*Device
}{results: map[uintptr]chan result{}, devices: map[uintptr]*Device{}}

// expect returns a number for a callback's user data and where its result will
// be. A callback may come in another goroutine's call of the library.
func expect() (uintptr, <-chan result) {
	waiting.Lock()
	defer waiting.Unlock()
	waiting.next++
	c := make(chan result, 1)
	waiting.results[waiting.next] = c
	return waiting.next, c
}

func deliver(id uintptr, r result) uintptr {
	waiting.Lock()
	c := waiting.results[id]
	delete(waiting.results, id)
	waiting.Unlock()
	if c != nil {
		c <- r
	}
	return 0
}

// forget gives up on a callback.
func forget(id uintptr) {
	waiting.Lock()
	delete(waiting.results, id)
	waiting.Unlock()
}

// enter registers a device for its own callbacks.
func enter(d *Device) uintptr {
	waiting.Lock()
	defer waiting.Unlock()
	waiting.next++
	waiting.devices[waiting.next] = d
	return waiting.next
}

func leave(id uintptr) {
	waiting.Lock()
	delete(waiting.devices, id)
	waiting.Unlock()
}

func deviceOf(id uintptr) *Device {
	waiting.Lock()
	defer waiting.Unlock()
	return waiting.devices[id]
}

func registerCallbacks() {
	callbacks.device = purego.NewCallback(func(status uint32, device uintptr, text uintptr, n uint64, id, _ uintptr) uintptr {
		return deliver(id, result{status: status, handle: device, text: libraryText{text, n}.text()})
	})
	callbacks.mapped = purego.NewCallback(func(status uint32, text uintptr, n uint64, id, _ uintptr) uintptr {
		return deliver(id, result{status: status, text: libraryText{text, n}.text()})
	})
	callbacks.scope = purego.NewCallback(func(status, kind uint32, text uintptr, n uint64, id, _ uintptr) uintptr {
		return deliver(id, result{status: status, kind: kind, text: libraryText{text, n}.text()})
	})
	callbacks.uncaptured = purego.NewCallback(func(_ uintptr, kind uint32, text uintptr, n uint64, id, _ uintptr) uintptr {
		if d := deviceOf(id); d != nil {
			d.fail(errorOf(kind, libraryText{text, n}.text()))
		}
		return 0
	})
	callbacks.lost = purego.NewCallback(func(_ uintptr, _ uint32, text uintptr, n uint64, id, _ uintptr) uintptr {
		if d := deviceOf(id); d != nil {
			d.fail(lostError(libraryText{text, n}.text()))
		}
		return 0
	})
}
