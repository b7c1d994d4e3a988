package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/split"
	"github.com/apr-engine/apr/parity"
)

// probeDeadline bounds the search for devices in this process.
const probeDeadline = 30 * time.Second

// probe finds a backend's devices; a panic or a hang of its driver is an error.
func probe(b backend.Backend) ([]backend.Device, error) {
	type found struct {
		devices []backend.Device
		err     error
	}
	done := make(chan found, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- found{err: fmt.Errorf("panic while looking for devices: %v", v)}
			}
		}()
		devices, err := b.Probe()
		done <- found{devices, err}
	}()
	timer := time.NewTimer(probeDeadline)
	defer timer.Stop()
	select {
	case f := <-done:
		return f.devices, f.err
	case <-timer.C:
		return nil, fmt.Errorf("no answer within %v while looking for devices", probeDeadline)
	}
}

// find returns a backend's device to use, after its driver has been tried.
func (o Options) find(b backend.Backend) (backend.Device, error) {
	want := o.Device
	if !slices.Contains(gpuChain, b.Name()) {
		want = ""
	}
	if err := o.Gate.try(context.Background(), b, want); err != nil {
		return nil, err
	}
	devices, err := probe(b)
	if err != nil {
		return nil, err
	}
	return choose(b.Name(), devices, want)
}

// choose picks the device that was asked for, or the first that is no software.
// The others are closed.
func choose(name string, devices []backend.Device, want string) (backend.Device, error) {
	at := -1
	var software []string
	for i, d := range devices {
		switch soft := backend.Describe(d).Software; {
		case at >= 0:
		case want == "" && soft:
			software = append(software, d.Name())
		case want == "" || matches(name, i, d, want):
			at = i
		}
	}
	for i, d := range devices {
		if i != at {
			_ = d.Close() // it was never used
		}
	}
	switch {
	case at >= 0:
		return devices[at], nil
	case want != "":
		return nil, fmt.Errorf("%w: none is called %q", backend.ErrNoDevice, want)
	case len(software) > 0:
		return nil, fmt.Errorf("%w: only software: %s, which runs only if it is named", backend.ErrNoDevice, strings.Join(software, ", "))
	}
	return nil, backend.ErrNoDevice
}

// absence is why there is no device, for "not available (…)".
func absence(err error) string {
	_, reason, _ := strings.Cut(err.Error(), backend.ErrNoDevice.Error())
	return cmp.Or(strings.TrimPrefix(reason, ": "), backend.ErrNoDevice.Error())
}

// matches reports whether a device is meant: by its number among the backend's
// devices, by that after the backend's name, or by a part of its name.
func matches(name string, index int, d backend.Device, want string) bool {
	if _, err := strconv.Atoi(want); err == nil {
		return want == strconv.Itoa(index)
	}
	return want == DeviceID(name, index) || strings.Contains(strings.ToLower(d.Name()), strings.ToLower(want))
}

// DeviceID is a device's name for Options.Device: the backend's with the
// device's number.
func DeviceID(name string, index int) string { return fmt.Sprintf("%s:%d", name, index) }

// Device is what a backend can compute on.
type Device struct {
	ID      string `json:"id"` // for Options.Device
	Backend string `json:"backend"`
	Name    string `json:"name"`
	backend.Info
	Identity string `json:"identity"` // what certificates hold for
	// Verdict is the newest one about this device, whatever the model; nil if there
	// is none.
	Verdict *LastVerdict `json:"verdict,omitempty"`
}

// LastVerdict is what a certificate says, in short.
type LastVerdict struct {
	Certificate string        `json:"certificate"` // for apr parity certs show
	Status      parity.Status `json:"status"`
	Reason      string        `json:"reason,omitempty"`
	File        string        `json:"file"`           // the model's
	Part        string        `json:"part,omitempty"` // of the model that was on the device: "14 of 28 layers"
	Context     int           `json:"context"`
	MinCosine   float64       `json:"min_cosine"`
	Created     time.Time     `json:"created"`
}

func lastVerdict(c parity.Certificate) *LastVerdict {
	return &LastVerdict{c.ID(), c.Status, c.Reason, c.File, c.Part, c.Context, c.MinCosine, c.Created}
}

// Absent is a backend that has no device here.
type Absent struct {
	Backend string `json:"backend"`
	Reason  string `json:"reason"`
}

// Line tells people about it.
func (a Absent) Line() string { return unavailable(a.Backend, a.Reason) }

// Devices lists what the backends of the chain find, with the last verdict on
// each. A driver that may harm the process is tried in another one first. With
// NoGPU nothing of a GPU is opened.
func Devices(ctx context.Context, o Options) (devices []Device, absent []Absent, err error) {
	list, _, err := o.Gate.Store.List()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range chainFor(o.NoGPU) {
		if name == referenceBackend {
			continue // the same processor
		}
		found, err := o.Gate.devices(ctx, name)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		switch {
		case errors.Is(err, backend.ErrNoDevice):
			absent = append(absent, Absent{name, absence(err)})
		case err != nil:
			absent = append(absent, Absent{name, err.Error()})
		case len(found) == 0:
			absent = append(absent, Absent{name, backend.ErrNoDevice.Error()})
		}
		for i, d := range found {
			listed := Device{ID: DeviceID(name, i), Backend: name, Name: d.Name(), Info: backend.Describe(d), Identity: d.Identity()}
			if at := slices.IndexFunc(list, func(c parity.Certificate) bool {
				return c.Key.Backend == name && split.Identity(c.Key.Identity) == listed.Identity
			}); at >= 0 {
				listed.Verdict = lastVerdict(list[at])
			}
			devices = append(devices, listed)
			_ = d.Close() // nothing was computed on it
		}
	}
	return devices, absent, nil
}

func (o GateOptions) devices(ctx context.Context, name string) ([]backend.Device, error) {
	b, err := backend.Find(name)
	if err != nil {
		return nil, err
	}
	if err := o.try(ctx, b, anyDevice); err != nil {
		return nil, err
	}
	return probe(b)
}
