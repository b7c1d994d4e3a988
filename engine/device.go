package engine

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/apr-engine/apr/backend"
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
